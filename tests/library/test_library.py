"""`import converter`: no framework, nothing printed, frozen results that become JSON."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import converter
from converter import CheckpointInfo, Conversion, ConverterError, inspect, pt2tf, tf2pt
from converter.errors import TargetError

FRAMEWORKS = ["tensorflow", "tf_keras", "keras", "torch", "transformers", "jax"]
NEEDS_KERAS = {"AutoTwoTower", "TFCLIPModel", "TFVisionTextDualEncoderModel"}


def run(program: str, *arguments: Path) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path(converter.__file__).parents[1])}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert answer.stderr == ""
    return answer.stdout


def test_importing_loads_next_to_nothing() -> None:
    unwanted = [*FRAMEWORKS, "numpy", "h5py", "click", "rich", "huggingface_hub"]
    assert run(f"import sys, converter; print(sorted(sys.modules.keys() & set({unwanted!r})))") == "[]\n"


def test_help_reads_no_rules() -> None:
    unwanted = [*FRAMEWORKS, "numpy", "h5py", "rich", "huggingface_hub", "tomllib", "converter.names.rule_files"]
    program = f"import sys, converter.cli; print(sorted(sys.modules.keys() & set({unwanted!r})))"
    assert run(program) == "[]\n"


@pytest.mark.parametrize("call", ["pt2tf", "inspect"])
def test_using_it_loads_no_framework_and_no_command_line(tiny: Path, tmp_path: Path, call: str) -> None:
    unwanted = [*FRAMEWORKS, "click", "rich", "huggingface_hub"]
    program = (
        f"import sys, converter; converter.{call}(*sys.argv[1:{3 if call == 'pt2tf' else 2}]); "
        f"print(sorted(sys.modules.keys() & set({unwanted!r})))"
    )
    assert run(program, tiny, tmp_path / "out") == "[]\n"


@pytest.mark.parametrize("name", sorted(set(converter.__all__) - NEEDS_KERAS))
def test_every_name_resolves(name: str) -> None:
    assert getattr(converter, name) is not None
    assert name in dir(converter)


def test_what_is_left_behind_is_listed(tiny: Path, tmp_path: Path) -> None:
    """In the result, of a dry run too, and in the manifest; the combined tell it of both."""
    source = tmp_path / "src"
    shutil.copytree(tiny, source)
    for name in ("vocab.txt", "qwen.bpe2", "tokenization_qwen.py", "README.md", "pytorch_model.bin"):
        (source / name).touch()
    left = ("README.md", "pytorch_model.bin", "qwen.bpe2", "tokenization_qwen.py")
    assert converter.pt2tf(source, tmp_path / "out", dry_run=True).left_behind == left
    done = converter.pt2tf(source, tmp_path / "out")
    assert done.left_behind == left
    assert done.to_json()["left_behind"] == left
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["left_behind"] == list(left)
    assert converter.pt2tf(source / "model.safetensors", tmp_path / "one").left_behind == left[2:]
    assert converter.combine(source, source / "model.safetensors", tmp_path / "both").left_behind == left
    assert converter.tf2pt(tmp_path / "out", tmp_path / "back").left_behind == ()


@pytest.mark.parametrize("check", [True, False])
def test_chat_templates_go_along_everywhere(tiny: Path, tmp_path: Path, check: bool) -> None:
    """In a dry run too, which says what it would replace; once there are none any more, those that were there go."""
    name, source, out = "additional_chat_templates/rag.jinja", tmp_path / "src", tmp_path / "out"
    shutil.copytree(tiny, source)
    (source / name).parent.mkdir()
    (source / name).write_text("rag")
    made = converter.pt2tf(source, tmp_path / "tf", check=check).out
    for target in ("flax", "tf", "pt"):
        done = converter.convert(made, tmp_path / target / "again", to=target, check=check)
        made = done.out
        assert {file.name: file.size for file in done.files}[name] == 3
        assert (made / name).read_text() == "rag"
        assert converter.verify(made, weights_only=True).passed
    converter.pt2tf(source, out)
    (out / "additional_chat_templates" / "notes.txt").write_text("mine")
    for again in (source, tiny):
        told = converter.pt2tf(again, out, overwrite=True, dry_run=True)
        done = converter.pt2tf(again, out, overwrite=True, check=check)
        assert name in told.replaced
        assert set(told.replaced) <= set(done.replaced)
        assert (told.left_behind, told.kept, done.left_behind, done.kept) == ((), 1, (), 1)
        assert (out / name).exists() == (again == source)
        assert (out / "additional_chat_templates" / "notes.txt").read_text() == "mine"


def test_a_file_where_chat_templates_belong(tiny: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "src", tmp_path / "out"
    shutil.copytree(tiny, source)
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "rag.jinja").write_text("rag")
    out.mkdir()
    (out / "additional_chat_templates").write_text("mine")
    for dry_run in (True, False):
        with pytest.raises(
            converter.ConverterError, match="additional_chat_templates: not a folder, but new chat templ"
        ):
            converter.pt2tf(source, out, overwrite=True, dry_run=dry_run)
        assert [path.name for path in out.iterdir()] == ["additional_chat_templates"]


def test_names_are_listed_once_and_sorted() -> None:
    assert converter.__all__ == sorted(set(converter.__all__))
    assert {"pt2tf", "tf2pt", "inspect", "ConverterError", "tf_to_pt_weight_rename"} <= set(converter.__all__)


def test_no_module_takes_a_names_place() -> None:
    """A module is set as an attribute of its package when it is first imported, over whatever was there to be called."""
    modules = {module.name for module in pkgutil.iter_modules(converter.__path__)}
    assert {"conversion", "publishing"} <= modules
    assert not modules & set(converter.__all__)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("converter.engine", "converter.conversion.engine"),
        ("converter.layouts", "converter.tensors.layouts"),
        ("converter.verification", "converter.parity.files_and_weights"),
    ],
)
def test_modules_of_version_0_1_are_found_by_their_old_names(old: str, new: str) -> None:
    """One module, whatever it is called; it stays what it was."""
    sys.modules.pop(old, None)
    before = importlib.import_module(new)
    with pytest.warns(
        DeprecationWarning, match=f"^{old} is called {new} now; the old name goes with the next version$"
    ):
        found = importlib.import_module(old)
    assert found is before
    assert found.__spec__ is not None
    assert (found.__name__, found.__spec__.name) == (new, new)


def test_every_old_name_leads_somewhere() -> None:
    for new in set(converter._MOVED.values()) - {"converter.models.families.vision_text_dual_encoder"}:
        assert importlib.util.find_spec(new) is not None, new
    with pytest.raises(ModuleNotFoundError, match="No module named 'converter.nonsense'"):
        importlib.import_module("converter.nonsense")


def test_other_names_do_not_resolve() -> None:
    with pytest.raises(AttributeError, match="^module 'converter' has no attribute 'nonsense'$"):
        getattr(converter, "nonsense")  # noqa: B009


@pytest.mark.parametrize("kind", [Conversion, CheckpointInfo])
def test_results_are_frozen(kind: Any, tiny: Path, tmp_path: Path) -> None:
    result = inspect(tiny) if kind is CheckpointInfo else pt2tf(tiny, tmp_path / "out", dry_run=True)
    assert type(result) is kind
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.source = Path("elsewhere")  # type: ignore[misc]


def test_results_become_json(tiny: Path, tmp_path: Path) -> None:
    there = pt2tf(tiny, tmp_path / "tf")
    back = tf2pt(tmp_path / "tf", tmp_path / "pt", dry_run=True)
    for result in (there, back, inspect(tiny), inspect(tmp_path / "tf")):
        plain = result.to_json()
        assert json.loads(json.dumps(plain)) == json.loads(json.dumps(plain, default=pytest.fail))
        fields = {field.name for field in dataclasses.fields(result)} - {"plan"}
        assert fields <= set(plain)


def test_nothing_is_printed(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pt2tf(tiny, tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "pt")
    inspect(tiny)
    with pytest.raises(ConverterError):
        pt2tf(tiny, tmp_path / "tf")
    assert capfd.readouterr() == ("", "")


def test_paths_as_text(tiny: Path, tmp_path: Path) -> None:
    result = pt2tf(str(tiny), str(tmp_path / "tf"))
    assert (result.source, result.out) == (tiny, tmp_path / "tf")


def test_options_are_keywords_only(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        pt2tf(tiny, tmp_path / "tf", None, "h5")  # type: ignore[call-arg]


def test_one_except_is_enough(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ConverterError) as caught:
        pt2tf(tiny, tmp_path / "out")
    assert type(caught.value) is TargetError
    assert caught.value.__cause__ is None


def test_is_typed() -> None:
    assert (Path(converter.__file__).parent / "py.typed").is_file()


def test_inspection(tiny: Path, tmp_path: Path) -> None:
    info = inspect(tiny)
    assert (info.framework, info.container, info.tensors, info.problem) == ("pt", "PyTorch safetensors", 97, None)
    assert info.files == {"model.safetensors": 465_980}
    assert info.nbytes == 465_980
    assert sum(info.parameters.values()) == 113_617
    assert info.dtypes == {"float32": 97}
    with pytest.raises(ConverterError):
        inspect(tmp_path)
