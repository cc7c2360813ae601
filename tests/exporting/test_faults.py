"""Every kind of fault in an exported file is found by running it, in each format, and named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from converter.errors import ModelError
from converter.exporting.checking.figures import GATES
from converter.exporting.checking.files import Checking, check_file
from converter.exporting.checking.inputs import Named, batches_for
from converter.exporting.normalisation import Normalisation, normalisation_of
from converter.exporting.options import ExportOptions, Precision
from converter.exporting.running import Runtime
from converter.exporting.signatures import Signature, signatures_of
from converter.exporting.targets import TARGETS, Target
from converter.models import AutoTwoTower
from converter.parity.batches import Batch
from tests.exporting.conftest import FIXTURE
from tests.towers import ROUND

pytestmark = [pytest.mark.torch, pytest.mark.tf]

if keras.backend.backend() != "tensorflow":
    pytest.skip("about TensorFlow's graphs", allow_module_level=True)

BYTES = ExportOptions(pixels="uint8")
ODD = Normalisation(1 / 255, (0.48, 0.45, 0.40), (0.27, 0.26, 0.21))


@dataclass
class Right:
    """A model, and what it gives; the checkpoint's own test shows that this is PyTorch's."""

    model: Any
    signatures: tuple[Signature, ...]
    checking: Checking


@pytest.fixture(scope="module")
def right() -> Right:
    model = AutoTwoTower.from_pretrained(FIXTURE)
    _, *signatures = signatures_of(model, BYTES, ODD)
    config = model.config.to_dict()
    batches = []
    for batch in batches_for(config, BYTES, ODD):
        inputs = {
            name: batch.inputs[name] for name in ("pixel_values", "input_ids", "attention_mask") if name in batch.inputs
        }
        if "position_ids" in batch.inputs:
            continue
        found = model(**inputs, return_dict=True)
        taps = {name: np.asarray(found[name]) for name in ("image_embeds", "text_embeds")}
        batches.append(Batch(batch.title, batch.inputs, taps))
    named = tuple(
        Named(
            one.name,
            {given.name: (given.shape, given.dtype) for given in one.inputs},
            tuple(output.name for output in one.outputs),
        )
        for one in signatures
    )
    checking = Checking(named, tuple(batches), config, ODD, "float32", 1.0)
    return Right(model, tuple(signatures), checking)


def problems(
    right: Right, target: Target, folder: Path, signatures: Sequence[Signature], precision: Precision = "float32"
) -> str:
    """What is said of a file that was written with these signatures."""
    place = target.place[precision]
    if not isinstance(place, str):  # a file for each signature
        held = {one.name: place[one.name] for one in right.signatures}
        target = replace(target, place={**target.place, precision: held})
    target.write(right.model, signatures, folder, precision)
    checking = replace(right.checking, precision=precision, gate=GATES.get(precision, 1.0))
    with Runtime(target, folder, precision, 300.0) as runtime:
        return "\n".join(check_file(runtime, checking, target.shown(precision)).problems)


def perturbed(right: Right, target: Target, folder: Path) -> str:
    variable = next(one for one in right.model.weights if "text_projection" in one.path)
    kept = variable.numpy()
    variable.assign(kept + np.eye(*kept.shape, dtype=np.float32) * 0.02)
    try:
        return problems(right, target, folder, right.signatures)
    finally:
        variable.assign(kept)


def exchanged(right: Right, target: Target, folder: Path) -> str:
    image, text = right.signatures
    return problems(right, target, folder, [replace(image, name=text.name), replace(text, name=image.name)])


def normalised(right: Right, target: Target, folder: Path, numbers: Normalisation) -> str:
    _, *signatures = signatures_of(right.model, BYTES, numbers)
    return problems(right, target, folder, signatures)


def of_another(right: Right, target: Target, folder: Path) -> str:
    numbers = normalisation_of(FIXTURE)
    assert numbers is not None and numbers != ODD
    return normalised(right, target, folder, replace(ODD, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))


def swapped(right: Right, target: Target, folder: Path) -> str:
    return normalised(right, target, folder, Normalisation(ODD.rescale, ODD.std, ODD.mean))


def overflowing(right: Right, target: Target, folder: Path) -> str:
    """A weight that float16 cannot hold; the vectors have length 1 again behind it."""
    variable = next(one for one in right.model.weights if "text_projection" in one.path)
    kept = variable.numpy()
    variable.assign(kept * 1e7)
    try:
        return problems(right, target, folder, right.signatures, "float16")
    except ModelError as error:  # the writer saw it first
        return str(error)
    finally:
        variable.assign(kept)


DIFFERS = r"max abs diff [\d.e-]+, allowed 1e-05"
FAULTS = {
    "a perturbed weight": (perturbed, rf"^\S+: encode_text: text_embeds: {DIFFERS}$"),
    "exchanged signatures": (exchanged, r"encode_image takes .*input_ids .*Signatures or inputs were exchanged\.$"),
    "another processor's numbers": (of_another, rf"^\S+: encode_image: image_embeds: {DIFFERS}$"),
    "swapped mean and std": (swapped, rf"^\S+: encode_image: image_embeds: {DIFFERS}$"),
    "an overflow in float16": (overflowing, r"float16"),
}
EVERY = [
    (fault, name)
    for fault in FAULTS
    for name, target in TARGETS.items()
    if "float16" in target.precisions or fault != "an overflow in float16"
]


def marks(fault: str, name: str) -> list[Any]:
    """One format of each fault a day, all of them under torture."""
    formats = [one for kind, one in EVERY if kind == fault]
    return [] if formats[ROUND % len(formats)] == name else [pytest.mark.torture]


@pytest.mark.parametrize(
    ("fault", "name"), [pytest.param(*one, marks=marks(*one), id=f"{one[0]}-{one[1]}") for one in EVERY]
)
def test_a_fault_is_found_and_named(right: Right, tmp_path: Path, fault: str, name: str) -> None:
    make, said = FAULTS[fault]
    assert re.search(said, make(right, TARGETS[name], tmp_path), re.DOTALL)


@pytest.mark.parametrize("name", TARGETS)
def test_without_one_nothing_is_said(right: Right, tmp_path: Path, name: str) -> None:
    assert problems(right, TARGETS[name], tmp_path, right.signatures) == ""
