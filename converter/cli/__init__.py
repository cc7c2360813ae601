"""The command line: parses, calls one function of the library, prints. Results on stdout, everything else on stderr."""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from converter.errors import INTERRUPTED, ConverterError, listed, printable

if TYPE_CHECKING:
    from converter.conversion.engine import Conversion
    from converter.conversion.inspection import CheckpointInfo
    from converter.publishing.pushing import Publication
    from converter.specs import Framework

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 128 + signal.SIGINT  # what a shell expects of a program that ends by a signal
_LONG_LINE = 20_000
# Read by huggingface_hub when it is imported, which is when a model on the Hub is named.
_NO_BARS = "HF_HUB_DISABLE_PROGRESS_BARS"
_MULTIPLYING = "OPENBLAS_NUM_THREADS"


class _Stop:
    """Ends the program by an exception, once: a second signal must not disturb what the first makes clean up.

    The status is kept, for the exception may not arrive: HDF5 calls back, and what is raised in there comes out as an
    error of another kind, or not at all.
    """

    status: int | None = None

    def __call__(self, number: int, _: object) -> NoReturn:
        """Handles a signal."""
        _ignore_signals()
        self.status = 128 + number
        raise SystemExit(self.status)


def _ignore_signals() -> None:
    for each in _STOPPING:
        signal.signal(each, signal.SIG_IGN)


class _Command(click.Command):
    """Imports NumPy without the threads that it would multiply matrices with, of which there are none here."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; what it starts finds the environment as it was."""
        if _MULTIPLYING not in os.environ:
            os.environ[_MULTIPLYING] = "1"
            try:
                import numpy  # noqa: F401 - it starts them when it is imported, which takes 40 ms
            finally:
                del os.environ[_MULTIPLYING]
        return super().invoke(ctx)


class _Group(click.Group):
    """Prints errors of the library in one line and keeps the traceback of bugs."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click has it
        """In the order in which they are used, which is that of this file."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except ConverterError as error:
            if isinstance(ctx.obj, _Stop) and ctx.obj.status is not None:  # what the signal was taken for on its way
                raise SystemExit(ctx.obj.status) from None
            click.echo(printable(f"convert: {error}", _LONG_LINE), err=True)
            ctx.exit(1)
        except MemoryError:
            click.echo("convert: this machine has too little memory for that; take one with more", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:  # before click does, which prints an empty line first
            click.echo(INTERRUPTED, err=True)
            ctx.exit(_INTERRUPTED)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: convert pt2tf clip-italian/ clip-italian-tf/",
)
@click.version_option(package_name="dual-encoder-converter", prog_name="convert")
def cli() -> None:
    """Convert vision-text dual encoder checkpoints between PyTorch and TensorFlow, bit for bit.

    SRC is a folder as save_pretrained writes it, a weights file in one, or the id of a model on the Hugging Face Hub,
    ID@REVISION too. OUT is a folder that does not exist yet: it appears whole or not at all.
    """


_revision_option = click.option("--revision", metavar="REV", help="Branch, tag or commit of a Hub id; ID@REV, too.")


def _check_size(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A size that is none is wrong usage, and known before a model is downloaded."""
    if value is not None:
        from converter.checkpoints.shards import parse_size

        try:
            parse_size(value)
        except ConverterError as error:
            raise click.BadParameter(str(error)) from None
    return value


def _shared_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.argument("source", metavar="SRC", type=click.Path(readable=False)),
            click.argument("out", metavar="OUT", type=click.Path(readable=False)),
            _revision_option,
            click.option(
                "--dtype",
                type=click.Choice(["keep", "float32", "float16", "bfloat16"]),
                default="keep",
                show_default=True,
                help="What float tensors become.",
            ),
            click.option(
                "--max-shard-size",
                metavar="SIZE",
                callback=_check_size,
                help="Cut the weights into files of SIZE, e.g. 5GB.",
            ),
            click.option(
                "--config",
                type=click.Path(readable=False),
                metavar="FILE",
                help="A config.json that is not beside SRC.",
            ),
            click.option("--overwrite", is_flag=True, help="Replace OUT, whole, if it exists."),
            click.option("--dry-run", is_flag=True, help="Print the plan and write nothing."),
            click.option("--no-check", is_flag=True, help="Do not re-open OUT and compare it bit for bit."),
            click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
            click.option("--quiet", is_flag=True, help="Print nothing but errors."),
        )
    ):
        command = option(command)
    return command


def _run_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
            click.option("--float64", is_flag=True, help="Compute in float64: what remains is no rounding."),
            click.option("--seed", default=0, show_default=True, help="Of the inputs."),
            click.option("--seconds", default=600.0, show_default=True, help="How long each side may take."),
            click.option(
                "--reference-python",
                metavar="PATH",
                type=click.Path(path_type=Path),
                help="Interpreter of another environment for PyTorch.",
            ),
            click.option(
                "--texts",
                metavar="FILE",
                type=click.Path(path_type=Path),
                help="Texts, one per line, to put through the tokenizer beside made-up ids.",
            ),
            click.option(
                "--images",
                metavar="PATH",
                multiple=True,
                type=click.Path(path_type=Path),
                help="Picture, or folder of pictures, to put through the image processor; may be given more than once.",
            ),
        )
    ):
        command = option(command)
    return command


@cli.command(
    short_help="Convert PyTorch to TensorFlow.",
    epilog="Example: convert pt2tf clip-italian/ clip-italian-tf/ --format safetensors",
)
@click.option(
    "--format",
    type=click.Choice(["h5", "safetensors"]),
    default="h5",
    show_default=True,
    help="tf_model.h5, or TensorFlow's own model.safetensors.",
)
@_shared_options
def pt2tf(source: str, out: str, no_check: bool, as_json: bool, quiet: bool, **options: Any) -> None:
    """Convert a PyTorch checkpoint SRC to TensorFlow, into the folder OUT."""
    from converter.conversion.engine import pt2tf as convert

    _run_conversion(convert, source, out, no_check, as_json, quiet, options)


@cli.command(
    short_help="Convert TensorFlow to PyTorch.", epilog="Example: convert tf2pt clip-italian-tf/ clip-italian-pt/"
)
@click.option(
    "--format",
    type=click.Choice(["safetensors", "bin"]),
    default="safetensors",
    show_default=True,
    help="model.safetensors, or the pytorch_model.bin of torch 1.6 and later.",
)
@click.option(
    "--names",
    type=click.Choice(["v4", "v5"]),
    default="v4",
    show_default=True,
    help="Names that every version of transformers reads, or those that a fresh 5.x model saves.",
)
@_shared_options
def tf2pt(source: str, out: str, no_check: bool, as_json: bool, quiet: bool, **options: Any) -> None:
    """Convert a TensorFlow checkpoint SRC to PyTorch, into the folder OUT."""
    from converter.conversion.engine import tf2pt as convert

    _run_conversion(convert, source, out, no_check, as_json, quiet, options)


@cli.command(
    short_help="Make a dual encoder from two tower checkpoints.",
    epilog="Example: convert combine clip-vit-base/ bert-italian/ clip-italian/",
)
@click.argument("vision", metavar="VISION", type=click.Path(readable=False))
@click.argument("text", metavar="TEXT", type=click.Path(readable=False))
@click.argument("out", metavar="OUT", type=click.Path(readable=False))
@click.option(
    "--to", "target", type=click.Choice(["pt", "tf"]), default="pt", show_default=True, help="PyTorch or TensorFlow."
)
@click.option(
    "--projection-dim",
    type=click.IntRange(1),
    help="Width of the common space; by default that of the model that both towers are of, else 512.",
)
@click.option("--seed", default=0, show_default=True, help="Of the new projections.")
@click.option("--overwrite", is_flag=True, help="Replace OUT, whole, if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def combine(vision: str, text: str, out: str, as_json: bool, quiet: bool, target: Framework, **options: Any) -> None:
    """Make a dual encoder from the tower checkpoints VISION and TEXT; its projections are new, to be trained."""
    from converter.conversion.combining import combine as join

    result = join(vision, text, out, target=target, format="h5" if target == "tf" else "safetensors", **options)
    _print_conversion(result, as_json, quiet)


@cli.command(
    short_help="Show what a checkpoint is, and what would be left out.", epilog="Example: convert inspect clip-italian/"
)
@click.argument("source", metavar="SRC", type=click.Path(readable=False))
@_revision_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def inspect(source: str, revision: str | None, as_json: bool) -> None:
    """Show what the checkpoint SRC is, and what a conversion would drop."""
    from converter.conversion.inspection import inspect as look

    info = look(source, revision=revision)
    if as_json:
        _print(json.dumps(info.to_json(), indent=2))
    else:
        _echo(_describe(info))


@cli.command(
    short_help="Compare files, weights and every layer with the source.",
    epilog="Example: convert verify clip-italian-tf/ --atol 1e-4 --report parity.html",
)
@click.argument("out", metavar="[OUT]", default=".", type=click.Path(readable=False))
@click.option(
    "--reference",
    metavar="SRC|FILE",
    type=click.Path(readable=False),
    help="The source, or a file of `convert reference`.",
)
@click.option("--atol", default=1e-4, show_default=True, help="Absolute tolerance of every output.")
@click.option("--rtol", default=0.0, show_default=True, help="Relative tolerance of every output.")
@click.option("--weights-only", is_flag=True, help="Compare files and weights, start no framework.")
@_run_options
@click.option(
    "--backend", type=click.Choice(["tensorflow", "jax"]), default="tensorflow", show_default=True, help="Of Keras."
)
@click.option(
    "--report", "reports", metavar="FILE", multiple=True, type=click.Path(path_type=Path),
    help="Write figures to FILE: .json .md .html .xml or .txt; may be given more than once.",
)  # fmt: skip
@click.option(
    "--record/--no-record", default=True, show_default=True, help="Keep the result as parity.json in OUT, for push."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(
    out: str,
    reference: str | None,
    weights_only: bool,
    record: bool,
    reports: tuple[Path, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Verify that OUT (default: this folder) is its source: files, weights bit for bit, and every layer's output."""
    from converter.parity.outputs import VerifyOptions
    from converter.parity.reports.files import add_to_job_summary, check_report_path, write_report
    from converter.parity.reports.findings import verification_text
    from converter.parity.verify import verify as check

    for path in reports:
        check_report_path(path, Path(out))
    with _stages("files", as_json) as progress:
        found = check(
            out,
            reference=reference,
            weights_only=weights_only,
            options=VerifyOptions(**options),
            record=record,
            progress=progress,
        )
    _print(json.dumps(found.to_json(), indent=2) if as_json else verification_text(found).rstrip("\n"))
    for path in reports:
        write_report(found, path)
    add_to_job_summary(found)
    sys.exit(0 if found.passed else 1)


@cli.command(
    short_help="Run PyTorch once, to verify with elsewhere.",
    epilog="Example: convert reference clip-italian/ -o golden.safetensors --device cuda",
)
@click.argument("source", metavar="SRC", type=click.Path(readable=False))
@click.option("-o", "--out", metavar="FILE", required=True, type=click.Path(), help="File to write.")
@_revision_option
@_run_options
def reference(source: str, out: str, revision: str | None, **options: Any) -> None:
    """Run PyTorch on the checkpoint SRC and keep inputs and outputs, to verify with on another machine."""
    from converter.parity.outputs import VerifyOptions
    from converter.parity.reports.terminal import described_run
    from converter.parity.verify import record_reference

    recording = record_reference(source, out, VerifyOptions(**options), revision=revision)
    taps = sum(len(batch.taps) for batch in recording.batches)
    said = [f"{out}: {taps} outputs of {len(recording.batches)} batches; {described_run(recording.metadata)}"]
    if "samples" in recording.metadata:
        said.append(f"without texts and pictures: {printable(recording.metadata['samples'], 500)}")
    _echo([*said, f"next: convert verify OUT --reference {out}"])


@cli.command(
    short_help="Publish what was verified on the Hugging Face Hub.",
    epilog="Example: convert push clip-italian-tf/ me/clip-italian-tf",
)
@click.argument("out", metavar="OUT", type=click.Path(readable=False))
@click.argument("repository", metavar="REPO")
@click.option(
    "--create-pr/--no-create-pr", default=None, help="A pull request, which is the default where REPO is there already."
)
@click.option("--revision", metavar="BRANCH", help="The branch to commit to, or to open the pull request against.")
@click.option("--private", is_flag=True, help="If REPO is made, make it private.")
@click.option("--message", metavar="TEXT", help="Title of the pull request or commit.")
@click.option("--allow-unverified", is_flag=True, help="Publish what does not match its manifest or was not verified.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def push(out: str, repository: str, as_json: bool, **options: Any) -> None:
    """Publish the converted and verified checkpoint OUT on the Hugging Face Hub, in the model REPO."""
    from converter.publishing.pushing import push as publish

    result = publish(out, repository, **options)
    if as_json:
        _print(json.dumps(result.to_json(), indent=2))
    else:
        _echo(_published(result))


def main() -> NoReturn:
    """Runs the command line and exits with its status: 0 done, 1 refused, 2 wrong usage."""
    _fill_standard_streams()
    stop = _Stop()
    for number in _STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell has it in the background, and nohup
            signal.signal(number, stop)
    status: Any = None
    try:
        status = cli.main(prog_name="convert", standalone_mode=False, obj=stop)  # status of ctx.exit, or None
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except SystemExit as stopped:
        status = stopped.code
    except (click.Abort, KeyboardInterrupt):
        stop.status = _INTERRUPTED
    except Exception:
        if stop.status is None:
            raise
    _ignore_signals()  # all is said and done: Python would complain while it shuts down
    if stop.status is not None:
        gc.collect()  # what was raised on the threshold of a `with` leaves its generator suspended: now it cleans up
    if stop.status == _INTERRUPTED:
        click.echo(INTERRUPTED, err=True)
    sys.exit(status if stop.status is None else stop.status)


def _fill_standard_streams() -> None:
    """Opens what is closed of stdin, stdout and stderr: files opened later would get their numbers, and be written to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the program runs


@contextmanager
def _stages(first: str, silent: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """What is being verified, on stderr if that is a terminal; frameworks take seconds to start."""
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    following = {"files": "weights", "weights": "outputs: both models start, run and are compared"}
    with Console(stderr=True).status(f"verifying {first}") as status:
        yield lambda part, _, __: status.update(f"verifying {following.get(part, part)}")


@contextmanager
def _progress(silent: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on stderr if that is a terminal; it begins after a download, which has bars of its own."""
    if silent:
        os.environ.setdefault(_NO_BARS, "1")
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:8}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    tasks: dict[str, Any] = {}

    def advance(stage: str, done: int, total: int) -> None:
        if not tasks:
            bar.start()
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done)

    try:
        yield advance
    finally:
        if tasks:
            bar.stop()


@contextmanager
def _warnings(shown: bool) -> Iterator[None]:
    """Warnings of this program and of huggingface_hub on stderr, or none."""
    loggers = [] if shown else [logging.getLogger(name) for name in ("converter", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _run_conversion(
    convert: Callable[..., Conversion],
    source: str,
    out: str,
    no_check: bool,
    as_json: bool,
    quiet: bool,
    options: Mapping[str, Any],
) -> None:
    with _progress(quiet or as_json) as progress, _warnings(not quiet):
        result = convert(source, out, check=not no_check, progress=progress, **options)
    _print_conversion(result, as_json, quiet)


def _print_conversion(result: Conversion, as_json: bool, quiet: bool) -> None:
    if as_json:
        _print(json.dumps(result.to_json(), indent=2))
    elif not quiet:
        _echo([*(_plan_lines(result) if result.dry_run else ()), *_summary_lines(result)])


def _echo(lines: Iterable[str]) -> None:
    """Prints lines: names of files and tensors may hold anything, terminal escapes and what is not text included."""
    _print("\n".join(printable(line, _LONG_LINE) for line in lines))


def _print(text: str) -> None:
    """Writes to stdout, which may be a file on a full disk; a reader that has had enough is click's affair."""
    try:
        click.echo(text)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise ConverterError(f"standard output cannot be written: {error.strerror}") from None


def _plan_lines(result: Conversion) -> Iterator[str]:
    from converter.folding import fold

    pairs = [(tensor.source.name, tensor.name, tensor.layout.name) for tensor in result.plan.tensors]
    for line, count in fold(f"{source} -> {name}  [{layout}]" for source, name, layout in pairs):
        yield f"{count:5}  {printable(line, 300)}"
    yield ""


def _summary_lines(result: Conversion) -> Iterator[str]:
    vision, text = result.towers
    done = "would be converted" if result.dry_run else "converted"
    where = result.out if result.dry_run else result.out / result.weights
    yield f"{result.source}{_at(result.commit)} -> {where}"
    yield f"  {vision} + {text}, {result.tensors} tensors, {result.parameters:,} parameters {done}"
    for cast, count in result.casts.items():
        yield f"  {count} tensors {cast}"
    from converter.folding import fold

    if result.overflowed:
        names = listed([name for name, _ in fold(result.overflowed)], limit=3)
        yield f"  {sum(result.overflowed.values()):,} values became infinite, out of the new dtype's range: {names}"
    yield from _left_out("  left out:", {item.name: item.reason for item in result.dropped})
    if result.restored:
        yield f"  made anew: {', '.join(name for name, _ in fold(result.restored))}"
    if result.made_new:
        yield f"  drawn at random, to be trained: {', '.join(name for name, _ in fold(result.made_new))}"
    for change in result.config_rewritten:
        yield f"  {printable(change)}"
    if result.config_unknown:
        yield f"  config.json: kept without knowing them: {printable(', '.join(result.config_unknown))}"
    if result.dry_run:
        return
    checked = "compared with the source bit for bit" if result.checked else "not compared with the source"
    yield f"  {result.nbytes / 1e6:,.1f} MB in {result.seconds:.2f} s, {checked}"
    back = "tf2pt" if result.direction == "pt2tf" else "pt2tf"
    if result.made_new:  # there is no source that it could be verified with
        yield f"next: train it; convert {back} {result.out} OUT converts it"
        return
    yield f"next: convert verify {result.out}, or back again: convert {back} {result.out} OUT"


def _published(result: Publication) -> Iterator[str]:
    made = "would be made, and " if result.dry_run else "made, and "
    what = {
        "pull request": f"a pull request {'would be ' if result.dry_run else ''}opened",
        "update": f"the open pull request {result.revision} {'would be ' if result.dry_run else ''}updated",
        "commit": f"{'would be ' if result.dry_run else ''}committed to {result.revision}",
        "nothing": f"nothing to do: {result.revision} holds all of it",
    }[result.action]
    yield f"{result.repository}: {made if result.creates else ''}{what}"
    for change in result.changes:
        yield f"  {change.action:8}{change.name} ({change.size:,} bytes)"
    if result.dry_run:
        if result.action != "nothing":
            yield from ("", f"title: {result.title}")
        if result.action in ("pull request", "update"):
            yield from ("", *result.description.splitlines())
        yield from ("", *result.card_diff.splitlines())
    if not result.verified:
        yield "  not verified"
    if result.url:
        yield result.url


def _at(commit: str | None) -> str:
    return "" if commit is None else f" (commit {commit[:12]})"


def _left_out(label: str, dropped: Mapping[str, str]) -> Iterator[str]:
    """A line per reason: how many tensors, which, and why."""
    from converter.folding import fold

    for reason in dict.fromkeys(dropped.values()):
        names = [name for name, why in dropped.items() if why == reason]
        yield f"{label} {listed([name for name, _ in fold(names)], limit=3)} ({len(names)}): {reason}"


def _describe(info: CheckpointInfo) -> Iterator[str]:
    from converter.folding import fold

    files = ", ".join(name for name, _ in fold(info.files))
    yield f"{info.source}{_at(info.commit)}: {info.container}, {info.nbytes / 1e6:,.1f} MB in {printable(files)}"
    for side, tower in info.towers.items():
        details = ", ".join(f"{name} {value}" for name, value in tower.items() if name != "model_type")
        yield f"  {side:11} {tower['model_type']}: {printable(details)}"
    yield f"  {'tensors':11} {info.tensors}: " + ", ".join(f"{count} {dtype}" for dtype, count in info.dtypes.items())
    total = sum(info.parameters.values())
    shares = ", ".join(f"{printable(scope, 60)} {count:,}" for scope, count in list(info.parameters.items())[:8])
    yield f"  {'parameters':11} {total:,}: {shares}"
    if info.dialects:
        yield f"  {'names':11} " + ", ".join(f"{count} {name}" for name, count in info.dialects.items())
    if info.metadata:
        yield f"  {'metadata':11} {printable(json.dumps(dict(info.metadata)))}"
    yield from _left_out(f"  {'left out':11}", info.dropped)
    if info.restored:
        yield f"  {'made anew':11} " + ", ".join(name for name, _ in fold(info.restored))
    if info.config_unknown:
        yield f"  {'config.json':11} unknown fields, kept: {printable(', '.join(info.config_unknown))}"
    command = "pt2tf" if info.framework == "pt" else "tf2pt"
    verdict = f"cannot be converted: {info.problem}" if info.problem else f"convert {command} {info.source} OUT"
    yield f"  {'next' if info.problem is None else 'problem':11} {verdict}"
