"""Moves one tensor at a time from a checkpoint to Keras' variables: read ahead, and copied as little as possible."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from keras import ops

from converter.conversion.streams import TensorReader
from converter.errors import PlanError, listed
from converter.models.parts import is_jax_on_cpu, taken_over_by_jax
from converter.specs import StoredTensor
from converter.tensors.layouts import ALIGNMENT

# Threads that read and transpose; as many tensors, plus one, wait to be assigned.
_READERS = 2


def assign(
    variables: Mapping[str, Any],
    reader: TensorReader,
    new: Collection[str],
    in_place: bool = False,
    of_another_shape: Collection[str] = (),
) -> None:
    """Gives every variable its tensor; beside the variables there are never more than a few tensors in memory.

    Args:
        variables: by checkpoint name.
        reader: of the checkpoint.
        new: names of variables that the checkpoint need not have; they stay unchanged.
        in_place: take weights from the mapped file where the backend can.
        of_another_shape: names of variables that stay unchanged although the checkpoint has them.

    Raises:
        PlanError: the model and the checkpoint differ in names or shapes.
    """
    shapes = reader.shapes
    variables = {name: variable for name, variable in variables.items() if name not in of_another_shape}
    missing = sorted(variables.keys() - shapes.keys() - set(new))
    wrong = [name for name, v in variables.items() if name in shapes and tuple(v.shape) != tuple(shapes[name])]
    if missing or wrong:
        raise PlanError(
            f"The model and the checkpoint disagree; not in the checkpoint: {listed(missing)}; of another shape: "
            f"{listed(wrong)}. Leave config= out, or give the config that the weights were saved with."
        )
    for name, array in _read_ahead(reader, [name for name in reader.names if name in variables], in_place):
        variables[name].assign(_cast(array, variables[name].dtype))


def _read_ahead(
    reader: TensorReader, names: Sequence[str], in_place: bool
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Reads tensors in order, the next ones while the last one is being made use of."""
    if not reader.has_extents:  # HDF5 reads chunks one after the other in any case
        yield from ((name, reader.read(name)) for name in names)
        return
    with ThreadPoolExecutor(_READERS) as pool:
        under_way = deque[tuple[str, Future[np.ndarray[Any, Any]]]]()
        for name in names:
            under_way.append((name, pool.submit(reader.read, name, in_place)))
            if len(under_way) > _READERS:
                yield _first(under_way)
        while under_way:
            yield _first(under_way)


def _first(
    under_way: deque[tuple[str, Future[np.ndarray[Any, Any]]]],
) -> tuple[str, np.ndarray[Any, Any]]:
    name, array = under_way.popleft()
    return name, array.result()


def _cast(array: np.ndarray[Any, Any], dtype: str) -> Any:
    """An array that nothing else holds, for a variable of the dtype, without a copy if possible."""
    if array.dtype.name != dtype:
        return array.astype(np.float32) if dtype == "bfloat16" else array.astype(dtype)
    backend = keras.backend.backend()
    if backend == "jax" and _can_be_taken_over(array) and is_jax_on_cpu():
        return taken_over_by_jax(array)
    if backend != "tensorflow" or not _can_be_taken_over(array):
        return array
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())  # TensorFlow copies an array that it is given, twice


def _can_be_taken_over(array: np.ndarray[Any, Any]) -> bool:
    """TensorFlow assumes that memory from DLPack is aligned, and aborts the process if it is not."""
    aligned = array.__array_interface__["data"][0] % ALIGNMENT == 0
    return (
        aligned
        and array.size > 0
        and array.flags.c_contiguous
        and array.dtype.name in ("float64", "float32", "float16")
    )


def stored(name: str, variable: Any) -> StoredTensor:
    """A variable as a source of conversions."""

    def read_rows(start: int, stop: int) -> np.ndarray[Any, Any]:
        rows: np.ndarray[Any, Any] = ops.convert_to_numpy(variable.value[start:stop])
        return rows

    dtype = keras.backend.standardize_dtype(variable.dtype)
    return StoredTensor(name, dtype, tuple(int(size) for size in variable.shape), None, read_rows)
