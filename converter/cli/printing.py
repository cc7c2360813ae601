"""Turns results into lines, and prints them on stdout: for a program as one JSON object, for people the verdict first."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import click

from converter.cli.colours import coloured
from converter.cli.voice import LONG_LINE, in_colour, is_quiet, is_verbose, mark_answered, styled, wants_json
from converter.errors import ConverterError, listed, printable, quoted
from converter.folding import fold, folded

if TYPE_CHECKING:
    from converter.conversion.inspection import CheckpointInfo
    from converter.conversion.result import Conversion
    from converter.parity.runners.golden import Recording
    from converter.publishing.publication import Publication


_BAR = 20  # characters


class _Result(Protocol):
    """A library result that a command prints."""

    def to_json(self) -> dict[str, Any]: ...


def show(result: _Result, lines: Iterable[str], colour: str = "green", **more: Any) -> None:
    """Prints a result, except with ``--quiet``.

    Args:
        result: what a function of the library returned.
        lines: the same for people, the verdict first.
        colour: of the verdict, on a terminal.
        more: what the command knows besides, for the JSON object.
    """
    if wants_json():
        mark_answered()
        _print_text(json.dumps(result.to_json() | more, indent=2))
    elif not is_quiet():
        # Names of files and tensors may hold anything, terminal escapes and what is not text included.
        first, *others = (printable(line, LONG_LINE) for line in lines)
        if in_colour(sys.stdout):
            others = [coloured(line) for line in others]
        _print_text("\n".join([styled(first, sys.stdout, fg=colour, bold=True), *others]))


def _print_text(text: str) -> None:
    """Writes to stdout, which may be a file on a full disk; a reader that has had enough is click's affair."""
    try:
        click.echo(text, color=True)  # what is in colours was made so for this very stream
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise ConverterError(f"cannot write to standard output: {error.strerror}; write it elsewhere") from None


def conversion_lines(result: Conversion, joined: bool = False) -> Iterator[str]:
    """The result of a conversion or dry run; a joined model has no source to verify with."""
    yield from _summary_lines(result, joined)
    if result.dry_run or is_verbose():
        yield from ("", *_plan_lines(result))


def _plan_lines(result: Conversion) -> Iterator[str]:
    pairs = [(tensor.source.name, tensor.name, tensor.layout.name) for tensor in result.plan.tensors]
    for line, count in fold(f"{source} -> {name}  [{layout}]" for source, name, layout in pairs):
        yield f"{count:5}  {printable(line, 300)}"


def conversion_colour(result: Conversion) -> str:
    """The colour of its verdict: yellow where something has yet to be looked at."""
    return "yellow" if result.overflowed or not (result.checked or result.dry_run) else "green"


def _summary_lines(result: Conversion, joined: bool) -> Iterator[str]:
    where = result.out if result.dry_run else result.out / result.weights
    yield f"{result.source}{_at(result.commit)} -> {where}: {_verdict(result, joined)}"
    yield from _tower_lines(result)
    written = "" if result.dry_run else f", {result.nbytes / 1e6:,.1f} MB in {result.seconds:.2f} s"
    yield f"  {result.tensors} tensors, {result.parameters:,} parameters{written}"
    yield from _change_lines(result)
    if result.dry_run:
        return
    if not joined:  # what was joined has no source that it could be verified with
        yield f"next: convert verify {quoted(result.out)}"
    yield f"{'next' if joined else 'back'}: convert {result.back} {quoted(result.out)} OUT"


def _verdict(result: Conversion, joined: bool) -> str:
    if result.dry_run:
        return "would be converted"
    source = "its sources" if joined else "its source"
    return f"matches {source} bit for bit" if result.checked else f"converted, not checked against {source}"


def _tower_lines(result: Conversion) -> Iterator[str]:
    """A line per tower: what it is, and its share of all parameters as a bar."""
    from converter.names.rule_files import SIDES  # with it come the rules, which `--help` needs not

    width = max(map(len, result.towers))
    for side, tower in zip(SIDES, result.towers, strict=True):
        held = [tensor for tensor in result.plan.tensors if tensor.canonical.startswith(f"{side}_model.")]
        parameters = sum(tensor.source.size for tensor in held)
        share = parameters / max(1, result.parameters)
        bar = "█" * round(share * _BAR)
        yield (
            f"  {side:<6}  {tower:<{width}}  {bar.ljust(_BAR, '░')}  {share:4.0%}  {_counted(len(held), 'tensor')}, "
            f"{_counted(parameters, 'parameter')}"
        )


def _change_lines(result: Conversion) -> Iterator[str]:
    """What became different on the way, or was left out."""
    for cast, count in result.casts.items():
        yield f"  {_counted(count, 'tensor')} {cast}"
    if result.overflowed:
        names = folded(result.overflowed)
        yield f"  out of the new dtype's range, now infinite: {_counted(sum(result.overflowed.values()), 'value')}: {names}"
    if spelled := [f"{count} {name}" for name, count in result.dialects.items() if ", " in name]:
        yield f"  names in the source: {printable('; '.join(spelled), 300)}"
    yield from _left_out("  left out:", {item.name: item.reason for item in result.dropped})
    if result.restored:
        yield f"  rebuilt: {folded(result.restored)}"
    if result.made_new:
        yield f"  random, train before use: {folded(result.made_new)}"
    for change in result.config_rewritten:
        yield f"  {printable(change)}"
    if result.config_unknown:
        yield f"  config.json: unknown fields kept: {listed(result.config_unknown)}"
    if result.left_behind:
        yield f"  not copied: {listed(result.left_behind, limit=5)}"
    if result.replaced or result.kept:
        words = ("would be replaced", "would stay") if result.dry_run else ("replaced", "stayed")
        names = listed([name for name, _ in fold(result.replaced)])
        kept = "1 other file or folder" if result.kept == 1 else f"{result.kept} other files and folders"
        yield f"  {words[0]} in {result.out}: {names}; {kept} {words[1]}"


def publication_lines(result: Publication) -> Iterator[str]:
    """The result of publishing, or of its dry run."""
    would = "would " if result.dry_run else ""
    what = {
        "pull request": f"{_past('open', would)} a pull request",
        "update": f"{_past('update', would)} the open pull request {result.revision}",
        "commit": f"{_past('commit', would)} to {result.revision}",
        "nothing": f"nothing to do, {result.revision} already holds all files",
    }[result.action]
    yield f"{result.repository}: {_past('create', would) + ' the repository and ' if result.creates else ''}{what}"
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
    """The recorded reference in the file ``out``."""
    from converter.parity.reports.words import described_run

    taps = sum(len(batch.taps) for batch in recording.batches)
    yield f"{out}: {taps} layer outputs of {len(recording.batches)} batches"
    yield f"  {described_run(recording.metadata)}"
    if "samples" in recording.metadata:
        yield f"  no texts and pictures: {printable(recording.metadata['samples'].removeprefix('none: '), 500)}"
    yield f"next: convert verify OUT --reference {quoted(out)}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _past(verb: str, would: str) -> str:
    """A verb in the past for what was done, or with "would" for a dry run."""
    return f"{would}{verb}" if would else {"open": "opened", "commit": "committed"}.get(verb, f"{verb}d")


def _at(commit: str | None) -> str:
    return "" if commit is None else f" (commit {commit[:12]})"


def _left_out(label: str, dropped: Mapping[str, str]) -> Iterator[str]:
    """A line per reason: how many tensors, which, and why."""
    for reason in dict.fromkeys(dropped.values()):
        names = [name for name, why in dropped.items() if why == reason]
        yield f"{label} {folded(names)} ({len(names)}): {reason}"


def checkpoint_lines(info: CheckpointInfo, **options: str | None) -> Iterator[str]:
    """A description of a checkpoint, and whether it can be converted.

    Args:
        info: what was found.
        options: of the command that led to it, for the command that follows.
    """
    able = f"CANNOT be converted: {info.problem}" if info.problem else "can be converted"
    yield f"{info.source}{_at(info.commit)}: {able}"
    size = f"{info.nbytes / 1e6:,.1f} MB in {folded(info.files)}"
    yield f"  {'container':11} {info.container}, {size}"
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
        yield f"  {'rebuilt':11} {folded(info.restored)}"
    if info.config_unknown:
        yield f"  {'config.json':11} unknown fields kept: {listed(info.config_unknown)}"
    if info.problem is None:
        more = "".join(f" --{name} {quoted(value)}" for name, value in options.items() if value is not None)
        yield f"next: convert {info.command} {quoted(info.source)} OUT{more}"
