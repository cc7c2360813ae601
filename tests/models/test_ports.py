"""What the package root gives the models: Keras knows their files once `converter` is imported, and `export` reaches up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors import safe_open

from converter.models import AutoTwoTower, build_tower, ports
from tests.models.families import Kind, kind_of, make_dual

pytestmark = [pytest.mark.torch, pytest.mark.tf]

ROOT = Path(__file__).parents[2]
OLD = ROOT / "fixtures" / "written-by-0.1"
NAMES = ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds")
ORDERS = (
    "import converter, keras",
    "import keras, converter",
    "import converter; from tensorflow import keras",
)
LOAD = """
import sys
{imports}
path, given, found = sys.argv[1:]
assert not any(name.startswith(("converter.models.families.", "converter.models.towers.")) for name in sys.modules)
assert not any("_AfterKeras" in type(finder).__name__ for finder in sys.meta_path)
model = keras.models.load_model(path)
import numpy as np
inputs = dict(np.load(given))
output = model(inputs)
np.savez(found, **{{name: np.asarray(output[name]) for name in output if "_model_output" not in name}})
print(type(model).__module__, type(model).__name__, type(keras.__loader__).__name__)
"""


def run(program: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def load(imports: str, path: Path, inputs: dict[str, np.ndarray], folder: Path) -> tuple[str, dict[str, np.ndarray]]:
    """What a process says of a file's model, and what that answers."""
    np.savez(folder / "inputs.npz", **inputs)
    done = run(LOAD.format(imports=imports), path, folder / "inputs.npz", folder / "found.npz")
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(folder / "found.npz") as found:
        return done.stdout.strip(), dict(found)


def golden(batch: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs of a batch that PyTorch ran, and its answers."""
    with safe_open(OLD / "golden.safetensors", "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    start = f"batch.{batch}.input."
    inputs = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    return inputs, {name: tensors[f"batch.{batch}.tap.{name}"] for name in NAMES}


@pytest.mark.parametrize("imports", ORDERS)
def test_what_version_0_1_saved_is_loaded_after_importing_converter_alone(imports: str, tmp_path: Path) -> None:
    for batch in (0, 2):
        inputs, wanted = golden(batch)
        said, found = load(imports, OLD / "model.keras", inputs, tmp_path)
        assert said == (
            "converter.models.families.vision_text_dual_encoder TFVisionTextDualEncoderModel SourceFileLoader"
        )
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("imports", ORDERS[:2])
def test_what_we_save_now(kind: Kind, imports: str, tmp_path: Path) -> None:
    model = AutoTwoTower.from_config(kind.make())
    inputs = {name: np.asarray(value) for name, value in model.dummy_inputs.items()}
    wanted = model(inputs)
    model.save(tmp_path / "model.keras")
    said, found = load(imports, tmp_path / "model.keras", inputs, tmp_path)
    assert said.split()[1] == kind_of(model.config).keras
    np.testing.assert_allclose(found["logits_per_image"], wanted.logits_per_image, rtol=0, atol=1e-5)


def test_a_tower_alone(tmp_path: Path) -> None:
    tower = build_tower(make_dual().text_config)
    ids = np.array([[7, 6, 5], [3, 4, 0]])
    wanted = tower(ids)
    tower.save(tmp_path / "tower.keras")
    said, found = load(ORDERS[0], tmp_path / "tower.keras", {"input_ids": ids}, tmp_path)
    assert said.split()[:2] == ["converter.models.towers.bert", "BertTower"]
    np.testing.assert_allclose(found["pooler_output"], wanted.pooler_output, rtol=0, atol=1e-6)


def test_without_converter_keras_does_not_know_them() -> None:
    done = run(f"import keras; keras.saving.load_model({str(OLD / 'model.keras')!r})")
    assert done.returncode != 0
    assert "TFVisionTextDualEncoderModel" in done.stderr


BROKEN = """
import sys, converter
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "keras.src":
            raise ImportError("broken")
sys.meta_path.insert(0, refuse := Refuse())
try:
    import keras
except ImportError as error:
    assert str(error) == "broken"
else:
    raise SystemExit("Keras was imported")
sys.meta_path.remove(refuse)
import keras
assert "converter>TFCLIPModel" in keras.saving.get_custom_objects()
assert "numpy" in sys.modules
"""


def test_keras_that_fails_once_is_found_again() -> None:
    done = run(BROKEN)
    assert done.returncode == 0, done.stderr[-3000:]


MISSING = """
import sys, converter
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
try:
    import keras
except ModuleNotFoundError as error:
    print(error)
"""


def test_without_keras_the_error_is_pythons() -> None:
    assert run(MISSING).stdout == "No module named 'keras'\n"


def test_a_class_takes_the_place_of_its_stand_in() -> None:
    from converter.models import TFCLIPModel

    assert keras.saving.get_registered_object("converter>TFCLIPModel") is TFCLIPModel
    before = dict(keras.saving.get_custom_objects())
    ports.register_with_keras()
    assert dict(keras.saving.get_custom_objects()) == before


def test_every_stand_in_stands_for_a_class_that_is_there() -> None:
    from importlib import import_module

    for name, module in ports._classes():
        assert getattr(import_module(module), name).__module__ == module
        assert keras.saving.get_registered_object(f"converter>{name}").__name__ == name
