"""Training on several devices gives the loss and the gradients of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.tf, pytest.mark.slow]

# Both replicas see the same pairs: what they add up to is then what one device makes of these pairs.
PROGRAM = """
import json, sys
import numpy as np
import tensorflow as tf
import keras
devices = int(sys.argv[2])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
from converter.models import named_variables
from tests.images import make_images
from tests.models.families import FAMILIES
kind = FAMILIES[sys.argv[1]]
import converter
keras.utils.set_random_seed(1)
names = [f"CPU:{number}" for number in range(devices)]
strategy = tf.distribute.MirroredStrategy(names) if devices > 1 else tf.distribute.get_strategy()
noise = np.random.default_rng(0)
with strategy.scope():
    config = kind.make(**kind.no_dropout)
    model = getattr(converter, kind.keras)(config)
    model.build()
    for variable in named_variables(model).values():
        variable.assign(noise.standard_normal(variable.shape) * 0.1)
    model.compile(optimizer=keras.optimizers.SGD(0.5))
pairs = {
    "input_ids": noise.integers(3, 50, (3, 6)), "attention_mask": np.ones((3, 6), "int64"),
    **make_images(config.vision_config.to_dict(), 3, noise),
}
data = tf.data.Dataset.from_tensor_slices({n: np.concatenate([v] * devices) for n, v in pairs.items()}).batch(3 * devices)
history = model.fit(data, epochs=1, verbose=0)
found = {name: np.asarray(variable.value).astype("float64").sum() for name, variable in named_variables(model).items()}
print(json.dumps({"loss": history.history["loss"][0], **found}))
"""


def trained(family: str, devices: int) -> dict[str, float]:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "0"}
    command = [sys.executable, "-c", PROGRAM, family, str(devices)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=root)
    assert run.returncode == 0, run.stderr[-3000:]
    answer: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("family", ["clip", pytest.param("vision-text-dual-encoder", marks=pytest.mark.torture)])
def test_two_devices_train_as_one(family: str) -> None:
    one, two = trained(family, 1), trained(family, 2)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert two[name] == pytest.approx(value, rel=1e-4, abs=1e-3), name
