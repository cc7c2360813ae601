"""Checks one exported file in its own runtime: its signatures, every batch that it can be given, and wrong inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.errors import ExportError
from converter.exporting.checking.figures import SIDES, Figure, Quality, figure_of, quality_of
from converter.exporting.checking.inputs import Named, check_signatures, expressed
from converter.exporting.normalisation import Normalisation
from converter.exporting.options import Precision
from converter.exporting.running import Runtime
from converter.parity.batches import Batch
from converter.parity.samples import is_of_samples

Array = np.ndarray[Any, Any]
TIMES = 5
_EIGHT = 8


@dataclass(frozen=True, slots=True)
class Checking:
    """What a file is compared with.

    Attributes:
        signatures: what it must have.
        batches: inputs, and the reference's embeddings and logits as taps.
        config: of the model.
        normalisation: what is inside the graph; None where pictures come normalised.
        precision: of the file.
        gate: least cosine of an embedding, where the precision is not float32.
    """

    signatures: tuple[Named, ...]
    batches: tuple[Batch, ...]
    config: Mapping[str, Any]
    normalisation: Normalisation | None
    precision: Precision
    gate: float

    @property
    def gated(self) -> tuple[Batch, ...]:
        """The batches that decide: of int8, which noise asks too much of, only real pictures and texts."""
        if self.precision != "int8":
            return self.batches
        return tuple(batch for batch in self.batches if is_of_samples(batch.title))


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What checking a file found.

    Attributes:
        problems: what is wrong with it; empty if it matches the model.
        figures: of every output.
        given: how many batches each signature was given.
        not_given: those that it cannot be given, by signature and title, and why.
        quality: of real pictures and texts; empty without them.
        milliseconds: for one image or text, and for eight at a time each, by side; empty if it was not timed.
        weights: how many were compared with the checkpoint's, bit for bit; 0 of formats that do not keep them by name.
    """

    problems: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    given: Mapping[str, int] = field(default_factory=dict)
    not_given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    quality: tuple[Quality, ...] = ()
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    weights: int = 0

    @property
    def compared(self) -> int:
        """How many values were compared."""
        return sum(figure.compared for figure in self.figures)


def check_file(runtime: Runtime, checking: Checking, where: str) -> FileCheck:
    """Asks a file everything that it can be asked.

    Raises:
        WorkerError: the runtime is not available here.
    """
    try:
        check_signatures(checking.signatures, runtime.signatures, where)
        return _compared(runtime, checking, where)
    except ExportError as error:
        return FileCheck((str(error),))


def _compared(runtime: Runtime, checking: Checking, where: str) -> FileCheck:
    figures: list[Figure] = []
    given: dict[str, int] = {}
    not_given: dict[str, dict[str, str]] = {}
    quality: list[Quality] = []
    for signature in checking.signatures:
        pairs: dict[str, list[tuple[Array, Array]]] = {name: [] for name in signature.outputs}
        real: list[tuple[Array, Array]] = []
        found = runtime.signatures[signature.name]
        for batch in checking.batches:
            inputs, reason = expressed(batch, signature, found, checking.config, checking.normalisation)
            if inputs is None:
                not_given.setdefault(signature.name, {})[batch.title] = reason
                continue
            given[signature.name] = given.get(signature.name, 0) + 1
            made = runtime.run(signature.name, inputs)
            for name in signature.outputs:
                if name not in made:
                    raise ExportError(f"{where}: {signature.name} gave no {name}; export again")
                if batch in checking.gated or not np.isfinite(made[name]).all():
                    pairs[name].append((made[name], batch.taps[name]))
            if is_of_samples(batch.title) and len(signature.outputs) == 1:
                real.append((made[signature.outputs[0]], batch.taps[signature.outputs[0]]))
        if not any(pairs.values()):
            reasons = "; ".join(sorted(set(not_given.get(signature.name, {}).values())))
            raise ExportError(f"{where}: {signature.name} was not compared: no batch can be given to it ({reasons})")
        if real and all(ours.ndim == 2 and ours.shape == theirs.shape for ours, theirs in real):
            (side,) = (side for side, output in SIDES.items() if output == signature.outputs[0])
            quality.append(quality_of(side, *(np.concatenate(some) for some in zip(*real, strict=True))))
        figures += [
            figure_of(signature.name, name, held, checking.precision, checking.gate) for name, held in pairs.items()
        ]
    wrong = [f"{where}: {one.signature}: {one.output}: {one.problem}" for one in figures if one.problem]
    return FileCheck(tuple(wrong), tuple(figures), given, not_given, tuple(quality))


def timed(runtime: Runtime, checking: Checking, side: str) -> dict[str, float]:
    """Milliseconds for one image or text, and for each of eight, from the first batch that can be repeated to that."""
    signature = next(one for one in checking.signatures if one.name == f"encode_{side}")
    found = runtime.signatures[signature.name]
    batches = sorted(checking.batches, key=lambda batch: not is_of_samples(batch.title))
    for batch in batches:
        inputs, _ = expressed(batch, signature, found, checking.config, checking.normalisation)
        if inputs is not None:
            break
    else:
        return {}
    fixed = next(iter(signature.inputs.values()))[0][0]
    counts = (1, _EIGHT) if fixed is None else (fixed,)
    spent = {}
    for count in counts:
        some = {name: _repeated(value, count) for name, value in inputs.items()}
        spent[f"{side} of {count}"] = runtime.milliseconds(signature.name, some, TIMES) / count
    return spent


def _repeated(value: Array, count: int) -> Array:
    return np.resize(value, (count, *value.shape[1:])) if len(value) != count else value
