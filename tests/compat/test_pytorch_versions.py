"""Everything we write for PyTorch loads in transformers 4.46, 4.57 and 5.x with nothing missing, every pair."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import pt2tf, tf2pt
from tests.compat.conftest import (
    ALL_PAIRS,
    NOTHING,
    SHARD,
    SOME_OF_ALL_PAIRS,
    SOME_PAIRS,
    Peer,
    PeerError,
    assert_same_outputs,
    in_turn,
)
from tests.compat.towers import LOGIT_SCALE
from tests.towers import SIDES, TOWERS

pytestmark = pytest.mark.compat

Checkpoint = Callable[..., Path]
Run = Callable[[Path, Path], None]
LOADED = NOTHING | {"logit_scale": [float(np.float32(LOGIT_SCALE))]}
CONTAINERS: dict[str, dict[str, Any]] = {
    "safetensors-shards": {"max_shard_size": SHARD},
    "bin": {"format": "bin"},
    "bin-shards": {"format": "bin", "max_shard_size": SHARD},
}


@pytest.fixture
def loads_everywhere(oldest: Peer, peer: Peer, current: Peer, inputs: Checkpoint, tmp_path: Path) -> Run:
    """Loads a folder in all three versions: nothing missing, and where it runs the outputs that 5.x has from ``source``."""

    def check(source: Path, folder: Path) -> None:
        given, expected = inputs(source), tmp_path / "expected.npz"
        current("run_pt", source=source, inputs=given, out=expected)
        versions = {"4.46": oldest, "4.57": peer, "5": current}
        config = json.loads((source / "config.json").read_text())
        towers = [TOWERS[config[f"{side}_config"]["model_type"]] for side in SIDES]
        if any(tower.since for tower in towers):
            del versions["4.46"]
        if any((tower.since or "").startswith("5") for tower in towers):
            del versions["4.57"]
        for name, version in versions.items():
            out = tmp_path / f"{name}.npz"
            run = {"source": folder, "inputs": given, "out": out}
            if any(tower.fails_in == name for tower in towers):
                with pytest.raises(PeerError, match="KeyError: 'output_attentions'"):
                    version("run_pt", **run)
                continue
            new = [f"{tower.side}_model.{lost}" for tower in towers for lost in tower.new_in_oldest if name == "4.46"]
            loaded = LOADED | {"missing_keys": new}
            if name != "5" and any(tower.only_loads_in_4 for tower in towers):
                assert version("load_pt", source=folder) == loaded, name
                with pytest.raises(PeerError, match="unexpected keyword argument '(output_attentions|attention_mask)'"):
                    version("run_pt", **run)
                continue
            assert version("run_pt", **run) == loaded, name
            assert_same_outputs(out, expected)

    return check


@pytest.mark.parametrize(("vision", "text"), ALL_PAIRS)
def test_safetensors_load_in_every_version(
    vision: str, text: str, fresh_checkpoint: Checkpoint, loads_everywhere: Run, tmp_path: Path
) -> None:
    source = fresh_checkpoint(vision, text)
    pt2tf(source, tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "pt")
    loads_everywhere(source, tmp_path / "pt")


@pytest.mark.parametrize(("vision", "text", "container"), in_turn(SOME_OF_ALL_PAIRS, CONTAINERS))
def test_other_containers_load_in_every_version(
    vision: str, text: str, container: str, fresh_checkpoint: Checkpoint, loads_everywhere: Run, tmp_path: Path
) -> None:
    source = fresh_checkpoint(vision, text)
    pt2tf(source, tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "pt", **CONTAINERS[container])
    kind, _, shards = container.partition("-")
    files = [path for path in (tmp_path / "pt").iterdir() if path.suffix == f".{kind}"]
    assert len(files) > 1 if shards else len(files) == 1
    loads_everywhere(source, tmp_path / "pt")


@pytest.mark.parametrize(("vision", "text"), SOME_PAIRS)
def test_what_the_peer_made_loads_in_every_version(
    vision: str,
    text: str,
    checkpoint: Checkpoint,
    peers_tf: Callable[[Path], Path],
    loads_everywhere: Run,
    tmp_path: Path,
) -> None:
    source = checkpoint(vision, text)
    tf2pt(peers_tf(source) / "h5", tmp_path / "pt")
    loads_everywhere(source, tmp_path / "pt")


@pytest.mark.parametrize(("vision", "text"), SOME_PAIRS)
def test_one_model_in_every_pytorch_container_makes_one_h5(
    vision: str, text: str, peer: Peer, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    source = checkpoint(vision, text)
    pt2tf(source, tmp_path / "expected")
    expected = (tmp_path / "expected" / "tf_model.h5").read_bytes()
    peer("save_pt", source=source, out=tmp_path / "again", shard=SHARD)
    for container in ("safetensors", *CONTAINERS):
        folder = tmp_path / "again" / container
        weights = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
        assert len(weights) > 1 if container.endswith("-shards") else len(weights) == 1
        pt2tf(folder, tmp_path / container)
        assert (tmp_path / container / "tf_model.h5").read_bytes() == expected, container
