"""One framework with one model in one precision on a GPU, which answers what `benchmarks/gpu_speed.py` asks of it.

    python benchmarks/gpu_contender.py jax|torch PRECISION FOLDER DEVICE

PRECISION is float32 (no TF32), tf32 or bfloat16, weights included. A line on standard input names a batch, a mode and a
number of runs. The answer holds the seconds of each run and the embeddings of the last, or the reason why there are
none. A run ends when its results are ready; they stay on the device. Compilation happens in the first run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

Array = np.ndarray[Any, Any]
OUTPUTS = ("image_embeds", "text_embeds", "logits_per_image")
MODES = {"jax": ("jit",), "torch": ("eager", "compile")}
PRECISIONS = ("float32", "tf32", "bfloat16")
TOKENS = 32


def make_inputs(batch: int, config: dict[str, Any]) -> dict[str, Array]:
    """As many images as texts, the same for everyone; every other text is padded."""
    noise = np.random.default_rng(batch)
    vision, words = config["vision_config"], config["text_config"]["vocab_size"]
    size = vision["image_size"]
    mask = np.ones((batch, TOKENS), np.int32)
    mask[1::2, TOKENS * 3 // 4 :] = 0
    return {
        "input_ids": noise.integers(5, words, (batch, TOKENS)).astype(np.int32),
        "pixel_values": noise.standard_normal((batch, 3, size, size), np.float32),
        "attention_mask": mask,
    }


class OnJax:
    """Our model, jitted, its weights as arguments."""

    def __init__(self, folder: Path, precision: str, device: str) -> None:
        import jax
        import keras

        from converter import TFVisionTextDualEncoderModel

        self.jax, self.keras = jax, keras
        self.dtype = "bfloat16" if precision == "bfloat16" else "float32"
        jax.config.update("jax_default_matmul_precision", "highest" if precision == "float32" else "default")
        self.device = jax.devices("cpu" if device == "cpu" else "gpu")[0]
        with jax.default_device(self.device):
            self.model: Any = TFVisionTextDualEncoderModel.from_pretrained(folder, dtype=self.dtype)
        self.values = [jax.device_put(variable.value, self.device) for variable in self.model.variables]

    def forward(self, mode: str, inputs: dict[str, Array]) -> Callable[[], tuple[Any, ...]]:
        """A jitted function of one batch."""
        del mode
        variables, jax = self.model.variables, self.jax

        def pure(values: list[Any], tensors: dict[str, Any]) -> tuple[Any, ...]:
            with self.keras.StatelessScope(list(zip(variables, values, strict=True))):
                found = self.model(**tensors, return_dict=True, training=False)
            return tuple(found[name] for name in OUTPUTS)

        call = jax.jit(pure)
        tensors = {name: jax.device_put(value, self.device) for name, value in inputs.items()}
        tensors["pixel_values"] = tensors["pixel_values"].astype(self.dtype)
        return lambda: tuple(jax.block_until_ready(call(self.values, tensors)))

    def numbers(self, tensor: Any) -> Array:
        """What was computed, on the host."""
        return np.asarray(tensor, np.float32)


class OnTorch:
    """PyTorch's own model with its fused attention."""

    def __init__(self, folder: Path, precision: str, device: str) -> None:
        import torch
        from transformers import VisionTextDualEncoderModel

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        self.torch, self.device = torch, torch.device(device)
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        model = VisionTextDualEncoderModel.from_pretrained(folder, attn_implementation="sdpa")
        self.model: Any = model.eval().to(device=self.device, dtype=self.dtype)

    def forward(self, mode: str, inputs: dict[str, Array]) -> Callable[[], tuple[Any, ...]]:
        """A function of one batch, without gradients."""
        torch = self.torch
        tensors = {name: torch.from_numpy(value).to(self.device) for name, value in inputs.items()}
        tensors = {name: t.to(self.dtype) if name == "pixel_values" else t.long() for name, t in tensors.items()}
        call = torch.compile(self.model) if mode == "compile" else self.model

        def run() -> tuple[Any, ...]:
            with torch.inference_mode():
                found = call(**tensors)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return tuple(getattr(found, name) for name in OUTPUTS)

        return run

    def numbers(self, tensor: Any) -> Array:
        """What was computed, on the host."""
        found: Array = tensor.float().cpu().numpy()
        return found


def main() -> None:
    """Loads, says so, and answers."""
    kind, precision, folder, device = sys.argv[1:]
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print is no answer
    contender: Any = (OnJax if kind == "jax" else OnTorch)(Path(folder), precision, device)
    config = json.loads(Path(folder, "config.json").read_text("utf-8"))
    print(json.dumps({"ready": True}), file=talk, flush=True)
    made: dict[tuple[int, str], Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = asked["batch"], asked["mode"]
        try:
            if key not in made:
                made[key] = contender.forward(asked["mode"], make_inputs(asked["batch"], config))
            seconds = []
            for _ in range(asked["runs"]):
                started = time.perf_counter()
                found = made[key]()
                seconds.append(time.perf_counter() - started)
            if asked.get("keep"):
                np.savez(asked["keep"], **{name: contender.numbers(v) for name, v in zip(OUTPUTS, found, strict=True)})
            answer: dict[str, Any] = {"seconds": seconds}
        except Exception as error:  # that one cannot compile it, is a result
            answer = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}
        print(json.dumps(answer), file=talk, flush=True)


if __name__ == "__main__":
    main()
