"""Flax both ways, judged by transformers 4.57.6, which writes it, and by 4.50.3, the last that reads it in PyTorch."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converter import VerifyOptions, convert, verify
from tests.compat.conftest import SHARD, Peer, assert_same_outputs
from tests.compat.towers import FAMILIES
from tests.contents import read_tensors
from tests.tiny import FIXTURES
from tests.torture import FULL
from tests.towers import sample_of_pairs

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(
        "FLAX_PYTHON" not in os.environ, reason="FLAX_PYTHON names no interpreter; `make compat` makes one"
    ),
]
VISION = ("clip_vision_model", "vit", "beit", "dinov2")
TEXT = ("bert", "roberta", "xlm-roberta", "roberta-prelayernorm", "albert")
FROM_0 = ("roberta", "xlm-roberta", "roberta-prelayernorm")  # where Flax counts positions, and PyTorch does not
PAIRS = [(v, t) for v in VISION for t in TEXT] if FULL else sample_of_pairs(VISION, TEXT)
MODELS = [*("+".join(pair) for pair in PAIRS), "clip"]
WAYS: dict[str, dict[str, str | int]] = {
    "msgpack": {},
    "msgpack-shards": {"max_shard_size": SHARD},
    "safetensors": {"format": "safetensors"},
}


@pytest.fixture(scope="module")
def made(in_flax: Peer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Makes a checkpoint in PyTorch, and has transformers convert it to Flax and save it in every way it knows, once."""
    folders: dict[str, tuple[Path, Path]] = {}

    def make(model: str) -> tuple[Path, Path]:
        if model not in folders:
            folder = tmp_path_factory.mktemp("flax")
            vision, _, text = model.partition("+")
            if text:
                in_flax("make", vision=vision, text=text, out=folder / "pt")
            else:
                in_flax("make_family", config={"model_type": model, **FAMILIES[model]}, out=folder / "pt")
            in_flax("save_flax", source=folder / "pt", out=folder, shard=SHARD)
            folders[model] = folder / "pt", folder
        return folders[model]

    return make


Made = Callable[[str], tuple[Path, Path]]


@pytest.mark.parametrize("model", MODELS)
def test_our_files_are_the_ones_that_transformers_writes(model: str, made: Made, tmp_path: Path) -> None:
    source, theirs = made(model)
    for way, options in WAYS.items():
        convert(source, tmp_path / way, "flax", **options)  # type: ignore[arg-type]
        written = [path.name for path in (tmp_path / way).iterdir() if path.name.startswith(("flax_model", "model"))]
        expected = [path.name for path in (theirs / way).iterdir() if path.name.startswith(("flax_model", "model"))]
        assert sorted(written) == sorted(expected) != []
        for name in written:
            if way != "safetensors":
                assert filecmp.cmp(tmp_path / way / name, theirs / way / name, shallow=False), name
        if way == "safetensors":
            assert read_tensors(tmp_path / way / written[0]) == read_tensors(theirs / way / written[0])


@pytest.mark.parametrize("model", MODELS)
def test_what_transformers_wrote_is_read_bit_for_bit(model: str, made: Made, tmp_path: Path) -> None:
    source, theirs = made(model)
    for way in WAYS:
        convert(theirs / way, tmp_path / way, "pt")
        assert read_tensors(tmp_path / way / "model.safetensors") == read_tensors(source / "model.safetensors")


@pytest.mark.parametrize("model", MODELS)
def test_from_flax_gives_the_same_bits(model: str, made: Made, from_flax: Peer, tmp_path: Path) -> None:
    source, _ = made(model)
    convert(source, tmp_path / "flax", "flax")
    from_flax("from_flax", source=tmp_path / "flax", out=tmp_path / "theirs")
    assert read_tensors(tmp_path / "theirs" / "model.safetensors") == read_tensors(source / "model.safetensors")


@pytest.mark.parametrize("model", MODELS)
def test_flax_answers_as_pytorch(
    model: str, made: Made, in_flax: Peer, inputs: Callable[..., Path], tmp_path: Path
) -> None:
    """Where Flax counts positions from 0, once the table is moved and not before."""
    source, _ = made(model)
    given = inputs(source)
    in_flax("run_pt", source=source, inputs=given, out=tmp_path / "pt.npz")
    for positions in ("flax", "keep") if model.endswith(FROM_0) else ("flax",):
        ours, out, again = tmp_path / positions, tmp_path / f"{positions}.npz", tmp_path / f"{positions}-again"
        convert(source, ours, "flax", positions=positions)  # type: ignore[arg-type]
        in_flax("run_flax", source=ours, inputs=given, out=out, again=again)
        assert filecmp.cmp(ours / "flax_model.msgpack", again / "flax_model.msgpack", shallow=False)
        if positions == "flax":
            assert_same_outputs(out, tmp_path / "pt.npz")
        else:
            with pytest.raises(AssertionError, match="apart at a scale of"):
                assert_same_outputs(out, tmp_path / "pt.npz")


AGAINST_FLAX = [("clip-bert", "pt", "keep"), ("vit-roberta", "tf", "keep"), ("vit-roberta", "pt", "flax")]
MORE = [(name, "tf", "keep") for name in ("beit_rel-bert", "beit_both-xlm-roberta", "dinov2_swiglu-albert")]
IN_FLAX = VerifyOptions(reference_python=Path(os.environ.get("FLAX_PYTHON", "python")), device="cpu")


@pytest.mark.tf
@pytest.mark.parametrize(("name", "way", "positions"), [*AGAINST_FLAX, *MORE] if FULL else AGAINST_FLAX)
def test_verify_against_flax_itself(name: str, way: str, positions: Any, tmp_path: Path) -> None:
    """Every state of both towers, embeddings and logits; where positions are counted otherwise, a note says so by name."""
    convert(FIXTURES / "flax" / name, tmp_path / "out", way, positions=positions)
    found = verify(tmp_path / "out", options=IN_FLAX)
    outputs = next(finding for finding in found.findings if finding.part == "outputs")
    assert outputs.status == "passed", outputs.problems
    assert outputs.against == f"Flax on {FIXTURES / 'flax' / name}"
    assert found.report is not None
    assert {"text.embeddings", "vision.pooled", "text_features", "logits_per_image"} <= {
        tap.name for tap in found.report.comparisons
    }
    by_name = [note for note in found.report.notes if "positions" in note]
    if not name.endswith(FROM_0):
        assert by_name == []
    elif positions == "flax":
        assert "roberta: positions were moved for Flax's outputs" in by_name[0]
    else:
        assert "roberta: Flax counts positions from 0, the checkpoint from 2 (--positions keep)" in by_name[0]


@pytest.mark.tf
def test_a_weight_that_is_not_flaxs_is_found(tmp_path: Path) -> None:
    """Also one in the table of positions, which both sides read at the same place."""
    convert(FIXTURES / "flax" / "vit-roberta", tmp_path / "out", "pt")
    path = tmp_path / "out" / "model.safetensors"
    name = "text_model.embeddings.position_embeddings.weight"
    weights = load_file(path)
    weights[name] = np.roll(weights[name], 1, axis=0)
    save_file(weights, path, metadata={"format": "pt"})
    found = verify(tmp_path / "out", options=IN_FLAX)
    outputs = next(finding for finding in found.findings if finding.part == "outputs")
    assert outputs.status == "failed"
    assert "over tolerance: first at text tower, embeddings" in outputs.problems[0]
