"""Transformers installations as servers, and tiny checkpoints made by them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.names.families import family
from converter.names.towers import input_rules
from tests.compat.towers import ALL_TEXT, ALL_VISION, TEXT, VISION
from tests.images import make_images
from tests.torture import FULL
from tests.towers import ROUND, SIDES, TOWERS, sample_of_pairs

ROOT = Path(__file__).resolve().parents[2]
Arrays = dict[str, "np.ndarray[Any, np.dtype[Any]]"]


class PeerError(Exception):
    """The peer raised; the message is its traceback."""


class Peer:
    """A running tests/compat/peer.py: ``peer("make", vision="vit", ...)`` asks it and returns its answer."""

    def __init__(self, python: str, module: str = "tests.compat.peer", **environment: str) -> None:
        self._server = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "0"} | environment,
        )

    def __call__(self, do: str, **request: Any) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps({"do": do} | request, default=str), file=self._server.stdin, flush=True)
        line = self._server.stdout.readline()
        assert line, f"the peer died of {do} {request}: exit status {self._server.wait()}"
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"].strip())
        return dict(answer["ok"])

    def close(self) -> None:
        """Ends the server by ending its input."""
        self._server.communicate(timeout=60)


def _serve(python: str, version: str, module: str = "tests.compat.peer", **environment: str) -> Iterator[Peer]:
    peer = Peer(python, module, **environment)
    assert peer("versions")["transformers"].startswith(version)
    yield peer
    peer.close()


def _serve_overlaid(python: str, name: str, version: str, **environment: str) -> Iterator[Peer]:
    """With a folder of packages laid over those of an environment."""
    overlay = Path(python).absolute().parents[1] / name
    assert overlay.is_dir(), f"{overlay} is not there; `make compat` installs it"
    yield from _serve(python, version, PYTHONPATH=str(overlay), USE_TF="0", **environment)


@pytest.fixture(scope="session")
def peer() -> Iterator[Peer]:
    """transformers 4.57.6 with TensorFlow."""
    yield from _serve(os.environ["COMPAT_PYTHON"], "4.57.6")


@pytest.fixture(scope="session")
def current() -> Iterator[Peer]:
    """transformers 5.x with PyTorch."""
    yield from _serve(sys.executable, "5.", USE_TF="0")


@pytest.fixture(scope="session")
def oldest() -> Iterator[Peer]:
    """transformers 4.46 with PyTorch, laid over the environment of 4.57.6."""
    yield from _serve_overlaid(os.environ["COMPAT_PYTHON"], "transformers-4.46", "4.46.")


@pytest.fixture(scope="module")
def quantising() -> Iterator[Peer]:
    """transformers 4.57.6 with bitsandbytes and accelerate, which the others run without."""
    yield from _serve_overlaid(os.environ["COMPAT_PYTHON"], "bitsandbytes", "4.57.6")


@pytest.fixture(scope="session")
def in_flax() -> Iterator[Peer]:
    """transformers 4.57.6 with flax."""
    yield from _serve(os.environ["FLAX_PYTHON"], "4.57.6", USE_TF="0", JAX_PLATFORMS="cpu")


@pytest.fixture(scope="session")
def from_flax() -> Iterator[Peer]:
    """transformers 4.50.3 with flax, the last one whose ``from_flax`` works, laid over the environment of 4.57.6."""
    yield from _serve_overlaid(os.environ["FLAX_PYTHON"], "transformers-4.50", "4.50.3", JAX_PLATFORMS="cpu")


@pytest.fixture(scope="module")
def sentences() -> Iterator[Peer]:
    """sentence-transformers, laid over transformers 5.x."""
    overlay = Path(os.environ["COMPAT_PYTHON"]).absolute().parents[1] / "sentence-transformers"
    assert overlay.is_dir(), f"{overlay} is not there; `make compat` installs it"
    module = "tests.compat.sentence_peer"
    yield from _serve(sys.executable, "5.", module, PYTHONPATH=str(overlay), USE_TF="0")


@pytest.fixture(scope="session")
def in_open_clip() -> Iterator[Peer]:
    """OpenCLIP 3.3.0 over the environment of transformers 4.57.6."""
    yield from _serve(os.environ["OPENCLIP_PYTHON"], "4.57.6", "tests.compat.open_clip_peer", USE_TF="0")


Make = Callable[..., Path]
SHARD = "30KB"  # every tiny checkpoint is larger


def _maker(server: Peer, tmp_path_factory: pytest.TempPathFactory, *, in_tensorflow: bool) -> Make:
    made: dict[str, Path] = {}

    def make(vision: str, text: str, **options: Any) -> Path:
        if in_tensorflow:
            for side, tower in zip(SIDES, (vision, text), strict=True):
                needed = TOWERS[tower].tensorflow.get("runs_with", {}) if tower in TOWERS else {}
                options[f"{side}_options"] = {**needed, **options.get(f"{side}_options", {})}
        key = json.dumps([vision, text, options], sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"{vision}-{text}") / "pt"
            server("make", vision=vision, text=text, out=made[key], **options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def checkpoint(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a checkpoint as 4.57.6 PyTorch saves it, once per pair and options; TensorFlow there runs it rightly."""
    return _maker(peer, tmp_path_factory, in_tensorflow=True)


@pytest.fixture(scope="session")
def fresh_checkpoint(current: Peer, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a checkpoint as 5.x saves a new model, once per pair and options."""
    return _maker(current, tmp_path_factory, in_tensorflow=False)


@pytest.fixture(scope="session")
def peers_tf(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Lets 4.57.6 convert a checkpoint and save it in every way it knows, once; see ``peer.save_tf``."""
    made: dict[Path, Path] = {}

    def convert(source: Path) -> Path:
        if source not in made:
            made[source] = tmp_path_factory.mktemp("peer")
            peer("save_tf", source=source, out=made[source], shard=SHARD)
        return made[source]

    return convert


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes pictures and ragged texts that fit a checkpoint; as many pictures as texts is not the case on purpose."""

    def make(source: Path) -> Path:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        noise = np.random.default_rng(7)
        ids = noise.integers(5, config["text_config"].get("vocab_size", 0x110000), (4, 11))
        mask = np.ones_like(ids)
        for row, length in enumerate((11, 7, 3, 9)):
            mask[row, length:] = 0
        ids[mask == 0] = config["text_config"].get("pad_token_id") or 0
        whole = family(config["model_type"])
        if input_rules("text", whole.default_tower("text")).get("ends_with_eos"):
            end_texts(ids, mask, config["text_config"])
        arrays = {
            **make_images(config["vision_config"], 3, noise),
            "input_ids": ids,
            "attention_mask": mask,
        }
        out = tmp_path_factory.mktemp("inputs") / "inputs.npz"
        np.savez(out, **arrays)  # type: ignore[arg-type]
        return out

    return make


def end_texts(ids: Any, mask: Any, text: dict[str, Any]) -> None:
    """Ends texts as CLIP's tokenizer does; one of them holds the end twice, where the first counts.

    Args:
        ids: ``(texts, length)``, changed in place.
        mask: likewise.
        text: config of the text tower. ``eos_token_id`` 2 means the highest id of the vocabulary, as early configs say.
    """
    end = text["eos_token_id"] if text["eos_token_id"] != 2 else text["vocab_size"] - 1
    ids[ids == end] = 7
    ids[range(len(ids)), mask.sum(1) - 1] = end
    ids[0, 4] = end


def _params(pairs: Iterable[tuple[str, str]]) -> list[Any]:
    return [pytest.param(*pair, id="+".join(pair)) for pair in pairs]


# Other pairs every day, in which each tower stands; one model of a pair does for all tests. Every pair under torture.
SOME_PAIRS = _params(sample_of_pairs(tuple(VISION), tuple(TEXT)))
PAIRS = _params(itertools.product(VISION, TEXT)) if FULL else SOME_PAIRS
SOME_OF_ALL_PAIRS = _params(sample_of_pairs())
ALL_PAIRS = _params(itertools.product(ALL_VISION, ALL_TEXT)) if FULL else SOME_OF_ALL_PAIRS


def in_turn(pairs: Sequence[Any], ways: Iterable[str], turn: int = ROUND) -> list[Any]:
    """Each pair in one of several ways, another every day; in all of them under torture."""
    ways = list(ways)
    return [
        pytest.param(*pair.values, way, id=f"{pair.id}-{way}")
        for number, pair in enumerate(pairs)
        for way in (ways if FULL else [ways[(number + turn) % len(ways)]])
    ]


NOTHING: dict[str, list[str]] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}


def assert_same_outputs(left: Path, right: Path, tolerance: float = 1e-5) -> None:
    """Compares the outputs of two runs, within a part of their scale; NaN and shapes count."""
    with np.load(left) as ours, np.load(right) as theirs:
        assert set(ours.files) == set(theirs.files) != set()
        for name in ours.files:
            a, b = ours[name].astype(np.float64), theirs[name].astype(np.float64)
            assert a.shape == b.shape, name
            difference, scale = np.abs(a - b).max(), np.abs(b).max()
            assert difference <= tolerance * scale, f"{name}: {difference} apart at a scale of {scale}"
