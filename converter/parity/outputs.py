"""Both sides of a verification at work: which folder runs where, on what inputs, and what that says of the outputs."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from converter.conversion.engine import run_conversion
from converter.conversion.formats import default_format
from converter.conversion.streams import check_whole
from converter.errors import (
    ConverterError,
    MissingPackage,
    NoReference,
    OptionError,
    ParityError,
    WorkerError,
    listed,
    printable,
)
from converter.folder import manifest
from converter.folder.files import read_json
from converter.folder.manifest import Manifest
from converter.folder.sidecars import differing
from converter.folder.tokenizer_files import sidecars_in
from converter.names.configs import read_config
from converter.names.frameworks import CANONICAL
from converter.parity.against_flax import NO_LOSS, counted_alike, flax_options
from converter.parity.batches import INPUTS, Batch, same_bits
from converter.parity.compare import compare_runs
from converter.parity.comparison import ParityReport, Tolerance
from converter.parity.finding import Finding, Status
from converter.parity.inputs import check_golden_inputs
from converter.parity.making import make_batches
from converter.parity.options import VerifyOptions
from converter.parity.runners.asking import ask_run, ask_samples, run_together
from converter.parity.runners.candidate import start_candidate
from converter.parity.runners.golden import Recording, config_of, read_recording
from converter.parity.runners.isolation import Worker
from converter.parity.runners.kept import Models
from converter.parity.runners.reference import runs_flax, start_reference
from converter.parity.samples import Samples, is_of_samples
from converter.parity.sources import config_of_source
from converter.parity.trial import Trial, trial_of
from converter.specs import Framework

_log = logging.getLogger(__name__)
NO_REFERENCE = "the source does not exist; name it with --reference"
NO_SOURCE_SAID = f"no {manifest.NAME} names the source; name it with --reference"
_NO_PROCESSOR = "no tokenizer or image processor, so texts and pictures were not run"


@dataclass(frozen=True)
class _Ran:
    """Both sides' outputs, why there are no texts and pictures, the reference, and the notes about it."""

    theirs: Recording
    ours: Recording
    reason: str
    against: str
    loss: bool = True
    notes: tuple[str, ...] = ()


class Outputs:
    """Runs both sides, each in its own process. A context manager: entering starts the processes.

    Frameworks take seconds to import; the caller has that time for something else.
    """

    def __init__(
        self,
        folder: Path,
        source: Path | None,
        golden: Path | None,
        options: VerifyOptions,
        no_reference: str = NO_REFERENCE,
        recorded: Manifest | None = None,
        models: Models | None = None,
    ) -> None:
        """Takes what to compare.

        Args:
            folder: the checkpoint in question.
            source: the checkpoint that it was made from, if it is there.
            golden: a golden reference file instead.
            options: how.
            no_reference: why there is neither, and what to do, for the finding.
            recorded: the folder's manifest.
            models: workers that are kept for further checkpoints; None for a separate pair.

        Raises:
            OptionError: tolerances, device or samples make no sense.
        """
        self._folder, self._source, self._golden, self._options = folder, source, golden, options
        self._no_reference = no_reference
        self._recorded, self._models = recorded, models
        self._tolerance = Tolerance(options.atol, options.rtol)
        self._samples = options.samples
        if golden is not None and self._samples.given:
            raise OptionError(
                f"{golden}: a golden reference file has its own inputs; pass texts and images to 'convert reference'"
            )
        self._stack = ExitStack()
        self._workers: tuple[Worker, Worker] | None = None
        self._wants_flax = False
        self._processor: tuple[Status, str] = ("passed", "")
        self.trial: Trial | None = None

    def __enter__(self) -> Self:
        if self._golden is None and self._source is not None:
            python = self._options.reference_python
            self._wants_flax = python is not None and _is_flax(self._source)
            if self._models is not None:
                asked = self._options.candidate(self._options.reference.dtype)
                self._workers = (self._models.reference(python, self._wants_flax), self._models.candidate(asked))
                return self
            reference = self._stack.enter_context(start_reference(python, flax=self._wants_flax))
            try:
                candidate = start_candidate(self._options.candidate(self._options.reference.dtype))
                self._workers = (reference, self._stack.enter_context(candidate))
            except BaseException:
                self._stack.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def compare(self) -> tuple[tuple[Finding, ...], ParityReport | None]:
        """Runs both sides and compares them.

        Returns:
            The findings about outputs, and about texts and pictures; and the figures, or None. A side that could not
            run here says nothing about the checkpoint, so that its outputs are "not checked".

        Raises:
            OptionError: this reference does not have what was requested.
        """
        if self._golden is None and self._source is None:
            return (
                Finding("outputs", "not checked", problems=(self._no_reference,)),
                _untried(self._no_reference),
            ), None
        reason = "the reference file holds no texts and pictures"
        try:
            if self._golden is not None:
                ran = _Ran(*self._run_candidate(self._golden), reason, str(self._golden))
            else:
                ran = self._run_both()
            config = read_config(config_of_source(self._folder)).raw
            report = compare_runs(ran.ours, ran.theirs, self._tolerance, config, loss=ran.loss)
            given = None if self._golden is not None else self._samples
            self.trial = trial_of(ran.ours, ran.theirs, self._folder, config, given)
            if self._source is not None:
                report = replace(report, problems=(*report.problems, *_unlike(self._folder, self._source)))
            report = replace(report, notes=(*report.notes, *ran.notes))
        except OptionError:
            raise
        except ConverterError as error:
            untried = _untried("the outputs could not be compared")
            status: Status = "not checked" if isinstance(error, WorkerError | NoReference) else "failed"
            return (Finding("outputs", status, problems=(str(error),)), untried), None
        more = (problem for problem in report.problems if not report.verdict.endswith(problem))
        problems = () if report.passed else (report.verdict, *more)
        found = Finding("outputs", "passed" if report.passed else "failed", report.compared, ran.against, problems)
        samples = _samples_finding(report, ran.reason, self._samples.given)
        of_processor, why = self._processor
        if of_processor == "failed" or (of_processor == "not checked" and samples.status == "passed"):
            samples = replace(samples, status=of_processor, problems=(why, *samples.problems))
        return (found, samples), report

    def _run_candidate(self, golden: Path) -> tuple[Recording, Recording]:
        try:
            theirs = read_recording(golden)
        except ParityError as error:
            raise NoReference(str(error)) from None
        dtype = theirs.metadata["dtype"]
        if self._options.float64 and dtype != "float64":
            raise OptionError(
                f"{golden}: holds {printable(dtype, 40)} outputs, not float64; record it again with 'convert reference --float64'"
            )
        ours = check_whole(self._folder)
        asked = self._options.candidate(dtype)
        batches = tuple(Batch(batch.title, batch.inputs) for batch in theirs.batches)
        check_golden_inputs(batches, read_config(config_of_source(self._folder)).raw, str(golden))
        folder = self._in_pytorch(self._folder, ours) if _is_of_others(self._folder) else self._folder
        with start_candidate(asked) as worker:
            return theirs, ask_run(worker, folder, batches, asdict(asked), self._options.seconds)

    def _run_both(self) -> _Ran:
        if self._workers is None or self._source is None:
            raise RuntimeError("enter the context before comparing: that starts the processes")
        reference, candidate = self._workers
        if self._wants_flax and runs_flax(reference, self._options.seconds):
            reference.name = "Flax reference"
            return self._run_flax(reference, candidate, self._source)
        folder, source = self._that_run(self._source)
        in_torch, in_keras = _sides(folder, source)
        (check_whole if in_torch == folder else _check_reference)(in_torch, in_torch=True)
        processor = folder if _is_of_others(self._folder) else self._folder
        batches, reason = all_batches(reference, in_torch, processor, self._options, self._samples)
        if not reason:
            self._processor = self._compare_processors(reference, batches[-1], config_of(self._source).parent)
        asked = self._options.reference
        both = run_together(
            {
                "reference": (reference, in_torch, asdict(asked)),
                "candidate": (candidate, in_keras, asdict(self._options.candidate(asked.dtype))),
            },
            batches,
            self._options.seconds,
        )
        self._dismiss()
        stands_for = {folder: self._folder, source: self._source}[in_torch]
        converted = "" if stands_for == in_torch else ", converted to PyTorch"
        return _Ran(*both, reason, f"PyTorch on {stands_for}{converted}")

    def _dismiss(self) -> None:
        """Ends both processes: nothing more is asked of them, and to give memory back takes a while."""
        for worker in self._workers or () if self._models is None else ():
            worker.dismiss()

    def _run_flax(self, reference: Worker, candidate: Worker, source: Path) -> _Ran:
        """The source in transformers 4's Flax model, the checkpoint in Keras, whichever framework it is for."""
        ours = check_whole(self._folder)
        folder = self._in_pytorch(self._folder, ours) if ours == "flax" else self._folder
        asked = flax_options(source, self._options.reference)
        made, reason = all_batches(reference, folder, self._folder, self._options, self._samples)
        if not reason:
            self._processor = self._compare_processors(reference, made[-1], config_of(source).parent)
        moved = self._recorded is not None and self._recorded.positions == "flax"
        batches, notes = counted_alike(made, read_config(config_of(source)), moved)
        both = run_together(
            {
                "reference": (reference, source, asdict(asked)),
                "candidate": (candidate, folder, asdict(replace(self._options.candidate(asked.dtype), loss=False))),
            },
            batches,
            self._options.seconds,
        )
        self._dismiss()
        return _Ran(*both, reason, f"Flax on {source}", loss=False, notes=(NO_LOSS, *notes))

    def _that_run(self, source: Path) -> tuple[Path, Path]:
        """The checkpoint and its source; one without a model here is replaced by its conversion to PyTorch.

        That is Flax's (its classes exist only in transformers 4), the source of a conversion within TensorFlow, and
        either of the two in another program's layout.
        """
        ours, theirs = check_whole(self._folder), _check_reference(source)
        within = self._recorded is not None and self._recorded.source_framework == theirs == ours != CANONICAL
        return (
            self._in_pytorch(self._folder, ours) if ours == "flax" or _is_of_others(self._folder) else self._folder,
            self._in_pytorch(source, theirs) if theirs == "flax" or within or _is_of_others(source) else source,
        )

    def _in_pytorch(self, path: Path, framework: Framework) -> Path:
        """A checkpoint's weights as PyTorch's, for as long as this runs; positions moved as in OUT."""
        made = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="parity-")), "checkpoint")
        moved = framework == "flax" and self._recorded is not None and self._recorded.positions == "flax"
        options = {"format": default_format(CANONICAL), "dtype": "keep", "positions": "flax" if moved else "keep"}
        run_conversion(None, CANONICAL, path, None, made, None, options, check=False, warn=False)
        return made

    def _compare_processors(self, worker: Worker, made: Batch, source: Path) -> tuple[Status, str]:
        """Whether the tokenizer and the image processor are the source's, and why not.

        Other files may mean the same. Only the available texts and pictures can show whether they do.
        """
        files = differing(self._folder, source)
        if not files:
            return "passed", ""
        try:
            wanted = ask_samples(worker, source, self._samples, self._options.seconds).inputs
        except WorkerError:
            raise
        except ParityError as error:
            return "not checked", f"{listed(files)}: differ from the source, whose processor cannot run: {error}"
        names = [name for name in INPUTS if name in made.inputs or name in wanted]
        names = [name for name in names if not same_bits(made.inputs.get(name), wanted.get(name))]
        if names:
            return "failed", f"{listed(files)}: differ from the source, and its processor gives other {listed(names)}"
        return (
            "not checked",
            f"{listed(files)}: differ from the source; the texts and pictures tried give the same inputs, others may not",
        )


class Lacking(str):
    """Why there are no texts and pictures where the checkpoint has a processor: a package is missing."""

    __slots__ = ()


def all_batches(
    worker: Worker, in_torch: Path, processor: Path, options: VerifyOptions, samples: Samples
) -> tuple[tuple[Batch, ...], str]:
    """The batches that a seed makes and, where the processor's folder allows it, one of texts and pictures.

    Args:
        worker: of ``start_reference``.
        in_torch: the checkpoint whose config says what the model takes.
        processor: the folder with tokenizer and image processor.
        options: ``seed`` and ``seconds`` count.
        samples: texts and pictures.

    Returns:
        The batches, and why there are none of texts and pictures; empty if there are some.

    Raises:
        WorkerError: the process for them has gone, or failed; or it lacks a package, and texts or pictures were named.
    """
    batches = make_batches(read_json(config_of(in_torch)), options.seed)
    if not sidecars_in(processor):
        return batches, f"{processor}: {_NO_PROCESSOR}"
    try:
        return (*batches, ask_samples(worker, processor, samples, options.seconds)), ""
    except MissingPackage as error:
        if samples.given:
            raise
        return batches, Lacking(error)
    except WorkerError:
        raise
    except ParityError as error:
        _log.info("no texts and pictures: %s", error)
        return batches, str(error)


def _untried(reason: str) -> Finding:
    return Finding("samples", "not checked", problems=(str(reason),), required=isinstance(reason, Lacking))


def _samples_finding(report: ParityReport, reason: str, given: bool) -> Finding:
    """The finding about texts and pictures; not having tried those that a person named is a failure."""
    number = next((k for k, title in enumerate(report.batches) if is_of_samples(title)), None)
    if number is None:
        return Finding("samples", "failed", problems=(reason,)) if given else _untried(reason)
    taps = [tap for tap in report.comparisons if tap.batch == number]
    failed = [tap for tap in taps if not tap.passed]
    compared, seconds = sum(tap.compared for tap in taps), sum(tap.seconds for tap in taps)
    title = report.batches[number]
    if failed or not compared:
        where = f"first over tolerance at {failed[0].where}" if failed else "nothing was compared"
        return Finding("samples", "failed", compared, problems=(f"{title}: {where}",), seconds=seconds)
    return Finding("samples", "passed", compared, title, seconds=seconds)


def _unlike(folder: Path, source: Path) -> tuple[str, ...]:
    """Fields for building a model on which two configs disagree: an epsilon may change less than rounding does."""
    ours, theirs = (read_config(config_of_source(path)) for path in (folder, source))
    found = []
    for side, one, other in (
        ("vision", ours.vision.fields, theirs.vision.fields),
        ("text", ours.text.fields, theirs.text.fields),
    ):
        for name in sorted(one.keys() | other.keys()):
            if one.get(name) != other.get(name):
                values = (printable(repr(fields.get(name)), 60) for fields in (one, other))
                found.append("config.json: {}_config.{} is {}, the source's is {}".format(side, name, *values))
    return tuple(found)


def _sides(folder: Path, source: Path) -> tuple[Path, Path]:
    """Which checkpoint runs in PyTorch and which in Keras: the PyTorch one of the two, and the other one.

    Both are first checked against their configs, before a framework builds a model from those.
    """
    ours, theirs = check_whole(folder), _check_reference(source)
    if ours == "pt":
        return folder, source
    if theirs == "tf":
        raise OptionError(f"{source}: holds TensorFlow weights, as {folder} does; name the PyTorch checkpoint")
    return source, folder


def _is_of_others(source: Path) -> bool:
    return config_of_source(source) != config_of(source)


def _is_flax(source: Path) -> bool:
    """Whether a source is Flax's; an unreadable one is refused when it is compared."""
    try:
        return check_whole(source) == "flax"
    except ConverterError:
        return False


def _check_reference(source: Path, in_torch: bool = False) -> Framework:
    """As ``check_whole``, of a checkpoint that is to be compared with.

    Raises:
        NoReference: it cannot be read, or is not whole.
    """
    try:
        return check_whole(source, in_torch=in_torch)
    except ConverterError as error:
        raise NoReference(str(error)) from None
