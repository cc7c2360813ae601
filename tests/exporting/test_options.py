"""What an export is refused for before anything is run: no framework is needed to be told."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from converter import export
from converter.errors import ArgumentError, ConverterError, OptionError, SourceError, TargetError
from converter.exporting.card import metadata
from converter.exporting.export import _weights
from converter.exporting.options import ExportOptions
from converter.exporting.snippets import SNIPPETS
from converter.exporting.targets import TARGETS
from converter.hub.obtained import Obtained
from tests.cli.conftest import Convert
from tests.cli.conftest import convert as convert  # a fixture
from tests.cli.schemas import validated
from tests.exporting.conftest import FIXTURE


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"to": "coreml"}, ArgumentError, "to 'coreml' does not exist; choose 'savedmodel' or"),
        ({"to": ()}, ArgumentError, "to () does not exist; choose"),
        (
            {"precision": "int4"},
            ArgumentError,
            "precision 'int4' does not exist; choose 'float32' or 'float16' or 'int8'",
        ),
        (
            {"to": "litert", "precision": "static-int8"},
            OptionError,
            "static int8 (weights and activations) is refused:",
        ),
        (
            {"to": "litert", "precision": "int8"},
            OptionError,
            "int8 is judged by real pictures and texts. Give --samples",
        ),
        ({"precision": "int8"}, OptionError, "SavedModel has no int8 here; choose float32, or another format"),
        ({"samples": "none"}, OptionError, "none: not found; name a golden reference file or a folder"),
        ({"min_cosine": 0.9}, OptionError, "min_cosine is of float16 and int8; float32 has to be within 1e-5."),
        ({"min_cosine": 1.5}, ArgumentError, "min_cosine is 1.5; give a number above 0, and 1 at most"),
        ({"seconds": 0.0}, ArgumentError, "seconds is 0.0; give a finite number above 0"),
        ({"batch": 0}, ArgumentError, "batch is 0; expected 1 or more"),
    ],
)
def test_refused(
    tmp_path: Path, monkeypatch: Any, options: dict[str, Any], kind: type[ConverterError], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught:
        export(FIXTURE, tmp_path / "app", **options)
    assert str(caught.value).startswith(said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--precision", "static-int8", "--to", "litert"),
        ("--precision", "int8", "--to", "litert"),
        ("--report", "page.pdf"),
        ("--report", "none/page.html"),
    ],
)
def test_wrong_usage_is_2(convert: Convert, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    run = convert("export", FIXTURE, tmp_path / "app", *arguments, "--json")
    assert validated(run.out, "error")["error"]["exit_status"] == run.status == 2


def test_an_image_processor_without_numbers(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).write_bytes((FIXTURE / name).read_bytes())
    with pytest.raises(
        SourceError, match=r"no preprocessor_config.json, whose numbers --pixels uint8 puts into the graph"
    ):
        export(source, tmp_path / "app", pixels="uint8")
    with pytest.raises(TargetError, match="lies inside the source"):
        export(source, source / "app")


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.exporting.export.free_disk", lambda _: 1000)
    with pytest.raises(
        TargetError, match=r"needs about 1\.0 GB of memory and 0\.0 GB of disk, and the disk has 0\.0 GB left"
    ):
        export(FIXTURE, tmp_path / "app")


def test_formats_are_those_of_the_command_line() -> None:
    from converter.cli.exporting import FORMATS

    assert set(FORMATS) == set(TARGETS) == set(SNIPPETS)
    assert all("python" in texts for texts in SNIPPETS.values())
    places = [place for target in TARGETS.values() for one in target.precisions for place in target.places(one)]
    assert len(set(places)) == len(places) and not any(re.search(r"^/|\.\.", place) for place in places)


def test_options_are_checked() -> None:
    assert ExportOptions() == ExportOptions("float32", "float", None, None)
    with pytest.raises(ArgumentError):
        ExportOptions(length=int(np.int64(0)))


@pytest.mark.parametrize(
    ("source", "formats", "said"),
    [
        ({"name": "a"}, ["savedmodel"], {"tags": ["clip", "savedmodel"]}),
        (
            {"name": "org/a", "hub": "org/a", "license": {"license": "mit"}},
            ["savedmodel", "litert"],
            {
                "license": "mit",
                "library_name": "litert",
                "base_model": "org/a",
                "tags": ["clip", "savedmodel", "litert"],
            },
        ),
        (
            {"name": "a", "license": {"license": "no", "license_name": "x: [", "license_link": "https://a.b/c"}},
            ["onnx"],
            {
                "license": "no",  # a word, not YAML's false
                "license_link": "https://a.b/c",
                "library_name": "transformers.js",
                "tags": ["clip", "onnx"],
            },
        ),
    ],
)
def test_the_card_of_an_export_has_metadata(source: dict[str, Any], formats: list[str], said: dict[str, Any]) -> None:
    lines = metadata(source, "clip", formats)
    assert (lines[0], lines[-2:]) == ("---", ["---", ""])
    assert yaml.safe_load("\n".join(lines[1:-2])) == said


def test_the_licence_of_a_folder_is_recorded(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "model")
    held = Obtained(tmp_path / "model", "model")
    assert "license" not in _weights(held)[1]
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n")
    assert _weights(held)[1]["license"] == {"license": "mit"}
    of_the_hub = replace(held, hub="org/a", commit="0" * 40, licence={"license": "apache-2.0"})
    assert _weights(of_the_hub)[1]["license"] == {"license": "apache-2.0"}
