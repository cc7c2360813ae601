"""The wording that all reports share: the verdict, the result of a part, what ran where, and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from converter.errors import printable
from converter.parity.comparison import ParityReport, TapComparison
from converter.parity.finding import Finding
from converter.parity.taps import is_state, tower_of

if TYPE_CHECKING:
    from converter.parity.verify import Verification

_SHOWN = 10  # problems of one part; the JSON report has them all
# One sign per decade of the greatest absolute difference, from 1e-9 and below to 1e-2 and above.
_SIGNS = "▁▂▃▄▅▆▇█"
_LOWEST = -9
_FAILED = "✗"


_VERDICTS = {"passed": "matches its source", "failed": "does NOT match its source", "not checked": "not checked"}


def verdict(found: Verification) -> str:
    """One line: whether the checkpoint matches its source, or that this was not checked; and what that is based on."""
    parts = {finding.part for finding in found.findings}
    what = "" if "outputs" in parts or found.status == "not checked" else " (weights only)"
    return f"{printable(str(found.folder))}: {_VERDICTS[found.status]}{what}"


def compared(finding: Finding) -> str:
    """How much of a part was compared, and with what; empty if nothing was."""
    against = f", against {printable(finding.against, 500)}" if finding.against else ""
    return f" ({finding.compared:,} compared{against})" if finding.compared else ""


def problems(finding: Finding) -> list[str]:
    """The fault of a part: the first one, and how many more there are."""
    more = len(finding.problems) - _SHOWN
    return [*finding.problems[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def run_facts(metadata: Mapping[str, str]) -> dict[str, str]:
    """What ran where, by name, from a recording's metadata, which may come from a file."""
    facts = {name: metadata.get(name, "?") for name in ("framework", "dtype", "device")}
    facts |= {name: str(version) for name, version in _object(metadata.get("versions", "")).items()}
    kinds = sorted({str(kind) for kind in _object(metadata.get("attention", "")).values()})
    facts |= {"attention": " and ".join(kinds)} if kinds else {}
    return facts | dict(zip(("time", "memory"), _spent(metadata), strict=False))


def described_run(metadata: Mapping[str, str]) -> str:
    """What ran where in one line, from a recording's metadata, which may come from a file."""
    named = {"framework": "", "dtype": "", "device": "", "time": "", "memory": ""}
    parts = [f"{named.get(name, f'{name} ')}{value}" for name, value in run_facts(metadata).items()]
    return printable(", ".join(parts), 300)


def _spent(metadata: Mapping[str, str]) -> list[str]:
    """Time and memory of a run, loading included."""
    try:
        seconds, peak = float(metadata["seconds"]), float(metadata["peak_memory"])
    except (KeyError, ValueError):
        return []
    return [f"{seconds:.1f} s", f"peak {peak / 1e6:,.0f} MB"]


def described_precision(metadata: Mapping[str, str]) -> str:
    """The settings that decide how a run rounds, in one line: TF32, determinism and the like."""
    settings = _object(metadata.get("precision", ""))
    return printable(", ".join(f"{name} {value}" for name, value in settings.items()) or "not recorded", 300)


def _object(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def tower_line(report: ParityReport, tower: str) -> str:
    """Draws a tower's errors from its embeddings to its pooled output, a sign per layer.

    Returns:
        For example ``"▃▃▄✗✗✗✗  first over tolerance at layer 2"``.
    """
    taps = [tap for tap in report.worst if tower_of(tap.name) == tower and is_state(tap.name)]
    if not taps:
        return "nothing compared"
    first = report.first_failure_in(tower)
    greatest = max((tap.greatest_absolute for tap in taps if tap.greatest_absolute is not None), default=math.nan)
    words = f"max abs diff {greatest:.1e}"
    if first is not None:
        words = f"first over tolerance at {first.where.partition(', ')[2]}"
    return f"{''.join(_sign(tap) for tap in taps)}  {words}"


def _sign(tap: TapComparison) -> str:
    if not tap.passed or tap.greatest_absolute is None:
        return _FAILED
    decade = _LOWEST if tap.greatest_absolute == 0 else math.ceil(math.log10(tap.greatest_absolute))
    return _SIGNS[min(max(decade - _LOWEST, 0), len(_SIGNS) - 1)]


def figure(value: float | None) -> str:
    """A difference with two digits, or a dash."""
    return "-" if value is None else f"{value:.1e}"


def figure_above(value: float | None) -> str:
    """A tolerance with two digits, rounded up, so that the printed one passes as well; or a dash."""
    if value is None or value == 0:
        return figure(value)
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    text = figure(math.ceil(value / step) * step)
    return text if float(text) >= value else figure((math.ceil(value / step) + 1) * step)


def remark(tap: TapComparison) -> str:
    """The remark on a comparison beside its figures: nothing if it passed."""
    if tap.problem is not None:
        return tap.problem
    sides = {"candidate": tap.not_finite_candidate, "reference": tap.not_finite_reference}
    found = [f"{count:,} not finite in the {side}" for side, count in sides.items() if count]
    return "; ".join(found) or ("" if tap.passed else "over tolerance")
