"""The command line: parses, calls one function of the library, prints. Results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from converter.errors import ConverterError, listed, printable

if TYPE_CHECKING:
    from converter.engine import Conversion
    from converter.inspection import CheckpointInfo
    from converter.specs import Framework

# What a shell expects of a program that was interrupted.
_INTERRUPTED, _TERMINATED = 130, 143


class _Group(click.Group):
    """Prints errors of the library in one line and keeps the traceback of bugs."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except ConverterError as error:
            click.echo(f"convert: {error}", err=True)
            ctx.exit(1)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: convert pt2tf clip-italian/ clip-italian-tf/",
)
@click.version_option(package_name="dual-encoder-converter", prog_name="convert")
def cli() -> None:
    """Convert vision-text dual encoder checkpoints between PyTorch and TensorFlow, bit for bit.

    SRC is a folder as save_pretrained writes it, or a weights file in one. OUT is a folder that does not exist yet:
    it appears whole or not at all.
    """


def _shared_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.argument("source", metavar="SRC", type=click.Path()),
            click.argument("out", metavar="OUT", type=click.Path()),
            click.option(
                "--dtype",
                type=click.Choice(["keep", "float32", "float16", "bfloat16"]),
                default="keep",
                show_default=True,
                help="What float tensors become.",
            ),
            click.option("--max-shard-size", metavar="SIZE", help="Cut the weights into files of SIZE, e.g. 5GB."),
            click.option("--config", type=click.Path(), metavar="FILE", help="A config.json that is not beside SRC."),
            click.option("--overwrite", is_flag=True, help="Replace OUT, whole, if it exists."),
            click.option("--dry-run", is_flag=True, help="Print the plan and write nothing."),
            click.option("--no-check", is_flag=True, help="Do not re-open OUT and compare it bit for bit."),
            click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
            click.option("--quiet", is_flag=True, help="Print nothing but errors."),
        )
    ):
        command = option(command)
    return command


@cli.command(epilog="Example: convert pt2tf clip-italian/ clip-italian-tf/ --format safetensors")
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
    from converter.engine import pt2tf as convert

    with _progress(quiet or as_json) as progress:
        result = convert(source, out, check=not no_check, progress=progress, **options)
    _print_conversion(result, as_json, quiet)


@cli.command(epilog="Example: convert tf2pt clip-italian-tf/ clip-italian-pt/")
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
    from converter.engine import tf2pt as convert

    with _progress(quiet or as_json) as progress:
        result = convert(source, out, check=not no_check, progress=progress, **options)
    _print_conversion(result, as_json, quiet)


@cli.command(epilog="Example: convert combine clip-vit-base-patch32/ bert-base-italian/ clip-italian/")
@click.argument("vision", metavar="VISION", type=click.Path())
@click.argument("text", metavar="TEXT", type=click.Path())
@click.argument("out", metavar="OUT", type=click.Path())
@click.option(
    "--to", "target", type=click.Choice(["pt", "tf"]), default="pt", show_default=True, help="PyTorch or TensorFlow."
)
@click.option(
    "--projection-dim", type=click.IntRange(1), default=512, show_default=True, help="Width of the common space."
)
@click.option("--seed", default=0, show_default=True, help="Of the new projections.")
@click.option("--overwrite", is_flag=True, help="Replace OUT, whole, if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def combine(vision: str, text: str, out: str, as_json: bool, quiet: bool, target: Framework, **options: Any) -> None:
    """Make a dual encoder from the tower checkpoints VISION and TEXT; its projections are new, to be trained."""
    from converter.combine import combine as join

    result = join(vision, text, out, target=target, format="h5" if target == "tf" else "safetensors", **options)
    _print_conversion(result, as_json, quiet)


@cli.command(epilog="Example: convert inspect clip-italian/")
@click.argument("source", metavar="SRC", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def inspect(source: str, as_json: bool) -> None:
    """Show what the checkpoint SRC is, and what a conversion would drop."""
    from converter.inspection import inspect as look

    info = look(source)
    click.echo(json.dumps(info.to_json(), indent=2) if as_json else "\n".join(_describe(info)))


def main() -> NoReturn:
    """Runs the command line and exits with its status: 0 done, 1 refused, 2 wrong usage."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("convert: interrupted; nothing was left behind", err=True)
        sys.exit(_INTERRUPTED)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    sys.exit(0)


@contextmanager
def _progress(silent: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on stderr if that is a terminal."""
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:8}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done)

        yield advance


def _print_conversion(result: Conversion, as_json: bool, quiet: bool) -> None:
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
    elif not quiet:
        click.echo("\n".join([*(_plan_lines(result) if result.dry_run else ()), *_summary_lines(result)]))


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
    yield f"{result.source} -> {where}"
    yield f"  {vision} + {text}, {result.tensors} tensors, {result.parameters:,} parameters {done}"
    for cast, count in result.casts.items():
        yield f"  {count} tensors {cast}"
    from converter.folding import fold

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
    yield f"next: convert inspect {result.out}, or back again: convert {back} {result.out} OUT"


def _left_out(label: str, dropped: Mapping[str, str]) -> Iterator[str]:
    """A line per reason: how many tensors, which, and why."""
    from converter.folding import fold

    for reason in dict.fromkeys(dropped.values()):
        names = [name for name, why in dropped.items() if why == reason]
        yield f"{label} {len(names)}, {reason}: {listed([name for name, _ in fold(names)], limit=3)}"


def _describe(info: CheckpointInfo) -> Iterator[str]:
    from converter.folding import fold

    files = ", ".join(name for name, _ in fold(info.files))
    yield f"{info.source}: {info.container}, {info.nbytes / 1e6:,.1f} MB in {printable(files)}"
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
