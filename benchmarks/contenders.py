"""One framework with one model loaded, which answers what `benchmarks/models.py` asks of it, a line of JSON at a time.

    python benchmarks/contenders.py KIND FOLDER SMALL

SMALL is a small checkpoint of the same kind, loaded before, so that imports and what frameworks start on first use are
not counted. Its first output line gives the time of loading and the peak memory above that. Then every line it reads
names a case and a mode. It answers with the seconds of one run and some of the computed numbers, or with the reason why
there are none. Compilation happens in the first run. The peer runs in the environment of transformers 4.57.6.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Run = Callable[[], Any]
KINDS = {
    "ours": ("tf.function", "XLA"), "jax": ("jit",), "torch": ("eager", "compile"), "peer": ("tf.function", "XLA"),
    "ours-bfloat16": ("tf.function",), "torch-bfloat16": ("eager", "compile"),
}  # fmt: skip
# What computes in another precision than the reference: its numbers are compared with it, and not rejected.
HALF = {kind for kind in KINDS if kind.endswith("bfloat16")}
# Images, texts, tokens per text; and whether it is a step of training.
CASES: dict[str, tuple[int, int, int, bool]] = {
    "8 images, 8 texts of 32 tokens": (8, 8, 32, False),
    "1 image": (1, 0, 0, False),
    "1 text of 32 tokens": (0, 1, 32, False),
    "64 texts of 77 tokens": (0, 64, 77, False),
    "training step, 8 pairs of 32 tokens": (8, 8, 32, True),
}
RATE = 1e-9  # of learning: the weights stay unchanged, however many steps a contender has made
KEPT = 64


def make_inputs(case: str, config: Mapping[str, Any]) -> dict[str, Array]:
    """The same inputs for everyone: pixel values, ids, and a mask that hides the end of every other text."""
    images, texts, tokens, _ = CASES[case]
    noise = np.random.default_rng(5)
    size, words = config["vision_config"]["image_size"], config["text_config"]["vocab_size"]
    made: dict[str, Array] = {}
    if images:
        made["pixel_values"] = noise.standard_normal((images, 3, size, size), np.float32)
    if texts:
        made["input_ids"] = noise.integers(5, words, (texts, tokens)).astype(np.int32)
        made["attention_mask"] = np.ones((texts, tokens), np.int32)
        made["attention_mask"][1::2, tokens * 3 // 4 :] = 0
    return made


class Ours:
    """Our model on TensorFlow, as people call it."""

    def __init__(self) -> None:
        import tensorflow as tf

        from converter import TFVisionTextDualEncoderModel

        self.tf, self.kind = tf, TFVisionTextDualEncoderModel
        self.model: Any = None

    def load(self, folder: Path) -> None:
        """Loads the model of a folder."""
        self.model = self.kind.from_pretrained(folder)

    def forward(self, mode: str, inputs: dict[str, Array]) -> Run:
        """A compiled function of one case."""
        call = self.tf.function(self._call(inputs), jit_compile=mode == "XLA")
        tensors = {name: self.tf.constant(value) for name, value in inputs.items()}
        return lambda: call(**tensors).numpy()

    def _call(self, inputs: Mapping[str, Array]) -> Callable[..., Any]:
        if len(inputs) == 3:
            return lambda **tensors: self.model(**tensors).logits_per_image
        if "pixel_values" in inputs:
            return lambda pixel_values: self.model.get_image_features(pixel_values)
        return lambda input_ids, attention_mask: self.model.get_text_features(input_ids, attention_mask=attention_mask)

    def train(self, mode: str, inputs: dict[str, Array]) -> Run:
        """A step of ``fit``."""
        import keras

        self.model.compile(keras.optimizers.SGD(RATE), jit_compile=mode == "XLA")
        return lambda: self.model.train_on_batch(inputs)


class OursInBfloat16(Ours):
    """Our model with weights and arithmetic in bfloat16."""

    def load(self, folder: Path) -> None:
        """Loads the model of a folder, rounded."""
        self.model = self.kind.from_pretrained(folder, dtype="bfloat16")


class OursOnJax(Ours):
    """Our model on JAX."""

    def __init__(self) -> None:
        import jax
        import keras

        from converter import TFVisionTextDualEncoderModel

        self.jax, self.keras, self.kind = jax, keras, TFVisionTextDualEncoderModel

    def forward(self, mode: str, inputs: dict[str, Array]) -> Run:
        """A jitted function of one case; the weights are its arguments."""
        del mode
        variables, plain = self.model.variables, self._call(inputs)

        def pure(values: list[Any], tensors: dict[str, Any]) -> Any:
            with self.keras.StatelessScope(list(zip(variables, values, strict=True))):
                return plain(**tensors)

        call = self.jax.jit(pure)
        values = [variable.value for variable in variables]
        tensors = {name: self.jax.numpy.asarray(value) for name, value in inputs.items()}
        return lambda: np.asarray(call(values, tensors))

    def train(self, mode: str, inputs: dict[str, Array]) -> Run:
        """A step of ``fit``, which Keras jits."""
        del mode
        return super().train("XLA", inputs)


class Torch:
    """PyTorch's own model with its fused attention, where every tower of it has that."""

    dtype = "float32"

    def __init__(self) -> None:
        import torch
        from transformers import VisionTextDualEncoderModel

        self.torch, self.kind = torch, VisionTextDualEncoderModel
        self.model: Any = None

    def load(self, folder: Path) -> None:
        """Loads the model of a folder; a tower without fused attention, as Swin V2 is, computes in its own way."""
        try:
            self.model = self.kind.from_pretrained(folder, dtype=self.dtype, attn_implementation="sdpa").eval()
        except ValueError as error:
            if "scaled_dot_product_attention" not in str(error):
                raise
            self.model = self.kind.from_pretrained(folder, dtype=self.dtype).eval()

    def forward(self, mode: str, inputs: dict[str, Array]) -> Run:
        """A function of one case, without gradients."""
        tensors = self._tensors(inputs)
        model = self.model
        call = (
            model
            if len(inputs) == 3
            else model.get_image_features
            if "pixel_values" in inputs
            else model.get_text_features
        )
        call = self.torch.compile(call) if mode == "compile" else call

        def run() -> Any:
            model.eval()
            with self.torch.inference_mode():
                found = call(**tensors)
            return getattr(found, "logits_per_image", getattr(found, "pooler_output", found)).float().numpy()

        return run

    def train(self, mode: str, inputs: dict[str, Array]) -> Run:
        """Forward, backward and an update."""
        tensors = self._tensors(inputs)
        call = self.torch.compile(self.model) if mode == "compile" else self.model
        optimizer = self.torch.optim.SGD(self.model.parameters(), RATE)

        def run() -> Any:
            self.model.train()
            loss = call(**tensors, return_loss=True).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.item()

        return run

    def _tensors(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        tensors = {name: self.torch.from_numpy(value) for name, value in inputs.items()}
        return {name: value.to(self.model.dtype if name == "pixel_values" else int) for name, value in tensors.items()}


class TorchInBfloat16(Torch):
    """PyTorch's model with weights and arithmetic in bfloat16."""

    dtype = "bfloat16"


class Peer(Ours):
    """The TensorFlow model of transformers 4.57.6."""

    def __init__(self) -> None:
        import torch  # noqa: F401, I001  # before TensorFlow
        import tensorflow as tf
        from transformers import TFVisionTextDualEncoderModel

        self.tf, self.kind = tf, TFVisionTextDualEncoderModel
        self.model = None

    def load(self, folder: Path) -> None:
        """Loads the model of a folder, of either framework."""
        self.model = self.kind.from_pretrained(folder, from_pt=not (folder / "tf_model.h5").exists())

    def train(self, mode: str, inputs: dict[str, Array]) -> Run:
        """Forward, backward and an update: its own ``fit`` needs labels, which a contrastive loss has none of."""
        import tf_keras

        optimizer = tf_keras.optimizers.SGD(RATE)
        tensors = {name: self.tf.constant(value) for name, value in inputs.items()}

        def step(**given: Any) -> Any:
            with self.tf.GradientTape() as tape:
                loss = self.model(**given, return_loss=True, training=True).loss
            weights = self.model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return loss

        call = self.tf.function(step, jit_compile=mode == "XLA")
        return lambda: call(**tensors).numpy()


def megabytes(field: str) -> float:
    """A field of this process's status: VmRSS is memory held now, VmHWM the most since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field))


def loaded(kind: str, folder: Path, small: Path) -> tuple[Any, dict[str, float]]:
    """Loads the small model, then the other, measured."""
    contender: Any = {
        "ours": Ours, "jax": OursOnJax, "torch": Torch, "peer": Peer,
        "ours-bfloat16": OursInBfloat16, "torch-bfloat16": TorchInBfloat16,
    }[kind]()  # fmt: skip
    contender.load(small)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    before, started = megabytes("VmRSS"), time.perf_counter()
    contender.load(folder)
    return contender, {"load_seconds": time.perf_counter() - started, "load_mb": megabytes("VmHWM") - before}


def answers(contender: Any, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Runs the requested cases; each case and mode is made once."""
    runs: dict[tuple[str, str], Run] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        case, mode = asked["case"], asked["mode"]
        try:
            if (case, mode) not in runs:
                make = contender.train if CASES[case][3] else contender.forward
                runs[case, mode] = make(mode, make_inputs(case, config))
            started = time.perf_counter()
            found = runs[case, mode]()
            seconds = time.perf_counter() - started
            yield {"seconds": seconds, "found": np.ravel(found)[:KEPT].astype(float).tolist()}
        except Exception as error:  # that one cannot compile it, is a result
            yield {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}


def main() -> None:
    """Loads, says so, and answers."""
    kind, (folder, small) = sys.argv[1], map(Path, sys.argv[2:])
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print is no answer
    contender, first = loaded(kind, folder, small)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(first), file=talk, flush=True)
        for answer in answers(contender, config):
            print(json.dumps(answer), file=talk, flush=True)


if __name__ == "__main__":
    main()
