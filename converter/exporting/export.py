"""``export``: files for other runtimes, made of any checkpoint. Decides that none is left that was not run and compared."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from converter.arguments import checked
from converter.conversion.streams import open_tensors
from converter.errors import ArgumentError, OptionError, SourceError, TargetError, printable
from converter.exporting.checking.figures import GATES
from converter.exporting.checking.reference import Asked, has_real_inputs, run_reference
from converter.exporting.in_buckets import brought, placed
from converter.exporting.making import Making, make
from converter.exporting.manifest import SHA256
from converter.exporting.normalisation import Normalisation, normalisation_of, size_of
from converter.exporting.options import ExportOptions, Pixels, Precision
from converter.exporting.results import Export, Needs
from converter.exporting.targets import TARGETS, Target
from converter.folder.files import expanded
from converter.folder.licence import licence_of
from converter.folder.records import hash_file
from converter.folder.staging import check_out, explained, staged
from converter.hub.obtained import Obtained
from converter.hub.obtaining import obtained
from converter.names.configs import read_config
from converter.parity.inputs import image_shape, patch_side, read_vocabulary, takes_any_size, with_image_size
from converter.parity.runners.golden import read_recording
from converter.parity.sources import config_of_source
from converter.system.room import free_disk

_log = logging.getLogger(__name__)
_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.05}
_LEAST_MEMORY = 10**9  # TensorFlow itself
_STATIC_INT8 = (
    "static int8 (weights and activations) is refused: it loses too much. With real weights, calibrated on 60 pictures and "
    "texts, the mean cosine of image embeddings was 0.75 in LiteRT and 0.98 in ONNX Runtime (least 0.30 and 0.90). "
    "12% and 72% of the nearest neighbours stayed. Choose --precision int8, whose weights alone are int8 (0.999)"
)
_Path = str | os.PathLike[str]
Progress = Callable[[str, int, int], None]


@checked()
def export(
    source: _Path,
    folder: _Path,
    *,
    to: str | Sequence[str] = "savedmodel",
    precision: Literal["float32", "float16", "int8", "static-int8"] = "float32",
    pixels: Pixels = "float",
    batch: int | None = None,
    length: int | None = None,
    samples: _Path | None = None,
    reference: _Path | None = None,
    min_cosine: float | None = None,
    revision: str | None = None,
    seconds: float = 3600.0,
    reference_python: _Path | None = None,
    progress: Progress | None = None,
) -> Export:
    """Exports a checkpoint to files that run elsewhere, and verifies each in its own runtime before it appears.

    Every file has the signatures ``encode_image``, ``encode_text`` and ``similarity``. The folder also gets ``export.json``,
    tokenizer and processor files, a README.md that says how to load each file, and the golden file with which
    ``verify_export`` verifies it again elsewhere.

    Args:
        source: a folder, a weights file in one, or the id of a model on the Hub, of any framework and family.
        folder: to make; it must not exist, and appears whole or not at all. In a bucket ``export.json`` is put last.
        to: one or more formats of ``"savedmodel"``, ``"litert"`` and ``"onnx"``.
        precision: of the weights. ``"int8"`` needs ``samples``, or a ``reference`` with real inputs; ``"static-int8"`` is
            refused, with what was measured.
        pixels: ``"uint8"``: the graph takes ``(n, height, width, channels)`` bytes and normalises them itself, as the image
            processor says; resizing and cropping stay outside.
        batch: fixed number of images and texts per call; None for any number.
        length: fixed number of tokens per text; None for any number.
        samples: a folder of pictures with a ``texts.txt``, or a golden reference file with real inputs.
        reference: a golden reference file of the source, to compare with instead of PyTorch.
        min_cosine: least cosine of any embedding with the reference's, instead of 0.9999 (float16) and 0.985 (int8).
        revision: branch, tag or commit of an id.
        seconds: time limit of each step.
        reference_python: interpreter of another environment, to run PyTorch in.
        progress: called before each step with its name, the number of steps done, and their total. The first says what
            memory and disk the export needs.

    Returns:
        What was made, and every figure.

    Raises:
        ExportError: a file cannot be run, or differs from the model; nothing is left behind.
        OptionError: the options contradict each other.
        ConverterError: the source cannot be exported, or the folder cannot be made.
    """
    began = time.perf_counter()
    if precision == "static-int8":
        raise OptionError(_STATIC_INT8)
    options = ExportOptions(precision, pixels, batch, length)
    targets = _targets(to, precision)
    _check_numbers(seconds, min_cosine, precision)
    source, python = expanded(source), None if reference_python is None else Path(reference_python)
    with brought(samples) as real, brought(reference) as golden, placed(folder, source) as out:
        _check_samples(precision, real, golden)
        check_out(out, Path(source) if Path(source).exists() else None, overwrite=False)
        with explained(out), obtained(source, None, revision) as held:
            config = read_config(config_of_source(held.path)).raw
            normalisation = _normalisation(held, pixels)
            options = replace(options, image=_image(held.folder, config, golden))
            nbytes, weights = _weights(held)
            needs = _needs(targets, nbytes, options)
            _check_room(out, needs)
            asked = Asked(held.path, config, options, normalisation, real, golden, seconds, python)
            steps = _Steps(progress, 3 + 3 * len(targets))
            steps(str(needs))
            steps("running the reference")
            recording = run_reference(asked)
            gate = min_cosine if min_cosine is not None else GATES.get(precision)
            making = Making(
                held.path,
                config,
                options,
                normalisation,
                targets,
                recording,
                gate,
                _limits(config, options),
                seconds,
                steps,
            )
            with staged(out, overwrite=False) as fresh:
                steps("loading the model")
                found = make(making, fresh, out, weights, needs, began)
    place = expanded(folder)
    return replace(found, folder=place if isinstance(place, Path) else Path(place))


@dataclass
class _Steps:
    """Counts steps, and announces each before it begins."""

    progress: Progress | None
    total: int
    done: int = 0

    def __call__(self, step: str) -> None:
        _log.info("%s", step)
        if self.progress is not None:
            self.progress(step, self.done, self.total)
        self.done += 1


def _targets(to: str | Sequence[str], precision: Precision) -> tuple[Target, ...]:
    names = (to,) if isinstance(to, str) else tuple(to)
    unknown = [name for name in names if name not in TARGETS]
    if unknown or not names:
        shown = printable(repr(unknown[0] if unknown else names), 60)
        raise ArgumentError(f"to {shown} does not exist; choose {' or '.join(map(repr, TARGETS))}")
    found = tuple(TARGETS[name] for name in dict.fromkeys(names))
    for target in found:
        if precision not in target.precisions:
            raise OptionError(
                f"{target.label} has no {precision} here; choose {' or '.join(target.precisions)}, or another format"
            )
    return found


def _check_numbers(seconds: float, min_cosine: float | None, precision: Precision) -> None:
    if not 0 < seconds < float("inf"):
        raise ArgumentError(f"seconds is {seconds}; give a finite number above 0")
    if min_cosine is not None and not 0 < min_cosine <= 1:
        raise ArgumentError(f"min_cosine is {min_cosine}; give a number above 0, and 1 at most")
    if min_cosine is not None and precision == "float32":
        raise OptionError("min_cosine is of float16 and int8; float32 has to be within 1e-5. Leave it out.")


def _check_samples(precision: Precision, samples: Path | None, golden: Path | None) -> None:
    for path in (samples, golden):
        if path is not None and not path.exists():
            raise OptionError(f"{printable(str(path))}: not found; name a golden reference file or a folder")
    if precision == "int8" and not (has_real_inputs(samples) or has_real_inputs(golden)):
        raise OptionError(
            "int8 is judged by real pictures and texts. Give --samples DIR, with pictures and a texts.txt, or a golden file "
            "of `convert reference --texts FILE --images DIR`"
        )


def _normalisation(held: Obtained, pixels: Pixels) -> Normalisation | None:
    if pixels == "float":
        return None
    found = normalisation_of(held.folder)
    if found is None:
        raise SourceError(
            f"{held.label}: no preprocessor_config.json, whose numbers --pixels uint8 puts into the graph; copy it there, "
            "or choose --pixels float"
        )
    return found


def _weights(held: Obtained) -> tuple[int, dict[str, Any]]:
    """Size of the weights as float32, and what ``export.json`` says of the source."""
    with open_tensors(held.path) as tensors:
        nbytes = 4 * sum(math.prod(shape) for shape in tensors.shapes.values())
        files = [hash_file(file, SHA256) for file in tensors.files]
    name = held.hub or (held.address or held.path.resolve()).name
    place: dict[str, Any] = {} if held.hub is None else {"hub": held.hub, "commit": held.commit}
    licence = held.licence or licence_of(held.folder)
    place |= {"license": dict(licence)} if licence else {}
    return nbytes, {"name": name, **place, "files": [record.to_json() for record in files]}


def _needs(targets: Sequence[Target], nbytes: int, options: ExportOptions) -> Needs:
    memory = max(target.memory for target in targets) * nbytes + _LEAST_MEMORY
    each = nbytes * _BYTES[options.precision] / 4
    # a float32 file lies beside any other one for a while: its time counts, too
    beside = nbytes if options.precision != "float32" else 0
    scratch = max(target.scratch for target in targets) * nbytes
    return Needs(round(memory), round(1.02 * len(targets) * each + beside + scratch))


def _check_room(out: Path, needs: Needs) -> None:
    free = free_disk(out)
    if free is not None and free < needs.disk:
        raise TargetError(
            f"{out}: {needs}, and the disk has {free / 1e9:.1f} GB left; free some space, or choose another folder"
        )


def _image(folder: Path, config: Mapping[str, Any], golden: Path | None) -> tuple[int, int] | None:
    """The size of pictures if not the config's: the image processor's, for a tower that takes any size.

    Of a golden file one that it holds pictures of: nothing else could be compared.
    """
    size = size_of(folder) if takes_any_size(config) and patch_side(config) is None else None
    if size is None or size == image_shape(config)[1:]:
        return None
    image_shape(with_image_size(config, size))
    if golden is None or any(one.inputs["pixel_values"].shape[2:] == size for one in read_recording(golden).batches):
        return size
    return None


def _limits(config: Any, options: ExportOptions) -> dict[str, Any]:
    """The limits on inputs: integers, as in ``export.json``."""
    text = read_vocabulary(config)
    if options.image is not None:
        config = with_image_size(config, options.image)
    channels, height, width = image_shape(config)
    return {
        "vocabulary": text.size,
        "longest_text": text.reach,
        "channels": channels,
        "image_size": [height, width],
        "patch_size": patch_side(config),
    }
