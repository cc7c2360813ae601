"""Whole models of other families, there and back, judged by transformers: 4.57.6 in TensorFlow, three versions in PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from converter import pt2tf, tf2pt
from converter.names.families import family
from tests.compat.conftest import NOTHING, SHARD, Peer, assert_same_outputs
from tests.compat.test_tensorflow_containers import OPTIONS, WAYS, contents
from tests.compat.towers import FAMILIES, LOGIT_SCALE, SINCE
from tests.contents import read_h5, read_tensors
from tests.torture import FULL
from tests.towers import ROUND

pytestmark = pytest.mark.compat

ACTIVATION = {"hidden_act": "gelu"}
# What of a config makes another graph of the same tensors, by family.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "clip": {
        "the first end, quick_gelu": {},
        "the highest id, gelu": {"text_config": {"eos_token_id": 2, **ACTIVATION}, "vision_config": ACTIVATION},
    },
}
CASES = [(name, variant) for name in FAMILIES for variant in VARIANTS.get(name, {"": {}})]
IN_TENSORFLOW = [case for case in CASES if "tf" in family(case[0]).in_transformers_4]
HALVES = ("float16", "bfloat16")
SCALE = {"logit_scale": [float(np.float32(LOGIT_SCALE))]}
Checkpoint = Callable[..., Path]


def config_of(name: str, variant: str) -> dict[str, Any]:
    """The config.json of a case."""
    config = copy.deepcopy({"model_type": name, **FAMILIES[name]})
    for section, fields in VARIANTS.get(name, {}).get(variant, {}).items():
        config[section] |= fields
    return config


def _maker(server: Peer, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    made: dict[tuple[str, str], Path] = {}

    def make(name: str, variant: str) -> Path:
        if (name, variant) not in made:
            made[name, variant] = tmp_path_factory.mktemp(name) / "pt"
            server("make_family", config=config_of(name, variant), out=made[name, variant])
        return made[name, variant]

    return make


@pytest.fixture(scope="session")
def whole(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Makes a model as 4.57.6 PyTorch saves it, once per case."""
    return _maker(peer, tmp_path_factory)


@pytest.fixture(scope="session")
def fresh_whole(current: Peer, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Makes a model as 5.x saves it, once per case."""
    return _maker(current, tmp_path_factory)


@pytest.mark.parametrize(("name", "variant"), IN_TENSORFLOW)
def test_what_we_write_loads_in_the_peer_and_answers_as_pytorch(
    name: str, variant: str, peer: Peer, whole: Checkpoint, inputs: Checkpoint, tmp_path: Path
) -> None:
    source = whole(name, variant)
    given = inputs(source)
    peer("run_pt", source=source, inputs=given, out=tmp_path / "pt.npz")
    for way in WAYS:
        pt2tf(source, tmp_path / way, **OPTIONS.get(way, {}))
        loaded = peer("run_tf", source=tmp_path / way, inputs=given, out=tmp_path / f"{way}.npz")
        assert loaded == NOTHING | SCALE, way
        assert_same_outputs(tmp_path / f"{way}.npz", tmp_path / "pt.npz")


@pytest.mark.parametrize(("name", "variant"), IN_TENSORFLOW[:1])
def test_a_wrong_answer_is_noticed(
    name: str, variant: str, peer: Peer, whole: Checkpoint, inputs: Checkpoint, tmp_path: Path
) -> None:
    """The cases are apart: the same tensors answer otherwise under the other config."""
    given, answers = inputs(whole(name, variant)), []
    for _, other in IN_TENSORFLOW[:2]:
        source = whole(name, other)
        assert read_tensors(source / "model.safetensors") == read_tensors(whole(name, variant) / "model.safetensors")
        pt2tf(source, tmp_path / other)
        peer("run_tf", source=tmp_path / other, inputs=given, out=tmp_path / f"{other}.npz")
        answers.append(tmp_path / f"{other}.npz")
    with pytest.raises(AssertionError, match=" apart at a scale of "):
        assert_same_outputs(*answers)


@pytest.mark.parametrize(("name", "variant"), IN_TENSORFLOW[:1])
def test_our_files_are_the_peers_files(
    name: str, variant: str, whole: Checkpoint, peers_tf: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Groups, attributes and their order, and an empty group where it writes one; of shards and safetensors the tensors."""
    source = whole(name, variant)
    pt2tf(source, tmp_path / "ours")
    ours, theirs = (folder / "tf_model.h5" for folder in (tmp_path / "ours", peers_tf(source) / "h5"))
    assert read_h5(ours) == read_h5(theirs)
    with h5py.File(ours) as one, h5py.File(theirs) as other:
        assert list(one) == list(other)
        assert list(one.attrs) == list(other.attrs)
        assert {group: list(one[group].attrs) for group in one} == {group: list(other[group].attrs) for group in other}
    for way, options in OPTIONS.items():
        pt2tf(source, tmp_path / way, **options)
        assert contents(tmp_path / way) == contents(peers_tf(source) / way), way


@pytest.mark.parametrize(("name", "variant"), IN_TENSORFLOW)
def test_what_the_peer_writes_comes_back_bit_for_bit(
    name: str,
    variant: str,
    whole: Checkpoint,
    peers_tf: Callable[[Path], Path],
    inputs: Checkpoint,
    oldest: Peer,
    peer: Peer,
    current: Peer,
    tmp_path: Path,
) -> None:
    source = whole(name, variant)
    given = inputs(source)
    peer("run_pt", source=source, inputs=given, out=tmp_path / "expected.npz")
    for way in WAYS:
        tf2pt(peers_tf(source) / way, tmp_path / way)
        assert read_tensors(tmp_path / way / "model.safetensors") == read_tensors(source / "model.safetensors"), way
    tf2pt(peers_tf(source) / "weights.h5", tmp_path / "keras", config=source / "config.json")
    assert read_tensors(tmp_path / "keras" / "model.safetensors") == read_tensors(source / "model.safetensors")
    for version in (oldest, peer, current):
        loaded = version("run_pt", source=tmp_path / "h5", inputs=given, out=tmp_path / "found.npz")
        assert loaded == NOTHING | SCALE
        assert_same_outputs(tmp_path / "found.npz", tmp_path / "expected.npz")


@pytest.mark.parametrize(
    "options",
    [{}, {"names": "v5"}, {"format": "bin"}, {"max_shard_size": SHARD}, {"format": "bin", "max_shard_size": SHARD}],
    ids=str,
)
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_what_we_write_loads_in_every_version(
    name: str,
    variant: str,
    options: dict[str, Any],
    fresh_whole: Checkpoint,
    inputs: Checkpoint,
    oldest: Peer,
    peer: Peer,
    current: Peer,
    tmp_path: Path,
) -> None:
    source = fresh_whole(name, variant)
    given = inputs(source)
    current("run_pt", source=source, inputs=given, out=tmp_path / "expected.npz")
    pt2tf(source, tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "pt", **options)
    readers = (peer, current) if name in SINCE else (oldest, peer, current)
    if options.get("names") in family(name).rules.get("dialects", {}):  # names that transformers 4 does not know
        readers = (current,)
    for version in readers:
        loaded = version("run_pt", source=tmp_path / "pt", inputs=given, out=tmp_path / "found.npz")
        assert loaded == NOTHING | SCALE
        assert_same_outputs(tmp_path / "found.npz", tmp_path / "expected.npz")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, half) for n, name in enumerate(FAMILIES) for half in (HALVES if FULL else [HALVES[(n + ROUND) % 2]])],
)
def test_half_precision_comes_back_bit_for_bit_and_is_read_as_that(
    name: str, dtype: str, peer: Peer, current: Peer, tmp_path: Path
) -> None:
    """HDF5 has no bfloat16: there it is float32, which is rounded to the same bits again."""
    source = tmp_path / "pt"
    peer("make_family", config=config_of(name, next(iter(VARIANTS.get(name, {"": {}})))), out=source, dtype=dtype)
    stored = read_tensors(source / "model.safetensors")
    assert {kind for kind, _, _ in stored.values()} == {{"float16": "F16", "bfloat16": "BF16"}[dtype]}
    for container in ("safetensors", "h5"):
        pt2tf(source, tmp_path / container, format=container)
        back = tmp_path / f"{container}-back"
        tf2pt(tmp_path / container, back, dtype=dtype)
        assert read_tensors(back / "model.safetensors") == stored, container
    for version in (peer, current):
        loaded = version("load_as_stored", source=tmp_path / "safetensors-back")
        assert loaded == NOTHING | {"dtypes": [f"torch.{dtype}"]}


@pytest.mark.parametrize(("name", "variant"), CASES[:1])
def test_one_model_in_every_pytorch_container_makes_one_h5(
    name: str, variant: str, peer: Peer, whole: Checkpoint, tmp_path: Path
) -> None:
    source = whole(name, variant)
    pt2tf(source, tmp_path / "expected")
    expected = (tmp_path / "expected" / "tf_model.h5").read_bytes()
    peer("save_pt", source=source, out=tmp_path / "again", shard=SHARD)
    folders = sorted((tmp_path / "again").iterdir())
    assert [folder.name for folder in folders] == ["bin", "bin-shards", "safetensors", "safetensors-shards"]
    for folder in folders:
        pt2tf(folder, tmp_path / folder.name)
        assert (tmp_path / folder.name / "tf_model.h5").read_bytes() == expected, folder.name


@pytest.mark.parametrize(("name", "variant"), IN_TENSORFLOW[:1])
def test_transformers_own_way_back_gives_nothing(
    name: str, variant: str, peer: Peer, whole: Checkpoint, tmp_path: Path
) -> None:
    """Should this fail one day, the documentation may say so."""
    source = whole(name, variant)
    pt2tf(source, tmp_path / "tf")
    answer = peer("from_tf", source=tmp_path / "tf")
    assert answer == {"parameters": answer["on_meta"], "on_meta": len(read_tensors(source / "model.safetensors"))}
