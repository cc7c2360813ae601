"""The reference for exported files: PyTorch run here, or its recorded outputs in a golden file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from converter.conversion.engine import run_conversion
from converter.conversion.formats import default_format
from converter.conversion.streams import check_whole
from converter.errors import OptionError, printable
from converter.exporting.checking.figures import LOGITS, SIDES
from converter.exporting.checking.inputs import batches_for, of_bytes, samples_for
from converter.exporting.normalisation import Normalisation
from converter.exporting.options import ExportOptions
from converter.names.frameworks import CANONICAL
from converter.parity.batches import Batch
from converter.parity.inputs import check_golden_inputs
from converter.parity.runners.asking import ask_run, ask_samples
from converter.parity.runners.golden import Recording, config_of, read_recording
from converter.parity.runners.options import ReferenceOptions
from converter.parity.runners.reference import start_reference
from converter.parity.samples import PICTURES, Samples, find_samples, is_of_samples
from converter.parity.sources import config_of_source

TAPS = (*SIDES.values(), *LOGITS)
TEXTS = "texts.txt"


@dataclass(frozen=True, slots=True)
class Asked:
    """Where the reference comes from, and what it runs on.

    Attributes:
        source: the checkpoint.
        config: its config.json.
        options: of the export.
        normalisation: of the image processor, where the export takes bytes.
        samples: a folder of pictures with a texts.txt, or a golden reference file with real inputs; None: none.
        golden: a golden reference file in place of PyTorch; None: PyTorch runs.
        seconds: time limit of each request.
        python: interpreter of another environment, for PyTorch.
    """

    source: Path
    config: Mapping[str, Any]
    options: ExportOptions
    normalisation: Normalisation | None
    samples: Path | None
    golden: Path | None
    seconds: float
    python: Path | None


def run_reference(asked: Asked) -> Recording:
    """Embeddings and logits of every batch, and what ran where.

    Raises:
        OptionError: the samples are not available.
        ParityError: it is not a golden file, or not of this model.
        WorkerError: PyTorch cannot run here.
    """
    real = () if asked.samples is None or asked.samples.is_dir() else _real_of(asked.samples, asked.config)
    if asked.golden is not None:
        if asked.samples is not None and asked.samples.is_dir():
            raise OptionError(
                f"{asked.golden}: a golden reference file has its own inputs; pass texts and images to 'convert reference'"
            )
        recording = _read(asked.golden, asked.config)
    else:
        recording = _run(asked)
    batches = (*recording.batches, *real)
    kept = tuple(Batch(one.title, one.inputs, {name: one.taps[name] for name in TAPS}) for one in batches)
    return replace(recording, batches=kept)


def has_real_inputs(path: Path | None) -> bool:
    """Whether a folder of samples is meant, or a golden reference file in which texts and pictures were run."""
    if path is None or path.is_dir():
        return path is not None
    return any(is_of_samples(batch.title) for batch in read_recording(path).batches)


def find(folder: Path) -> Samples:
    """The pictures of a folder, and the texts of its ``texts.txt``; of many some, evenly chosen.

    Raises:
        OptionError: one of them is missing or cannot be read.
    """
    if not (folder / TEXTS).is_file():
        raise OptionError(
            f"{printable(str(folder))}: holds no {TEXTS}; put one text per line there, beside the pictures "
            f"({', '.join(PICTURES)})"
        )
    return find_samples(folder / TEXTS, (folder,), choose=True)


def _run(asked: Asked) -> Recording:
    samples = None if asked.samples is None or not asked.samples.is_dir() else find(asked.samples)
    batches = batches_for(asked.config, asked.options, asked.normalisation)
    with start_reference(asked.python) as worker, _in_pytorch(asked.source) as folder:
        if samples is not None:
            home = config_of(folder).parent
            made = ask_samples(worker, home, samples, asked.seconds, asked.options.length)
            if asked.normalisation is not None:
                made = of_bytes(made, asked.config, asked.normalisation)
            batches = (*batches, *samples_for(made, asked.config, asked.options))
        return ask_run(worker, folder, batches, asdict(ReferenceOptions("cpu")), asked.seconds)


@contextmanager
def _in_pytorch(source: Path) -> Iterator[Path]:
    """The checkpoint itself where PyTorch loads it, else what it becomes in PyTorch, for as long as this lasts."""
    if check_whole(source, in_torch=True) == CANONICAL and config_of_source(source) == config_of(source):
        yield source
        return
    options = {"format": default_format(CANONICAL), "dtype": "keep", "positions": "keep"}
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        made = Path(folder, "checkpoint")
        run_conversion(None, CANONICAL, source, None, made, None, options, check=False, warn=False)
        yield made


def _read(path: Path, config: Mapping[str, Any]) -> Recording:
    recording = read_recording(path)
    check_golden_inputs(recording.batches, config, str(path))
    for number, batch in enumerate(recording.batches):
        if missing := [name for name in TAPS if name not in batch.taps]:
            raise OptionError(f"{path}: batch {number} has no {missing[0]}; record it with 'convert reference'")
    return recording


def _real_of(path: Path, config: Mapping[str, Any]) -> tuple[Batch, ...]:
    found = tuple(batch for batch in _read(path, config).batches if is_of_samples(batch.title))
    if not found:
        raise OptionError(
            f"{path}: holds no texts and pictures; record it with 'convert reference --texts FILE --images DIR'"
        )
    return found
