"""The same tests on the JAX backend, in a process of their own, which must not import TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.torture import FULL

pytestmark = [pytest.mark.jax, pytest.mark.slow]
of_each = pytest.mark.parametrize("family", ["vision-text-dual-encoder", "clip"])
HERE = Path(__file__).parent
SAMPLE = ("test_equal_to_pytorch.py",)  # every tower, tap and gradient
FILES = (*SAMPLE, "test_options.py", "test_names.py", "test_vision_towers.py") if FULL else SAMPLE


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="already on JAX")
def test_everything_on_jax() -> None:
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # most of the time is compiling
    files = [str(HERE / name) for name in (*FILES, "test_jax.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="about JAX")
@of_each
def test_predict_and_fit_on_jax(family: str) -> None:
    import numpy as np

    from converter.models import AutoTwoTower, DualEncoderOutput
    from tests.models import reference
    from tests.models.families import FAMILIES

    keras.utils.set_random_seed(5)
    kind = FAMILIES[family]
    model = AutoTwoTower.from_config(kind.make(**kind.text_dropout))
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    inputs = reference.make_inputs(model.config, 4, 4)
    found = model.predict(inputs, verbose=0)
    assert isinstance(found, DualEncoderOutput)
    np.testing.assert_allclose(found.logits_per_image, model(inputs).logits_per_image, atol=1e-5)
    history = model.fit(inputs, batch_size=4, epochs=25, verbose=0).history["loss"]
    assert history[-1] < kind.learns * history[0]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="about JAX")
@of_each
def test_lit_with_checkpointing_on_jax(family: str) -> None:
    import numpy as np

    from converter.models import AutoTwoTower, named_variables
    from tests.models import reference
    from tests.models.families import FAMILIES

    keras.utils.set_random_seed(5)
    kind = FAMILIES[family]
    small = {"vision_num_hidden_layers": 1, "text_num_hidden_layers": 1, **kind.text_dropout}
    with keras.RematScope("full"):
        model = AutoTwoTower.from_config(kind.make(**small))
    model.vision_model.trainable = False
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    locked = {name: np.array(variable.value) for name, variable in named_variables(model.vision_model).items()}
    inputs = reference.make_inputs(model.config, 4, 4)
    history = model.fit(inputs, batch_size=4, epochs=25, verbose=0).history["loss"]
    assert history[-1] < kind.learns * history[0]
    for name, variable in named_variables(model.vision_model).items():
        assert np.array(variable.value).tobytes() == locked[name].tobytes(), name


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="about JAX")
def test_statistics_of_batches_on_jax() -> None:
    """A call without state gives back what a training step makes of them, as ``fit`` uses it."""
    import jax
    import numpy as np

    from converter.models.rep_mixer import RepMixer

    layer = RepMixer(5, 7, 3, "gelu", 0.1, 0.02, name="mixer")
    layer.build()
    x = np.random.default_rng(1).normal(2.0, 3.0, (4, 6, 5)).astype(np.float32)
    state = [[v.value for v in held] for held in (layer.trainable_variables, layer.non_trainable_variables)]
    _, moved = jax.jit(lambda own, kept: layer.stateless_call(own, kept, x, training=True))(*state)
    found = {
        v.path.partition("/")[2]: np.asarray(value)
        for v, value in zip(layer.non_trainable_variables, moved, strict=True)
    }
    norm = "token_mixer/reference_batchnorm"
    np.testing.assert_allclose(found[f"{norm}/moving_mean"], 0.1 * x.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(found[f"{norm}/moving_variance"], 0.9 + 0.1 * x.var((0, 1), ddof=1), rtol=1e-5)
    assert [value.item() for name, value in found.items() if name.endswith("tracked")] == [1] * 4
    assert all(
        (np.asarray(v.value) == start).all() for v, start in zip(layer.non_trainable_variables, state[1], strict=True)
    )


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="about JAX")
def test_jax_needs_no_tensorflow() -> None:
    code = (
        "import sys; from converter.models import named_variables, build_tower; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
