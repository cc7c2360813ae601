"""config.json files that lie, ask for code or exhaust what they can."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter import pt2tf
from converter.errors import ConfigError, ConverterError, CorruptCheckpoint, PlanError, UnsupportedOption
from converter.folder.files import MAX_CONFIG_BYTES
from converter.names.configs import check_config
from converter.names.rule_files import SIDES
from tests.compat.towers import FAMILIES
from tests.hostile.conftest import Refused
from tests.names.test_odd_configs import used_fields
from tests.tiny import OF_FAMILIES, config_of, tensors_of, write_checkpoint


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "src", config_of("swin", "bert"), tensors_of(config_of("swin", "bert")))


@pytest.mark.parametrize("depth", [60, 300, 900, *range(940, 1000, 6), 5000, 100_000])
def test_bottomless(source: Path, refused: Refused, depth: int) -> None:
    text = json.dumps(config_of("swin") | {"deep": "HERE"}).replace('"HERE"', "[" * depth + "]" * depth)
    (source / "config.json").write_text(text)
    message = refused(source, ConfigError)
    assert (
        "nested deeper than 50 levels, too deep for a config" in message
        or "not JSON: maximum recursion depth" in message
    )


def test_larger_than_any(source: Path, refused: Refused) -> None:
    with (source / "config.json").open("ab") as file:
        file.truncate(MAX_CONFIG_BYTES + 1)
    assert refused(source, ConfigError) == (
        f"{source}/config.json: larger than {MAX_CONFIG_BYTES:,} bytes, too large for a config; restore it from the original"
    )


def test_not_utf8(source: Path, refused: Refused) -> None:
    (source / "config.json").write_bytes(b'{"model_type": "\xff\xfe"}')
    assert "config.json: not JSON: 'utf-8' codec can't decode" in refused(source, ConfigError)


def test_a_pipe(source: Path, refused: Refused) -> None:
    (source / "config.json").unlink()
    os.mkfifo(source / "config.json")
    assert refused(source, ConfigError) == f"{source}/config.json: not a file; put the original in its place"


def test_a_folder(source: Path, refused: Refused) -> None:
    (source / "config.json").unlink()
    (source / "config.json").mkdir()
    assert (
        refused(source, ConfigError)
        == f"{source}/config.json: a folder, expected a file; put the original in its place"
    )


@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "../other.json", "/dev/stdin"])
def test_a_link_out_of_the_folder(source: Path, refused: Refused, tmp_path: Path, target: str) -> None:
    (tmp_path / "other.json").write_text(json.dumps(config_of("swin")))
    (source / "config.json").unlink()
    (source / "config.json").symlink_to(target)
    assert "config.json: a link out of its folder, to " in refused(source, CorruptCheckpoint)


@pytest.mark.parametrize("place", ["fields", "vision_fields", "text_fields"])
@pytest.mark.parametrize("auto_map", [{"AutoModel": "evil.Evil"}, "evil", ["evil"]])
def test_code_of_its_own(source: Path, refused: Refused, place: str, auto_map: Any) -> None:
    (source / "evil.py").write_text("raise SystemExit('executed')")
    (source / "config.json").write_text(json.dumps(config_of("swin", **{place: {"auto_map": auto_map}})))
    assert "auto_map asks for code of its own, which is never run" in refused(source, UnsupportedOption)


ENORMOUS: list[tuple[str, dict[str, Any]]] = [
    ("text_fields", {"num_hidden_layers": 2**31 - 1}),
    ("text_fields", {"num_hidden_layers": 200_000}),
    ("text_fields", {"hidden_size": 2**31 - 1}),
    ("text_fields", {"vocab_size": 2**31 - 1}),
    ("text_fields", {"max_position_embeddings": 2**31 - 1}),
    ("text_fields", {"num_hidden_layers": -1}),
    ("text_fields", {"hidden_size": -40}),
    ("text_fields", {"hidden_size": 10**400}),
    ("vision_fields", {"window_size": 2**31 - 1}),
    ("vision_fields", {"window_size": 5000}),
    ("vision_fields", {"window_size": 0}),
    ("vision_fields", {"window_size": -1}),
    ("vision_fields", {"depths": [200_000, 200_000]}),
    ("vision_fields", {"depths": [1] * 3000}),
    ("vision_fields", {"depths": [0] * 3000, "num_heads": [1] * 3000}),
    ("vision_fields", {"depths": [1] * 300_000}),
    ("vision_fields", {"depths": []}),
    ("vision_fields", {"depths": ["x"]}),
    ("vision_fields", {"num_heads": [2]}),
    ("vision_fields", {"depths": 2}),
    ("vision_fields", {"mlp_ratio": -3.0}),
    ("vision_fields", {"mlp_ratio": 1e300}),
    ("vision_fields", {"patch_size": 0}),
    ("vision_fields", {"patch_size": [0]}),
    ("vision_fields", {"patch_size": [2]}),
    ("vision_fields", {"image_size": [32, [2]], "use_absolute_embeddings": True}),
    ("vision_fields", {"embed_dim": 2**31 - 1}),
    ("fields", {"projection_dim": 0}),
    ("fields", {"projection_dim": -26}),
    ("fields", {"projection_dim": 2**31 - 1}),
]


@pytest.mark.parametrize(("place", "fields"), ENORMOUS, ids=[json.dumps(fields)[:40] for _, fields in ENORMOUS])
def test_sizes(source: Path, refused: Refused, place: str, fields: dict[str, Any]) -> None:
    (source / "config.json").write_text(json.dumps(config_of("swin", **{place: fields})))
    assert "config.json" in refused(source, ConfigError if "10**400" in str(fields) else ConverterError)


@pytest.mark.parametrize(
    "value", [None, True, [], {}, "x", -1, 0, 1.5, 2**31, float("nan"), [[]], [None], ["x"], {"a": 1}]
)
@pytest.mark.parametrize(
    ("place", "field"),
    [
        ("vision_fields", "depths"), ("vision_fields", "num_heads"), ("vision_fields", "image_size"),
        ("vision_fields", "patch_size"), ("vision_fields", "window_size"), ("vision_fields", "mlp_ratio"),
        ("vision_fields", "model_type"), ("text_fields", "hidden_size"), ("text_fields", "num_hidden_layers"),
        ("text_fields", "is_decoder"), ("text_fields", "pruned_heads"), ("fields", "projection_dim"),
        ("fields", "vision_config"), ("fields", "text_config"), ("fields", "model_type"),
    ],
)  # fmt: skip
def test_wrong_types(source: Path, tmp_path: Path, place: str, field: str, value: Any) -> None:
    """Refused, or taken because it changes nothing; never a traceback of ours."""
    (source / "config.json").write_text(json.dumps(config_of("swin", **{place: {field: value}})))
    try:
        pt2tf(source, tmp_path / "out", dry_run=True)
    except ConverterError as error:
        assert str(error).isprintable()
        assert isinstance(error, ConfigError | PlanError)


# --- of every other family, by the fields that its rules have ---------------------------------------------------------

WRONG: list[Any] = [
    None, True, [], {}, "x", -1, 0, 1.5, 2**31, 2**31 - 1, -(10**400), 1e300, float("nan"), [[]], [None], ["x"], {"a": 1}
]  # fmt: skip


def places(family: str) -> dict[str, list[str]]:
    """Where a config of a family has fields, and which: the top level, and the sections of both towers, also said twice."""
    checked = check_config(OF_FAMILIES[family])
    towers = {f"{side}_config": [*checked.tower(side).rules["config"]["honoured"], "model_type"] for side in SIDES}
    twice = {f"{section}_dict": fields for section, fields in towers.items() if checked.family.config_dicts}
    top = [*checked.family.rules["config"]["honoured"], *towers, *twice, "model_type"]
    return {"": top, **towers, **twice}


def with_field(family: str, place: str, field: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(OF_FAMILIES[family])
    if place:
        section = config.get(place, copy.deepcopy(config[place.removesuffix("_dict")]))
        return config | {place: {**section, field: value}}
    return config | {field: value}


PLACES = [(family, place) for family in FAMILIES for place in places(family)]


@pytest.fixture
def whole(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a sound checkpoint of a family."""
    return lambda family: write_checkpoint(tmp_path / "src", OF_FAMILIES[family], tensors_of(OF_FAMILIES[family]))


@pytest.mark.parametrize(("family", "place"), PLACES)
def test_wrong_values_of_every_field(whole: Callable[[str], Path], tmp_path: Path, family: str, place: str) -> None:
    """Refused, or taken because it changes no tensor; never a traceback of ours."""
    source, refusals = whole(family), 0
    for field in places(family)[place]:
        for value in WRONG:
            (source / "config.json").write_text(json.dumps(with_field(family, place, field, value)))
            try:
                pt2tf(source, tmp_path / "out", dry_run=True)
            except ConverterError as error:
                refusals += 1
                assert str(error).isprintable()
                assert len(str(error)) < 4000
                assert isinstance(error, ConfigError | PlanError)
    assert refusals > 5 * len(places(family)[place])


def shaping(family: str) -> list[tuple[str, str]]:
    """The fields that shapes follow from, and where they stand."""
    checked = check_config(OF_FAMILIES[family])
    top = {str(axis) for module in checked.family.rules["module"] for axis in module["shape"]}
    found = [("", field) for field in checked.family.rules["config"]["honoured"] if field in top]
    for side in SIDES:
        honoured = checked.tower(side).rules["config"]["honoured"]
        found += [
            (f"{side}_config", field) for field in sorted(used_fields(checked.tower(side).rules)) if field in honoured
        ]
    return found


SHAPING = [(family, *where) for family in FAMILIES for where in shaping(family)]


@pytest.mark.parametrize(("family", "place", "field"), SHAPING)
def test_sizes_of_every_family(
    whole: Callable[[str], Path], refused: Refused, family: str, place: str, field: str
) -> None:
    source = whole(family)
    for value in (2**31 - 1, 200_000, 0, -1, 10**400):
        (source / "config.json").write_text(json.dumps(with_field(family, place, field, value)))
        assert "config" in refused(source, ConfigError if value == 10**400 else ConverterError)


@pytest.mark.parametrize(("family", "place"), PLACES)
def test_code_of_every_family(whole: Callable[[str], Path], refused: Refused, family: str, place: str) -> None:
    source = whole(family)
    config = with_field(family, place, "auto_map", {"AutoModel": "evil.Evil"})
    (source / "config.json").write_text(json.dumps(config))
    assert "auto_map asks for code of its own, which is never run" in refused(source, UnsupportedOption)


def test_names_of_fields_with_escapes(source: Path, refused: Refused) -> None:
    config = config_of("swin", text_fields={"model_type": "\x1b]0;evil\x07\r\n"})
    (source / "config.json").write_text(json.dumps(config))
    assert r"text_config.model_type '\x1b]0;evil\x07\r\n' has no rules" in refused(source, ConfigError)


def test_a_long_list_is_not_looked_at(source: Path, refused: Refused) -> None:
    """One of a megabyte in place of a number of layers."""
    (source / "config.json").write_text(json.dumps(config_of("swin", vision_fields={"depths": [1] * 300_000})))
    assert refused(source, ConfigError).startswith(f"{source}/config.json: vision_config.depths is [1, 1, 1")


@pytest.mark.parametrize(
    ("value", "message"),
    [([1], "is [1], expected an object"), ({str(i): 1 for i in range(2_000)}, "is {'0': 1, '1': 1")],
    ids=["a list", "large"],
)
def test_a_large_object_is_not_kept(source: Path, refused: Refused, value: Any, message: str) -> None:
    config = config_of("swin")
    config["text_config"] = {"model_type": "jina_embeddings_v3", "rope_parameters": value}
    (source / "config.json").write_text(json.dumps(config))
    assert refused(source, ConfigError).startswith(f"{source}/config.json: text_config.rope_parameters {message}")


def test_more_layers_than_any_model_has(source: Path, refused: Refused) -> None:
    (source / "config.json").write_text(json.dumps(config_of("swin", text_fields={"num_hidden_layers": 2**31 - 1})))
    assert refused(source, ConfigError) == (
        "config.json: num_hidden_layers is 2,147,483,647, more than any model has; correct the config"
    )


def test_more_tensors_than_any_model_has(source: Path, refused: Refused) -> None:
    (source / "config.json").write_text(json.dumps(config_of("swin", text_fields={"num_hidden_layers": 50_000})))
    assert (
        refused(source, ConfigError)
        == "config.json: text_config describes more than 50,000 tensors; correct the config"
    )
