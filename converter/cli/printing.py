"""Turns results into lines, and prints them on stdout."""

from __future__ import annotations

import errno
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import click

from converter.errors import ConverterError, listed, printable
from converter.folding import fold

if TYPE_CHECKING:
    from converter.conversion.engine import Conversion
    from converter.conversion.inspection import CheckpointInfo
    from converter.parity.runners.golden import Recording
    from converter.publishing.pushing import Publication

LONG_LINE = 20_000


class _Result(Protocol):
    """What every function of the library returns that a command prints."""

    def to_json(self) -> dict[str, Any]: ...


def print_conversion(result: Conversion, as_json: bool, quiet: bool, joined: bool = False) -> None:
    """Prints what a conversion did, or would do; what was joined of several has no source to be verified with."""
    if as_json:
        print_json(result)
    elif not quiet:
        echo([*(_plan_lines(result) if result.dry_run else ()), *_summary_lines(result, joined)])


def print_json(result: _Result) -> None:
    """Prints a result whole, for another program."""
    print_text(json.dumps(result.to_json(), indent=2))


def echo(lines: Iterable[str]) -> None:
    """Prints lines: names of files and tensors may hold anything, terminal escapes and what is not text included."""
    print_text("\n".join(printable(line, LONG_LINE) for line in lines))


def print_text(text: str) -> None:
    """Writes to stdout, which may be a file on a full disk; a reader that has had enough is click's affair."""
    try:
        click.echo(text)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise ConverterError(f"standard output cannot be written: {error.strerror}") from None


def _plan_lines(result: Conversion) -> Iterator[str]:
    pairs = [(tensor.source.name, tensor.name, tensor.layout.name) for tensor in result.plan.tensors]
    for line, count in fold(f"{source} -> {name}  [{layout}]" for source, name, layout in pairs):
        yield f"{count:5}  {printable(line, 300)}"
    yield ""


def _summary_lines(result: Conversion, joined: bool) -> Iterator[str]:
    vision, text = result.towers
    done = "would be converted" if result.dry_run else "converted"
    where = result.out if result.dry_run else result.out / result.weights
    yield f"{result.source}{_at(result.commit)} -> {where}"
    yield f"  {vision} + {text}, {result.tensors} tensors, {result.parameters:,} parameters {done}"
    for cast, count in result.casts.items():
        yield f"  {count} tensors {cast}"
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
    if result.replaced or result.kept:
        words = ("would be replaced", "would stay") if result.dry_run else ("replaced", "stayed")
        names = listed([name for name, _ in fold(result.replaced)])
        yield f"  {words[0]} in {result.out}: {names}; {result.kept} other files and folders {words[1]}"
    if result.dry_run:
        return
    checked = "compared with the source bit for bit" if result.checked else "not compared with the source"
    yield f"  {result.nbytes / 1e6:,.1f} MB in {result.seconds:.2f} s, {checked}"
    if result.made_new or joined:  # there is no source that it could be verified with
        yield f"next: {'train it; ' if result.made_new else ''}convert {result.back} {_quoted(result.out)} OUT converts it"
        return
    yield f"next: convert verify {_quoted(result.out)}, or back again: convert {result.back} {_quoted(result.out)} OUT"


def publication_lines(result: Publication) -> Iterator[str]:
    """What publishing a checkpoint did, or would do."""
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


def recording_lines(out: str, recording: Recording) -> Iterator[str]:
    """What was recorded of a reference, in the file ``out``."""
    from converter.parity.reports.words import described_run

    taps = sum(len(batch.taps) for batch in recording.batches)
    yield f"{out}: {taps} outputs of {len(recording.batches)} batches; {described_run(recording.metadata)}"
    if "samples" in recording.metadata:
        yield f"without texts and pictures: {printable(recording.metadata['samples'], 500)}"
    yield f"next: convert verify OUT --reference {_quoted(out)}"


def _quoted(path: object) -> str:
    """A path as a shell takes it, also one with spaces."""
    return shlex.quote(str(path))


def _at(commit: str | None) -> str:
    return "" if commit is None else f" (commit {commit[:12]})"


def _left_out(label: str, dropped: Mapping[str, str]) -> Iterator[str]:
    """A line per reason: how many tensors, which, and why."""
    for reason in dict.fromkeys(dropped.values()):
        names = [name for name, why in dropped.items() if why == reason]
        yield f"{label} {listed([name for name, _ in fold(names)], limit=3)} ({len(names)}): {reason}"


def checkpoint_lines(info: CheckpointInfo) -> Iterator[str]:
    """What a checkpoint is."""
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
    verdict = (
        f"cannot be converted: {info.problem}" if info.problem else f"convert {info.command} {_quoted(info.source)} OUT"
    )
    yield f"  {'next' if info.problem is None else 'problem':11} {verdict}"
