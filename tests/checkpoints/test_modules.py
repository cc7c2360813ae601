"""Folders that sentence-transformers wrote: modules.json leads to the model, and to nothing outside the folder."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from converter import combine, inspect, pt2tf, tf2pt, verify
from converter.checkpoints.detect import model_folder, open_source
from converter.checkpoints.modules import MAX_MODULES, MAX_MODULES_BYTES
from converter.errors import ConfigError, ConverterError, CorruptCheckpoint, SourceError
from converter.parity import verify as verifying
from converter.parity.runners.golden import Recording
from tests.tiny import assert_same, config_of, load, tensors_of, write_checkpoint, write_tiny

MODEL = "0_CLIPModel"
SMALL = {"tokenizer_config.json": "{}", "vocab.txt": "one\n", "preprocessor_config.json": '{"do_resize": true}'}


def module(path: Any, number: int = 0, kind: str = "CLIPModel") -> dict[str, Any]:
    return {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}


def write_modules(folder: Path, *modules: Any) -> Path:
    """Writes modules.json as sentence-transformers does, and what else it keeps in the root."""
    folder.mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(list(modules), indent=2), "utf-8")
    (folder / "config_sentence_transformers.json").write_text('{"__version__": {}}', "utf-8")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder as sentence-transformers 2 wrote it: nothing but modules.json in the root, the model in a folder."""
    folder = write_modules(tmp_path / "st", module(MODEL))
    write_tiny(folder / MODEL, family="clip")
    for name, text in SMALL.items():
        (folder / MODEL / name).write_text(text, "utf-8")
    return folder


def test_the_model_and_its_small_files_are_found(source: Path, tmp_path: Path) -> None:
    tensors = load(source / MODEL / "model.safetensors")
    there = pt2tf(source, tmp_path / "tf")
    assert (there.family, there.tensors, there.source) == ("clip", len(tensors), source)
    assert {name: (tmp_path / "tf" / name).read_text("utf-8") for name in SMALL} == SMALL
    manifest = json.loads((tmp_path / "tf" / "conversion.json").read_text("utf-8"))
    assert manifest["source"]["path"] == f"../st/{MODEL}"
    assert [file["name"] for file in manifest["source"]["files"]] == ["model.safetensors"]
    tf2pt(tmp_path / "tf", tmp_path / "back")
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)


def test_everything_is_as_if_the_folder_itself_were_named(source: Path, tmp_path: Path) -> None:
    pt2tf(source, tmp_path / "one")
    pt2tf(source / MODEL, tmp_path / "two")
    for name in ("tf_model.h5", "config.json", "conversion.json", *SMALL):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    seen = [vars(inspect(path)) | {"source": ""} for path in (source, source / MODEL)]
    assert seen[0] == seen[1]
    assert seen[0]["problem"] is None


def test_the_files_are_found_again(source: Path, tmp_path: Path) -> None:
    pt2tf(source, tmp_path / "tf")
    files, weights = verify(tmp_path / "tf", weights_only=True).findings[:2]
    assert (files.status, weights.status) == ("passed", "passed")
    assert weights.against == f"{source / MODEL}, bit for bit"
    assert weights.compared == len(load(source / MODEL / "model.safetensors"))


def test_it_may_be_named_as_the_reference(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pt2tf(source / MODEL, tmp_path / "tf")
    weights = verify(tmp_path / "tf", weights_only=True, reference=source).findings[1]
    assert (weights.status, weights.against) == ("passed", f"{source / MODEL}, bit for bit")
    ran: list[Path] = []
    monkeypatch.setattr(verifying, "start_reference", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(verifying, "all_batches", lambda *_: ((), ""))
    monkeypatch.setattr(verifying, "ask_run", lambda worker, path, *_: ran.append(path) or Recording({}, ()))
    monkeypatch.setattr(verifying, "write_recording", lambda *_, **__: None)
    verifying.record_reference(source, tmp_path / "golden.safetensors")
    assert ran == [source / MODEL]


def test_towers_of_it(source: Path, tmp_path: Path) -> None:
    made = combine(source, source, tmp_path / "both")
    assert made.made_new == ()
    write_modules(source.parent / "text", module("0_Transformer", 0, "Transformer"), module("1_Pooling", 1, "Pooling"))
    config = config_of()
    tower = {n.removeprefix("text_model."): a for n, a in tensors_of(config).items() if n.startswith("text_model.")}
    write_checkpoint(tmp_path / "text" / "0_Transformer", config["text_config"], tower)
    (tmp_path / "text" / "1_Pooling").mkdir()
    (tmp_path / "text" / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}', "utf-8")
    assert combine(source, tmp_path / "text", tmp_path / "two").towers == ("clip_vision_model", "bert")
    assert (tmp_path / "two" / "preprocessor_config.json").read_text("utf-8") == SMALL["preprocessor_config.json"]


def test_an_ordinary_folder_with_a_modules_json_is_itself(source: Path, tmp_path: Path) -> None:
    """Newer versions keep the model in the root, with an empty path."""
    root = write_modules(tmp_path / "new", module(""), module("1_Pooling", 1, "Pooling"))
    write_tiny(root, family="clip")
    assert model_folder(root) == root
    assert pt2tf(root, tmp_path / "tf").family == "clip"
    (root / "modules.json").write_text("what is not read is not judged", "utf-8")
    assert inspect(root).problem is None
    # Weights without a config.json wait for --config.
    (root / "config.json").rename(tmp_path / "config.json")
    assert pt2tf(root, tmp_path / "again", config=tmp_path / "config.json").family == "clip"


def test_the_first_module_with_a_config_counts(source: Path) -> None:
    write_modules(source, module("nothing"), module(""), module(MODEL, 1), module("2_Dense", 2))
    (source / "2_Dense").mkdir()
    (source / "2_Dense" / "config.json").write_text("{}", "utf-8")
    assert model_folder(source) == source / MODEL


def test_a_weights_file_and_other_folders_are_given_back(source: Path, tmp_path: Path) -> None:
    for path in (source / MODEL, source / MODEL / "model.safetensors", tmp_path, tmp_path / "none"):
        assert model_folder(path) == path


def test_out_may_not_lie_in_the_source(source: Path) -> None:
    for out in (source / "out", source / MODEL / "out"):
        with pytest.raises(ConverterError, match="lies inside the source"):
            pt2tf(source, out)


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(folder: Path, error: type[ConverterError] = ConfigError) -> str:
    said = []
    for call in (open_source, lambda path, _: pt2tf(path, folder.parent / "out"), lambda path, _: inspect(path)):
        before = sorted(folder.parent.rglob("*"))
        with pytest.raises(ConverterError) as caught:
            call(folder, None)
        assert type(caught.value) is error
        assert sorted(folder.parent.rglob("*")) == before
        said.append(str(caught.value))
    assert len(set(said)) == 1
    assert said[0].isprintable()
    return said[0]


ELSEWHERE = {
    "upwards": "..", "a path upwards": "../elsewhere", "absolute": "/etc", "a path inside": "a/../../elsewhere",
    "deeper": f"x/{MODEL}", "itself": ".", "a backslash": "..\\elsewhere", "zero": "a\0b", "no text": 3, "none": None,
    "a list": ["0_CLIPModel"], "an escape": "\x1b[31m/", "half a character": "\ud800", "too long": "x" * 300,
}  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_path_that_is_no_folder_beside_it(source: Path, tmp_path: Path, name: str) -> None:
    write_tiny(tmp_path / "elsewhere", family="clip")
    write_modules(source, module(ELSEWHERE[name]), module(MODEL, 1))
    message = refused(source)
    assert message.startswith(f"{source}/modules.json: a module lies in ")
    assert message.endswith(", expected the name of a folder beside modules.json; restore it from the original")


@pytest.mark.parametrize("entry", [3, None, "0_CLIPModel", [], {}, {"idx": 0}])
def test_a_module_that_is_none(source: Path, entry: Any) -> None:
    write_modules(source, entry)
    assert refused(source) == (
        f"{source}/modules.json: a module lies in None, expected the name of a folder beside modules.json; restore it "
        "from the original"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", "expected a JSON list, found int; restore it from the original"),
        ('"0_CLIPModel"', "expected a JSON list, found str; restore it from the original"),
        ("", "not JSON: Expecting value: line 1 column 1 (char 0); restore it from the original"),
        ("[" * 60 + "]" * 60, "nested deeper than 50 levels, too deep for a config; restore the original"),
    ],
)
def test_a_modules_json_that_is_none(source: Path, text: str, said: str) -> None:
    (source / "modules.json").write_text(text, "utf-8")
    assert refused(source) == f"{source}/modules.json: {said}"


def test_an_object(source: Path) -> None:
    (source / "modules.json").write_text(json.dumps({MODEL: module(MODEL)}), "utf-8")
    assert refused(source) == f"{source}/modules.json: expected a JSON list, found dict; restore it from the original"


def test_more_modules_than_any_model_has(source: Path) -> None:
    write_modules(source, *(module(MODEL, number) for number in range(MAX_MODULES)))
    assert model_folder(source) == source / MODEL
    write_modules(source, *(module(MODEL, number) for number in range(MAX_MODULES + 1)))
    assert refused(source) == (
        f"{source}/modules.json: lists {MAX_MODULES + 1} modules, more than any model has; restore the original"
    )


def test_one_of_gigabytes(source: Path) -> None:
    with (source / "modules.json").open("ab") as file:
        file.truncate(2**33)
    assert refused(source) == (
        f"{source}/modules.json: larger than {MAX_MODULES_BYTES:,} bytes, too large for a config; restore it from the original"
    )


def test_a_pipe(source: Path) -> None:
    (source / "modules.json").unlink()
    os.mkfifo(source / "modules.json")
    assert refused(source) == f"{source}/modules.json: not a file; put the original in its place"


@pytest.mark.parametrize("linked", ["modules.json", MODEL])
def test_a_link_out_of_the_folder(source: Path, tmp_path: Path, linked: str) -> None:
    (source / linked).rename(tmp_path / "elsewhere")
    (source / linked).symlink_to("../elsewhere")
    assert refused(source, CorruptCheckpoint) == (
        f"{source / linked}: a link out of its folder, to {tmp_path / 'elsewhere'}; copy the file itself into the folder"
    )


def test_a_link_within_the_folder(source: Path, tmp_path: Path) -> None:
    (source / MODEL).rename(source / "model")
    (source / MODEL).symlink_to("model")
    assert pt2tf(source, tmp_path / "tf").family == "clip"


@pytest.mark.parametrize("linked", ["config.json", "model.safetensors"])
def test_a_link_out_of_the_models_folder(source: Path, tmp_path: Path, linked: str) -> None:
    (source / MODEL / linked).rename(tmp_path / "elsewhere")
    (source / MODEL / linked).symlink_to("../../elsewhere")
    assert "a link out of its folder" in refused(source, CorruptCheckpoint)


def test_links_in_a_circle(source: Path) -> None:
    write_modules(source, module("a"))
    (source / "a").symlink_to("b")
    (source / "b").symlink_to("a")
    assert "modules.json: none of its modules has a config.json (a); " in refused(source, SourceError)


@pytest.mark.parametrize(
    ("modules", "names"),
    [([module("1_Pooling")], "1_Pooling"), ([module("")], "it names no folder"), ([], "it names no folder")],
)
def test_a_model_that_is_not_there(source: Path, modules: list[Any], names: str) -> None:
    write_modules(source, *modules)
    assert refused(source, SourceError) == (
        f"{source}/modules.json: none of its modules has a config.json ({names}); download the whole model, or name the "
        "folder that holds config.json"
    )
