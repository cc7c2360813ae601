"""Flax as source and as target: what transformers wrote comes back byte for byte, by way of either other framework."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import combine, convert, inspect, pt2tf, tf2pt
from converter.checkpoints import flax
from converter.conversion.streams import open_tensors
from converter.errors import ConverterError, SourceError, TargetError, WrongFramework
from converter.names.configs import check_config
from converter.names.rules import compile_rules
from tests.compat.towers import ALL_VISION
from tests.flax_files import nest, pack
from tests.tiny import FIXTURES, MODELS, OF_FAMILIES, config_of, load, tensors_of, write_checkpoint, write_tiny

FLAX = FIXTURES / "flax"
# How each fixture was written, where not in one file of whole arrays.
WRITTEN: dict[str, dict[str, Any]] = {
    "beit_both-xlm-roberta": {},
    "beit_rel-bert": {},
    "clip-bert": {},
    "dinov2_swiglu-albert": {"format": "safetensors"},
    "vit-roberta": {"max_shard_size": 60_000},
}
IN_FLAX = (
    ("clip_vision_model", "vit", "beit", "dinov2"),
    ("bert", "roberta", "xlm-roberta", "roberta-prelayernorm", "albert"),
)


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(("flax_model", "model.")))


def in_flax(config: dict[str, Any], tensors: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """What Flax must get, moved by NumPy alone and named as it names its leaves."""
    leaves = {"norm": "scale", "embedding": "embedding", "word_embedding": "embedding"}
    found = {}
    kinds = kinds_of(config)
    for name, array in tensors.items():
        path, _, leaf = name.rpartition(".")
        kind = kinds[name]
        if leaf == "weight" and kind in ("dense", "conv2d"):
            axes = (1, 0) if kind == "dense" else (2, 3, 1, 0)
            found[f"{path}.kernel".replace(".", "/")] = np.ascontiguousarray(array.transpose(axes))
        else:
            leaf = leaves.get(kind, leaf) if leaf == "weight" else leaf
            found[".".join(filter(None, (path, leaf))).replace(".", "/")] = array
    return found


def kinds_of(config: dict[str, Any]) -> dict[str, str]:
    """By the shape of a weight and its name, whatever the rules say."""
    kinds = {}
    for rule in compile_rules(check_config(config)).tensors:
        norm = len(rule.shape) == 1
        table = (len(rule.shape) == 2 and "embeddings.weight" in rule.name) or "_embedding.weight" in rule.name
        conv = len(rule.shape) == 4
        kinds[rule.name] = "norm" if norm else "conv2d" if conv else "embedding" if table else "dense"
    return kinds


@pytest.mark.parametrize("positions", ["keep", "flax"])
@pytest.mark.parametrize("way", ["pt", "tf"])
@pytest.mark.parametrize("name", WRITTEN)
def test_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str, positions: Any) -> None:
    if name == "beit_both-xlm-roberta":
        monkeypatch.setattr(flax, "CHUNK_BYTES", 3000)
    there = convert(FLAX / name, tmp_path / "there", way, positions=positions)
    back = convert(tmp_path / "there", tmp_path / "back", "flax", positions=positions, **WRITTEN[name])
    assert (there.direction, back.direction) == (f"flax2{way}", f"{way}2flax")
    if positions == "keep" or "roberta" not in name:
        assert there.back == "to flax" + (" --positions flax" if positions == "flax" else "")
    if name == "beit_rel-bert" and way == "tf":  # HDF5 has no bfloat16
        assert there.casts == {"bfloat16 -> float32": 83}
        back = convert(
            tmp_path / "there", tmp_path / "back", "flax", positions=positions, dtype="bfloat16", overwrite=True
        )
    assert files_of(tmp_path / "back") == files_of(FLAX / name)
    for file in files_of(FLAX / name):
        assert filecmp.cmp(FLAX / name / file, tmp_path / "back" / file, shallow=False), file


@pytest.mark.parametrize("name", WRITTEN)
def test_flax_to_flax_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "beit_both-xlm-roberta":
        monkeypatch.setattr(flax, "CHUNK_BYTES", 3000)
    convert(FLAX / name, tmp_path / "out", "flax", **WRITTEN[name])
    assert files_of(tmp_path / "out") == files_of(FLAX / name)
    assert all(filecmp.cmp(FLAX / name / f, tmp_path / "out" / f, shallow=False) for f in files_of(FLAX / name))


@pytest.mark.parametrize("model", [*(f"{v}+{t}" for v in IN_FLAX[0] for t in IN_FLAX[1]), "clip"])
def test_every_model_that_flax_has(tmp_path: Path, model: str) -> None:
    """Names, layouts and bytes against a tree that the test packs itself."""
    vision, _, text = model.partition("+")
    config = config_of(family=model) if not text else config_of("vit", text)
    if text:
        config["vision_config"] = {"model_type": vision, **ALL_VISION[vision]}
    tensors = tensors_of(config)
    write_checkpoint(tmp_path / "pt", config, tensors)
    result = convert(tmp_path / "pt", tmp_path / "flax", "flax")
    assert (result.direction, result.weights) == ("pt2flax", "flax_model.msgpack")
    expected = pack(nest(in_flax(config, tensors)))
    assert (tmp_path / "flax" / "flax_model.msgpack").read_bytes() == expected
    pt2tf(tmp_path / "flax", tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "back")
    found = load(tmp_path / "back" / "model.safetensors")
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in tensors.items()}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "swin+bert",
            "VisionTextDualEncoder with swin and bert has no class in Flax, so nothing could load it; "
            "FlaxVisionTextDualEncoderModel takes vision beit, clip_vision_model, dinov2, vit and text albert, bert, "
            "roberta, roberta-prelayernorm, xlm-roberta; convert to pt or tf",
        ),
        (
            "siglip",
            "Siglip with siglip_vision_model and siglip_text_model has no class in Flax, so nothing could load it; "
            "convert to pt or tf",
        ),
    ],
)
def test_what_flax_has_no_class_for(tmp_path: Path, model: str, said: str) -> None:
    write_checkpoint(tmp_path / "pt", MODELS[model], tensors_of(MODELS[model]))
    with pytest.raises(TargetError) as caught:
        convert(tmp_path / "pt", tmp_path / "out", "flax")
    assert str(caught.value) == said
    assert not (tmp_path / "out").exists()


def test_every_other_pair_is_refused(tmp_path: Path) -> None:
    for number, (model, config) in enumerate(MODELS.items()):
        vision, _, text = model.partition("+")
        if not text or (vision in IN_FLAX[0] and text in IN_FLAX[1]):
            continue
        with pytest.raises(TargetError, match="has no class in Flax"):
            convert(tensors_of(config), tmp_path / str(number), "flax", config=config, dry_run=True)


@pytest.mark.parametrize("source", ["pt", "tf", "chunked"])
@pytest.mark.parametrize("pad", [0, 1, 5])
def test_where_the_rows_of_positions_go(tmp_path: Path, source: str, pad: int) -> None:
    """Row ``n`` for Flax is row ``pad + 1 + n`` for the others; those that leave enter at the other end."""
    config = config_of("vit", "roberta", text_fields={"pad_token_id": pad})
    name = "text_model.embeddings.position_embeddings.weight"
    tensors = tensors_of(config)
    tensors[name][:] = np.arange(len(tensors[name]))[:, None]
    write_checkpoint(tmp_path / "pt", config, tensors)
    if source != "pt":
        pt2tf(tmp_path / "pt", tmp_path / "tf")
    if source == "chunked":
        import h5py

        with h5py.File(tmp_path / "tf" / "tf_model.h5", "r+") as file:
            found: list[str] = []
            file.visit(lambda path: found.append(path) if path.endswith("position_embeddings/embeddings:0") else None)
            path = next(path for path in found if "text_model" in path)
            value = file[path][()]
            del file[path]
            file.create_dataset(path, data=value, chunks=(3, value.shape[1]), compression="gzip")
    convert(tmp_path / ("pt" if source == "pt" else "tf"), tmp_path / "flax", "flax", positions="flax")
    with open_tensors(tmp_path / "flax", "pt") as reader:
        rows = reader.read(name)[:, 0].astype(int).tolist()
    size = len(tensors[name])
    assert rows == [(row + pad + 1) % size for row in range(size)]
    convert(tmp_path / "flax", tmp_path / "back", "pt", positions="flax")
    assert load(tmp_path / "back" / "model.safetensors")[name].tobytes() == tensors[name].tobytes()


@pytest.mark.parametrize("text", IN_FLAX[1])
def test_whose_positions_move(tmp_path: Path, text: str) -> None:
    """Of the towers that Flax has, those that PyTorch counts from behind the padding token's id on."""
    config = config_of("vit", text)
    write_checkpoint(tmp_path / "pt", config, tensors_of(config))
    for positions in ("keep", "flax"):
        convert(tmp_path / "pt", tmp_path / positions, "flax", positions=positions)  # type: ignore[arg-type]
    files = (tmp_path / positions / "flax_model.msgpack" for positions in ("keep", "flax"))
    assert filecmp.cmp(*files, shallow=False) == (text in ("bert", "albert"))


def test_of_equal_bits_and_other_outputs_is_warned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    convert(FLAX / "vit-roberta", tmp_path / "pt", "pt")
    (said,) = caplog.messages
    assert said.startswith(
        "roberta: Flax counts positions from 0, PyTorch from 2, so the same weights give other outputs there. Weights that "
        "were trained in Flax need `--positions flax`, which moves the table of positions by 2 rows."
    )
    caplog.clear()
    convert(tmp_path / "pt", tmp_path / "flax", "flax")
    (said,) = caplog.messages
    assert "They are kept, as transformers does" in said
    caplog.clear()
    convert(FLAX / "vit-roberta", tmp_path / "moved", "pt", positions="flax")
    convert(FLAX / "clip-bert", tmp_path / "bert", "pt")
    convert(FLAX / "vit-roberta", tmp_path / "same", "flax")
    convert(tmp_path / "pt", tmp_path / "tf", "tf")
    assert caplog.messages == []


def test_hybrid_clip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As clip-italian's first commits have it."""
    folder = tmp_path / "src"
    shutil.copytree(FLAX / "clip-bert", folder)
    (folder / "config.hybrid-clip.json").replace(folder / "config.json")
    result = convert(folder, tmp_path / "out", "pt")
    assert 'config.json: model_type: "hybrid-clip" -> "vision-text-dual-encoder"' in result.config_rewritten
    written = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert written["model_type"] == "vision-text-dual-encoder"
    assert written["logit_scale_init_value"] == pytest.approx(3.3)
    (said,) = caplog.messages
    assert said.startswith("hybrid-clip: some commits of the scripts that trained such models multiply by logit_scale")


def test_what_people_type(tmp_path: Path) -> None:
    """pt2tf of a Flax checkpoint, with the option that its warning names; tf2pt says what would do."""
    assert pt2tf(FLAX / "clip-bert", tmp_path / "tf").direction == "flax2tf"
    pt2tf(FLAX / "vit-roberta", tmp_path / "moved", positions="flax")
    convert(FLAX / "vit-roberta", tmp_path / "same", "tf", positions="flax")
    assert filecmp.cmp(tmp_path / "moved" / "tf_model.h5", tmp_path / "same" / "tf_model.h5", shallow=False)
    with pytest.raises(TargetError, match="from PyTorch to TensorFlow positions do not change"):
        pt2tf(FIXTURES / "clip-bert-tiny", tmp_path / "none", positions="flax")
    with pytest.raises(WrongFramework) as caught:
        tf2pt(FLAX / "clip-bert", tmp_path / "pt")
    assert str(caught.value) == (f"{FLAX / 'clip-bert'}: holds Flax weights, expected TensorFlow; use `convert to pt`")
    assert inspect(FLAX / "clip-bert").command == "to pt"


def test_of_several_weights_pytorchs_are_taken(tmp_path: Path) -> None:
    shutil.copytree(FLAX / "clip-bert", tmp_path / "src")
    convert(FLAX / "clip-bert", tmp_path / "pt", "pt")
    shutil.copy(tmp_path / "pt" / "model.safetensors", tmp_path / "src")
    assert convert(tmp_path / "src", tmp_path / "tf", "tf").container == "PyTorch safetensors"
    file = tmp_path / "src" / "flax_model.msgpack"
    assert convert(file, tmp_path / "other", "tf").container == "Flax msgpack"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "jax"}, "to 'jax' does not exist; choose 'pt' or 'tf' or 'flax'"),
        (
            {"to": "tf", "names": "v5"},
            "names 'v5' are for PyTorch, and TensorFlow has no such choice; leave the option out",
        ),
        ({"to": "flax", "format": "bin"}, "format bin is not one of Flax's; choose msgpack or safetensors"),
        (
            {"to": "flax", "format": "safetensors", "max_shard_size": 9999},
            "transformers 4 reads no safetensors in shards in Flax; choose format msgpack, or one file",
        ),
        (
            {"to": "tf", "positions": "flax"},
            "positions flax: from PyTorch to TensorFlow positions do not change; leave the option out",
        ),
        (
            {"to": "pt", "positions": "flax"},
            "positions flax: from PyTorch to PyTorch positions do not change; leave the option out",
        ),
        ({"to": "flax", "positions": "move"}, "positions 'move' does not exist; choose 'keep' or "),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    write_tiny(tmp_path / "pt", "vit", "roberta")
    with pytest.raises(ConverterError) as caught:
        convert(tmp_path / "pt", tmp_path / "out", **options)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("model", OF_FAMILIES)
def test_a_framework_to_itself(tmp_path: Path, model: str) -> None:
    """Container, names, dtype and shards change; the tensors do not."""
    config = OF_FAMILIES[model]
    tensors = tensors_of(config)
    write_checkpoint(tmp_path / "pt", config, tensors)
    result = convert(tmp_path / "pt", tmp_path / "bin", "pt", format="bin", names="v5", max_shard_size=40_000)
    assert (result.direction, result.weights) == ("pt2pt", "pytorch_model.bin.index.json")
    convert(tmp_path / "bin", tmp_path / "again", "pt")
    found = load(tmp_path / "again" / "model.safetensors")
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in tensors.items()}
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert convert(tmp_path / "tf", tmp_path / "tf2", "tf", format="safetensors").direction == "tf2tf"
    tf2pt(tmp_path / "tf2", tmp_path / "last")
    assert filecmp.cmp(tmp_path / "last" / "model.safetensors", tmp_path / "again" / "model.safetensors", shallow=False)
    half = convert(tensors, tmp_path / "half", "pt", config=config, dtype="float16")
    assert set(half.casts) == {"float32 -> float16"}


def test_nothing_but_a_folder_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    with pytest.raises(SourceError, match="holds no weights"):
        convert(tmp_path / "src", tmp_path / "out", "pt")


@pytest.mark.parametrize("prefix", ["", "bert/"])
def test_towers_alone(tmp_path: Path, prefix: str) -> None:
    """FlaxCLIPVisionModel and FlaxBertModel, or a head around it, as ``combine`` takes them; out in all three."""
    config = config_of("clip_vision_model", "bert")
    tensors = tensors_of(config)
    held = in_flax(config, tensors)
    for side, before in (("vision", ""), ("text", prefix)):
        folder = tmp_path / side
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config[f"{side}_config"]), "utf-8")
        own = {
            before + name.removeprefix(f"{side}_model/"): array
            for name, array in held.items()
            if name.startswith(f"{side}_model/")
        }
        (folder / "flax_model.msgpack").write_bytes(pack(nest(own)))
    joined = combine(tmp_path / "vision", tmp_path / "text", tmp_path / "out", target="flax")
    assert joined.weights == "flax_model.msgpack"
    assert sorted(joined.made_new) == ["logit_scale", "text_projection/kernel", "visual_projection/kernel"]
    with open_tensors(tmp_path / "out", "pt") as reader:
        for name in reader.names:
            if "projection" not in name and name != "logit_scale":
                assert reader.read(name).tobytes() == tensors[name].tobytes()


@pytest.mark.parametrize(("source", "target"), [("flax", "pt"), ("flax", "tf"), ("pt", "flax"), ("flax", "flax")])
def test_positions_of_a_text_tower(tmp_path: Path, source: str, target: Any, caplog: pytest.LogCaptureFixture) -> None:
    """``combine`` says where equal bits give other outputs, and moves the table as ``convert`` does."""
    convert(FLAX / "vit-roberta", tmp_path / "pt", "pt")
    given = FLAX / "vit-roberta" if source == "flax" else tmp_path / "pt"
    caplog.clear()
    combine(tmp_path / "pt", given, tmp_path / "kept", target=target)
    said = [message for message in caplog.messages if "Flax counts positions from 0" in message]
    if source == target:
        assert said == []
        with pytest.raises(TargetError, match="from Flax to Flax positions do not change"):
            combine(tmp_path / "pt", given, tmp_path / "moved", target=target, positions="flax")
        return
    assert len(said) == 1
    combine(tmp_path / "pt", given, tmp_path / "moved", target=target, positions="flax")
    table = "text_model.embeddings.position_embeddings.weight"
    with open_tensors(tmp_path / "kept", "pt") as kept, open_tensors(tmp_path / "moved", "pt") as moved:
        rows = 2 if source == "flax" else -2
        np.testing.assert_array_equal(moved.read(table), np.roll(kept.read(table), rows, axis=0))
        for name in kept.names:
            assert name == table or kept.read(name).tobytes() == moved.read(name).tobytes()
