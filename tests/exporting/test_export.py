"""An export: what is in it, that it verifies again without the source, and that what is not the model is never left."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors import safe_open

from converter.errors import ExportError, TargetError
from converter.exporting import running
from converter.exporting.checking import figures
from converter.exporting.export import export
from converter.exporting.manifest import SHA256, read_export
from converter.exporting.results import Export
from converter.exporting.snippets import snippets
from converter.exporting.targets import TARGETS
from converter.exporting.verifying import verify_export
from converter.folder.records import hash_file
from tests.cli.conftest import Convert
from tests.cli.conftest import convert as convert  # a fixture
from tests.cli.schemas import validated
from tests.exporting.conftest import FIXTURE, edited
from tests.models import reference
from tests.models.families import config_of
from tests.torture import FULL
from tests.towers import ROUND

pytestmark = [pytest.mark.torch, pytest.mark.tf]

if keras.backend.backend() != "tensorflow":
    pytest.skip("about TensorFlow's graphs", allow_module_level=True)


@pytest.fixture
def copy(made: Export, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "app"))


def test_what_is_in_it(made: Export) -> None:
    text = (made.folder / "export.json").read_text("utf-8")
    assert validated(text, "export") == json.loads(json.dumps(made.to_json()))
    assert str(made.folder.parent) not in text and str(FIXTURE.parent) not in text
    recorded = read_export(made.folder)
    assert {file.path: file.sha256 for file in recorded.files} == {
        path.relative_to(made.folder).as_posix(): hash_file(path, SHA256).sha256
        for path in made.folder.rglob("*")
        if path.is_file() and path.name != "export.json"
    }
    assert made.source["files"][0]["sha256"] == hash_file(FIXTURE / "model.safetensors", SHA256).sha256
    assert made.limits == {
        "vocabulary": 137, "longest_text": 64, "channels": 3, "image_size": [40, 40], "patch_size": None,
    }  # fmt: skip
    for name in ("tokenizer.json", "processor_config.json", "config.json"):
        assert (made.folder / name).is_file()


def test_no_weight_is_in_a_saved_model_twice(made: Export) -> None:
    reader = tf.train.load_checkpoint(str(made.folder / "saved_model" / "variables" / "variables"))
    held = sum(int(np.prod(shape)) for shape in reader.get_variable_to_shape_map().values())
    with safe_open(FIXTURE / "model.safetensors", "numpy") as file:
        wanted = sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
    assert wanted <= held <= wanted + 100
    loaded = tf.saved_model.load(str(made.folder / "saved_model"))
    assert len(loaded.variables) >= len(loaded.trainable_variables) > 50


def test_what_was_compared(made: Export) -> None:
    """All of both embeddings and of the logits, but for the one batch that has positions of its own."""
    with safe_open(made.folder / "reference.safetensors", "numpy") as file:
        names = list(file.keys())
        lengths = {file.get_slice(name).get_shape()[1] for name in names if name.endswith("input_ids")}
        counts = {file.get_slice(name).get_shape()[0] for name in names if name.endswith("pixel_values")}
    assert len(lengths) >= 3 and len(counts) == 3
    for one in made.exported:
        assert one.check.given == {"similarity": 4, "encode_image": 5, "encode_text": 4}
        assert {name: list(why.values()) for name, why in one.check.not_given.items()} == {
            name: ["position_ids is not an input"] for name in ("similarity", "encode_text")
        }
        assert len(one.check.figures) == 6
        for figure in one.check.figures:
            assert figure.problem == "" and 0 < (figure.greatest or 0) <= (figure.allowed or 0) <= 1e-3
            assert figure.compared > 10
        assert set(one.check.milliseconds) == {"image of 1", "image of 8", "text of 1", "text of 8"}


def test_wrong_inputs_are_refused_or_said_not_to_be(made: Export) -> None:
    kinds = {"id past the vocabulary", "negative id", "empty batch", "text too long"}
    card = (made.folder / "README.md").read_text("utf-8")
    for one in made.exported:
        assert one.wrong_inputs.keys() == kinds
        assert one.wrong_inputs["text too long"] == one.wrong_inputs["id past the vocabulary"] == "refused"
        for kind, answer in one.wrong_inputs.items():
            assert f"{TARGETS[one.format].label}: {answer}" in next(
                line for line in card.splitlines() if f"`{kind}`" in line
            )


def _blocks(made: Export, language: str) -> list[str]:
    """Programs of the card."""
    return re.findall(rf"```{language}\n(.*?)```", (made.folder / "README.md").read_text("utf-8"), re.DOTALL)


def test_python_of_the_card(made: Export, tmp_path: Path) -> None:
    """As it stands in the card, in a process without this package, in the export's folder."""
    blocks = _blocks(made, "python")
    assert len(blocks) == sum("python" in snippets(made, one) for one in made.exported) > 0
    for block in blocks:
        program = "import sys; sys.modules['converter'] = None\n" + block
        run = subprocess.run(
            [sys.executable, "-c", program], cwd=made.folder, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr[-2000:]
        assert run.stdout.split("\n")[0] == "(1, 28)"


@pytest.mark.skipif(not FULL, reason="runs under `make torture`: npm installs onnxruntime-node")
def test_javascript_of_the_card(made: Export, packages: Path, tmp_path: Path) -> None:
    """As it stands in the card, beside the files, in Node."""
    (block,) = _blocks(made, "javascript")
    folder = Path(shutil.copytree(made.folder, tmp_path / "app"))
    (folder / "node_modules").symlink_to(packages / "node_modules")
    (folder / "card.mjs").write_text(block)
    run = subprocess.run(["node", "card.mjs"], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ["[", "1,", "28", "]"]


_CPP_MAIN = """
#include <iostream>
{includes}
int main() {{
  tensorflow::Tensor images(tensorflow::DT_FLOAT, {{1, 3, 40, 40}});
  images.flat<float>().setZero();
{body}
  std::cout << outputs[0].shape().DebugString() << std::endl;
}}
"""


@pytest.mark.skipif(not FULL or shutil.which("g++") is None, reason="runs under `make torture`, where a g++ is")
def test_cpp_of_the_card(made: Export, tmp_path: Path) -> None:
    """What loads the SavedModel, within a program, against the library that TensorFlow's wheel carries.

    No package that is here carries the headers of LiteRT's or ONNX Runtime's C++.
    """
    (block,) = (block for block in _blocks(made, "cpp") if "tensorflow::" in block)
    lines = block.splitlines()
    program = _CPP_MAIN.format(
        includes="\n".join(line for line in lines if line.startswith("#")),
        body="\n".join(line for line in lines if not line.startswith("#")),
    )
    (tmp_path / "card.cc").write_text(program)
    place = tf.sysconfig.get_lib()
    command = [
        "g++", "-w", "card.cc", "-o", "card", *tf.sysconfig.get_compile_flags(), f"-L{place}", f"-Wl,-rpath,{place}",
        "-Wl,--no-as-needed", "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2",
    ]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, timeout=600)
    run = subprocess.run([tmp_path / "card"], cwd=made.folder, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stdout) == (0, "[1,28]\n"), run.stderr[-2000:]


def test_verified_again(convert: Convert, copy: Path) -> None:
    run = convert("verify", copy, "--json")
    found = validated(run.out, "export-verification")
    assert (run.status, found["status"], found["passed"]) == (0, "passed", True)
    assert [finding["part"] for finding in found["findings"]] == ["files", *(f"outputs of {name}" for name in TARGETS)]
    assert all(finding["compared"] > 5 for finding in found["findings"])


def test_a_file_that_changed_is_not_run(convert: Convert, copy: Path) -> None:
    with (copy / "saved_model" / "saved_model.pb").open("ab") as file:
        file.write(b" ")
    run = convert("verify", copy)
    assert run.status == 1
    assert "saved_model/saved_model.pb: sha256 differs from export.json." in run.out
    assert "not run, since saved_model/saved_model.pb differ" in run.out


def test_a_file_that_is_no_model_fails(copy: Path) -> None:
    """Even where export.json has its sum: the runtime's own words."""
    file = copy / "saved_model" / "saved_model.pb"
    file.write_bytes(b"\xff" * 500)

    def change(raw: dict) -> None:
        (record,) = (one for one in raw["exports"][0]["files"] if one["name"] == "saved_model/saved_model.pb")
        record.update(size=500, sha256=hash_file(file, SHA256).sha256)

    edited(copy, change)
    found = verify_export(copy)
    assert found.status == "failed"
    assert "cannot be opened" in found.findings[1].problems[0]


@pytest.mark.parametrize(
    ("module", "status", "said"),
    [
        ("tests.exporting.crashing", "failed", "crashed with SIGABRT"),
        ("tests.exporting.lacking", "not checked", "cannot be started"),
    ],
    ids=["the runtime crashes", "the runtime is missing"],
)
def test_a_runtime_that_does_not_answer(
    copy: Path, monkeypatch: pytest.MonkeyPatch, module: str, status: str, said: str
) -> None:
    root = str(Path(__file__).parents[2])
    monkeypatch.setattr(running, "ENVIRONMENT", {**running.ENVIRONMENT, "PYTHONPATH": root})
    for target in TARGETS.values():
        monkeypatch.setattr(type(target), "runner", property(lambda _: module))
    found = verify_export(copy)
    assert found.status == status
    assert all(said in finding.problems[0] for finding in found.findings[1:])


def test_nothing_is_left_of_what_is_not_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "EMBEDDINGS_ATOL", 1e-12)
    with pytest.raises(ExportError) as caught:
        export(FIXTURE, tmp_path / "deep" / "app")
    problems, _, end = str(caught.value).partition(". ")
    assert end == "Nothing was written: the files are not the model"
    shown = problems.split("; ")
    assert re.fullmatch(r"saved_model: encode_image: image_embeds: max abs diff \S+, allowed 1e-12", shown[2])
    assert shown[3:] == ["1 more like these"]
    assert list(tmp_path.iterdir()) == []


def test_bytes_in_fixed_shapes_by_a_golden_file(made: Export, tmp_path: Path) -> None:
    """PyTorch is not asked: its interpreter does not exist. Pictures of noise are not bytes."""
    nobody = {"reference": made.folder / "reference.safetensors", "reference_python": tmp_path / "none"}
    found = export(FIXTURE, tmp_path / "golden", length=None, **nobody)  # type: ignore[arg-type]
    assert found.reference == made.reference
    with pytest.raises(
        ExportError, match="similarity was not compared: no batch can be given to it .its pictures are no"
    ):
        export(FIXTURE, tmp_path / "bytes", pixels="uint8", **nobody)  # type: ignore[arg-type]
    static = export(FIXTURE, tmp_path / "static", pixels="uint8", batch=2, length=8)
    (one,) = static.exported
    assert one.check.given == {"similarity": 3, "encode_image": 3, "encode_text": 3} and not one.check.not_given
    assert one.signatures["encode_image"]["inputs"][0]["shape"] == [2, 40, 40, 3]
    assert verify_export(static.folder).passed

    def swap(raw: dict) -> None:
        raw["normalisation"]["mean"], raw["normalisation"]["std"] = (
            raw["normalisation"][key] for key in ("std", "mean")
        )

    edited(static.folder, swap)
    found_again = verify_export(static.folder)
    assert found_again.status == "failed" and "pictures are not bytes" in found_again.findings[1].problems[0]


def test_real_pictures_and_texts_are_judged(tmp_path: Path) -> None:
    samples = samples_in(tmp_path / "samples")
    found = export(FIXTURE, tmp_path / "app", samples=samples, pixels="uint8")
    kept = {quality.side: quality for quality in found.exported[0].check.quality}
    assert kept.keys() == {"image", "text"} and kept["text"].count == 4
    assert all(quality.cosine_min > 0.999999 and quality.top1 in (None, 1.0) for quality in kept.values())


def test_pictures_have_the_size_that_the_image_processor_gives_them(tmp_path: Path) -> None:
    """DINOv2's config has the size of its training; people's pictures have another."""
    source = tmp_path / "source"
    reference.torch_model(config_of("dinov2+bert")).save_pretrained(source)
    (source / "preprocessor_config.json").write_text(
        '{"do_center_crop": true, "crop_size": {"height": 24, "width": 36}}'
    )
    found = export(source, tmp_path / "app")
    assert found.limits["image_size"] == [24, 36]
    assert found.exported[0].signatures["encode_image"]["inputs"][0]["shape"] == [None, 3, 24, 36]
    assert found.exported[0].check.given["encode_image"] == 5
    assert verify_export(found.folder).status == "passed"


def samples_in(folder: Path) -> Path:
    shutil.copytree(Path(__file__).parents[2] / "fixtures" / "pictures", folder)
    (folder / "texts.txt").write_text("una croce verde\nun cerchio rosso\ndue strisce nere\nun gatto\n", "utf-8")
    return folder


# One that is quantised a day; all under torture.
NARROW = [(name, one) for name, target in TARGETS.items() for one in target.precisions if one != "float32"]


@pytest.mark.parametrize(
    ("name", "precision"),
    [pytest.param(*one, marks=[] if NARROW[ROUND % len(NARROW)] == one else [pytest.mark.torture]) for one in NARROW],
)
def test_quantising_has_its_price(convert: Convert, tmp_path: Path, name: str, precision: str) -> None:
    samples = samples_in(tmp_path / "samples")
    wanted = ("export", FIXTURE, tmp_path / "app", "--to", name, "--precision", precision, "--samples", samples)
    run = convert(*wanted, "--min-cosine", "0.9999999", "--json")
    error = validated(run.out, "error")["error"]
    assert (run.status, error["kind"]) == (1, "ExportError") and "expected 1 or more" in error["message"]
    assert not (tmp_path / "app").exists()
    page = tmp_path / "page.html"
    run = convert(*wanted, "--min-cosine", "0.95", "--report", page)
    assert run.status == 0, run.err
    for word in ("cosine mean", "top 10 kept", f"{name} float32"):
        assert word in run.out and word in page.read_text("utf-8")
    raw = validated((tmp_path / "app" / "export.json").read_text("utf-8"), "export")
    (one,) = raw["exports"]
    assert raw["gate"] == 0.95 and {kept["side"]: kept["count"] for kept in one["quality"]} == {"image": 3, "text": 4}
    assert all(0.95 <= kept["cosine_min"] <= kept["cosine_mean"] < 1 for kept in one["quality"])
    assert one["size"] < one["float32"]["size"] and one["float32"]["milliseconds"].keys() == one["milliseconds"].keys()
    assert sorted(path.name for path in (tmp_path / "app").iterdir() if path.name.startswith(".")) == []
    assert verify_export(tmp_path / "app").passed


def test_an_existing_folder_is_refused(made: Export, convert: Convert) -> None:
    with pytest.raises(TargetError, match="exists already"):
        export(FIXTURE, made.folder)
    run = convert("export", FIXTURE, made.folder, "--json")
    assert validated(run.out, "error")["error"]["exit_status"] == run.status == 1


def test_the_page(made: Export) -> None:
    from converter.exporting.reports import export_lines, export_page

    page = export_page(made)
    assert all(f"<td>{name}</td>" in page for name in TARGETS) and "max abs diff" in page and "<script" not in page
    lines = list(export_lines(made, verbose=True))
    assert lines[0].endswith("float32: every file was run and matches its source") and lines[-1].startswith(
        "next: convert verify"
    )
    assert np.char.count(lines, "encode_image").sum() >= len(TARGETS)


_KILLED = """
import os, signal, sys
from converter import export

def die(step, done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

export(sys.argv[1], sys.argv[2], to="savedmodel", progress=die)
"""


@pytest.mark.skipif(not FULL, reason="runs under `make torture`: exports eight times")
def test_killed_at_every_step(tmp_path: Path) -> None:
    """DIR is there whole or not at all; the next run sweeps what is left and ends with a folder that verifies."""
    out = tmp_path / "place" / "app"
    out.parent.mkdir()
    ended = []
    for step in range(9):
        command = [sys.executable, "-c", _KILLED, str(FIXTURE), str(out), str(step)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        ended.append(run.returncode)
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL, run.stderr
        assert not out.exists()
    assert len(ended) > 5 and ended[-1] == 0
    assert list(out.parent.iterdir()) == [out]
    assert verify_export(out).passed
