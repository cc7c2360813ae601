"""Code written for transformers 4's TensorFlow classes runs with the import changed and ``return_tensors="np"``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import TFVisionTextDualEncoderModel
from tests.models.transformers4_snippets import CASES, EXPECTED, FAILS_THERE, OURS, Bench

pytestmark = [pytest.mark.torch, pytest.mark.tf]
TABLE = {**EXPECTED, **OURS, **FAILS_THERE}


@pytest.fixture(scope="module")
def shared(tiny: Path) -> Any:
    """One model that no snippet changes."""
    return TFVisionTextDualEncoderModel.from_pretrained(tiny)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_snippet(name: str, shared: Any, tiny: Path, tmp_path: Path) -> None:
    bench, expected = Bench(tiny, shared, tmp_path), TABLE[name]
    if isinstance(expected, type) and issubclass(expected, Exception):
        with pytest.raises(expected):
            CASES[name](bench)
    else:
        assert CASES[name](bench) == expected


def test_every_snippet_has_one_outcome() -> None:
    assert CASES.keys() == TABLE.keys()
    assert len(TABLE) == len(EXPECTED) + len(OURS) + len(FAILS_THERE)


ON_TORCH = """
import sys
import numpy as np
from converter import TFVisionTextDualEncoderModel

model = TFVisionTextDualEncoderModel.from_pretrained(sys.argv[1])
inputs = dict(np.load(sys.argv[2]))
scores = inputs.pop("scores")
np.testing.assert_allclose(model(**inputs).logits_per_image.detach().numpy(), scores, atol=1e-4)
model.compile("adam")
model.fit(inputs, batch_size=3, verbose=0)
assert np.abs(model(**inputs).logits_per_image.detach().numpy() - scores).max() > 1e-4
assert "tensorflow" not in sys.modules
"""


def test_on_pytorch(shared: Any, tiny: Path, tmp_path: Path) -> None:
    bench = Bench(tiny, shared, tmp_path)
    np.savez(tmp_path / "inputs.npz", scores=bench.scores, **bench.inputs)
    command = [sys.executable, "-c", ON_TORCH, str(tiny), str(tmp_path / "inputs.npz")]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
