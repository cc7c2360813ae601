"""The next step of a message that names transformers 4.57.6 works there: it is executed as printed, and the rest converted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from converter import ConverterError, pt2tf, tf2pt
from converter.conversion import quantised
from tests.compat.conftest import Peer

pytestmark = pytest.mark.compat
STEP = re.compile(r"load the model, (torch\.save\(.*, FILE\)), and convert FILE with --config of this config\.json$")


@pytest.fixture
def source(checkpoint: Callable[..., Path]) -> Path:
    return checkpoint("clip_vision_model", "bert")


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_weights(source: Path, quantising: Peer, tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "quantised"
    quantising("quantise", source=source, out=folder, bits=bits)
    with pytest.raises(ConverterError) as caught:
        pt2tf(folder, tmp_path / "none")
    step = STEP.search(str(caught.value))
    assert step is not None, str(caught.value)
    file = tmp_path / "weights.bin"
    quantising("take", source=folder, step=step[1], file=file)
    pt2tf(file, tmp_path / "tf", config=folder / "config.json")
    tf2pt(tmp_path / "tf", tmp_path / "pt")
    back, was = (load_file(place / "model.safetensors") for place in (tmp_path / "pt", source))
    assert back.keys() == was.keys()
    apart = {name: abs(back[name] - was[name]).max() / abs(was[name]).max() for name in was}
    assert 0 < max(apart.values()) < (0.05 if bits == 8 else 0.5)


def test_what_can_be_dequantised(peer: Peer) -> None:
    """Of every other method the message says that this version cannot undo it."""
    methods = peer("dequantisers")
    assert "fp8" in methods["all"]
    assert {*methods["undone"], "bitsandbytes"} == set(quantised.UNDONE)
