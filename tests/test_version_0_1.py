"""What version 0.1 wrote can always be read: manifests, proof, golden file, .keras, SavedModel and every container."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import tf2pt, verify
from converter.folder.proof import Proof, read_proof
from converter.parity.runners.golden import read_recording
from fixtures import same_tensors

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = ROOT / "fixtures" / "written-by-0.1"
GOLDEN = WRITTEN / "golden.safetensors"


@pytest.mark.parametrize("name", ["tf-h5", "tf-safetensors", "pt"])
def test_manifests_and_weights(name: str) -> None:
    """The manifest is read, the files are those that it lists, and the weights are the source's bit for bit."""
    found = verify(WRITTEN / name, weights_only=True)
    said = {finding.part: (finding.status, finding.compared) for finding in found.findings}
    assert (said["files"][0], said["weights"]) == ("passed", ("passed", 81))


def test_weights_are_held_to_the_golden_file() -> None:
    found = verify(WRITTEN / "pt", reference=GOLDEN, weights_only=True)
    weights = next(finding for finding in found.findings if finding.part == "weights")
    assert weights.status == "passed"
    assert "the sum of all weights in the reference file" in weights.against


def test_the_proof_still_counts() -> None:
    proof = read_proof(WRITTEN / "tf-h5")
    assert isinstance(proof, Proof), proof
    assert {finding["part"]: finding["status"] for finding in proof.findings}["outputs"] == "passed"


def test_tensorflow_becomes_pytorch_again(tmp_path: Path) -> None:
    for name in ("tf-h5", "tf-safetensors"):
        tf2pt(WRITTEN / name, tmp_path / name)
        weights = tmp_path / name / "model.safetensors"
        assert same_tensors.main(str(WRITTEN / "pt" / "model.safetensors"), str(weights)) == 0


@pytest.mark.tf
@pytest.mark.parametrize("name", ["tf-h5", "tf-safetensors", "pt"])
def test_models_give_the_outputs_of_the_golden_file(name: str) -> None:
    from converter import TFVisionTextDualEncoderModel

    model = TFVisionTextDualEncoderModel.from_pretrained(WRITTEN / name)
    for batch in read_recording(GOLDEN).batches:
        made = model(**batch.inputs)
        np.testing.assert_allclose(made.logits_per_text, batch.taps["logits_per_text"], rtol=0, atol=1e-5)


@pytest.mark.tf
def test_saved_model_gives_the_outputs_of_the_golden_file() -> None:
    import tensorflow as tf

    served = tf.saved_model.load(str(WRITTEN / "saved_model")).signatures["similarity"]
    batch = read_recording(GOLDEN).batches[0]
    made = served(**{name: tf.constant(array) for name, array in batch.inputs.items()})
    np.testing.assert_allclose(made["logits_per_text"], batch.taps["logits_per_text"], rtol=0, atol=1e-5)


_LOAD = """
import {imports}
import json, sys
import numpy as np
from converter.parity.runners.golden import read_recording
from pathlib import Path
model = keras.saving.load_model(sys.argv[1])
batch = read_recording(Path(sys.argv[2])).batches[0]
made = np.asarray(model(**batch.inputs).logits_per_text)
print(json.dumps(float(np.abs(made - batch.taps["logits_per_text"]).max())))
"""


@pytest.mark.tf
@pytest.mark.parametrize("imports", ["converter, keras", "keras, converter"])
def test_keras_file_after_import_converter_alone(imports: str) -> None:
    command: list[Any] = [sys.executable, "-c", _LOAD.format(imports=imports), WRITTEN / "model.keras", GOLDEN]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert json.loads(run.stdout) < 1e-5
