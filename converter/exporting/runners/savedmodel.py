"""A SavedModel in plain TensorFlow: neither Keras nor the models of this package are imported.

``python -m converter.exporting.runners.savedmodel`` is the process; it reads requests as ``answering`` describes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.exporting.runners.answering import Answer, Array, answering
from converter.parity.runners.serving import hide, serve

NEEDS = "pip install 'dual-encoder-converter[tf]'"


class SavedModel:
    """A loaded SavedModel, on the CPU."""

    def __init__(self, path: Path, threads: int | None, precision: str) -> None:
        del precision
        import tensorflow as tf

        if threads is not None and not tf.config.threading.get_intra_op_parallelism_threads():
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self._constant = tf.constant
        self._loaded = tf.saved_model.load(str(path))

    def signatures(self) -> Mapping[str, Mapping[str, Any]]:
        """All but the default, which is one of the others."""
        return {
            name: {
                "inputs": [
                    {"name": key, "shape": spec.shape.as_list(), "dtype": spec.dtype.name}
                    for key, spec in call.structured_input_signature[1].items()
                ],
                "outputs": list(call.structured_outputs),
            }
            for name, call in self._loaded.signatures.items()
            if name != "serving_default"
        }

    def run(self, name: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs by name."""
        given = {key: self._constant(value) for key, value in inputs.items()}
        return {key: value.numpy() for key, value in self._loaded.signatures[name](**given).items()}


def _load() -> Answer:
    hide("keras", "tf_keras", "torch", "transformers", "jax", "flax")
    import tensorflow  # noqa: F401 - that it is missing is said before a file is opened

    return answering(SavedModel)


if __name__ == "__main__":
    serve(_load, NEEDS)
