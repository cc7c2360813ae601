"""Writes what README and docs show of the rules and of the measurements: `python docs/make_tables.py`.

docs/supported.md has the tables of `convert towers --markdown`. README.md has the number of families and towers, and
the figures of benchmarks/results. docs/benchmarks.md has those of conversions.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # where the script is started by its path

from converter import towers  # noqa: E402
from converter.names.rule_files import supported  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PAIR = "8 images, 8 texts of 32 tokens"


def between(text: str, name: str, body: str) -> str:
    """The text with a body between the two marks of a name."""
    pattern = re.compile(rf"(<!-- begin {name}: [^\n]* -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise LookupError(f"no marks of {name}")
    return pattern.sub(lambda found: f"{found[1]}\n{body}\n\n{found[2]}", text, count=1)


def figures() -> str:
    """README's table of figures, from the files of benchmarks/results."""
    ours, theirs, verify = (
        {case["name"]: case for case in _read(name)["cases"]}
        for name in ("convert-clip-italian", "convert-clip-italian-transformers", "verify-clip-italian")
    )
    models = _read("models-clip-italian")
    loads = {one["kind"]: one for one in models["loading"] if one["source"] == "tf"}
    passes = {(one["kind"], one["mode"]): one for one in models["passes"] if one["case"] == PAIR}
    rows = [
        ("PyTorch to TensorFlow", _cost(ours["pt2tf"]), _cost(theirs["transformers 4.57.6 from_pt"])),
        ("Flax to PyTorch", _cost(ours["flax2pt"]), _cost(theirs["transformers 4.50.3 from_flax"])),
        ("load the TensorFlow model", _seconds(loads["ours"]), _seconds(loads["peer"])),
        (f"run it: {PAIR}", _seconds(passes["ours", "tf.function"]), _seconds(passes["peer", "tf.function"])),
        (
            "verify: here all layers, there logits of a batch",
            _seconds(verify["convert verify"]),
            _seconds(verify["transformers 4.57.6, logits of one batch"]),
        ),
    ]
    lines = ["| what | here | transformers 4.57, from Flax 4.50 |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def readme(text: str) -> str:
    """README.md as it has to be now."""
    found = towers()
    counts = {
        r"\d+ families": f"{len(found.models)} families",
        r"\d+ image towers and \d+ text towers": (
            f"{len(supported('vision'))} image towers and {len(supported('text'))} text towers"
        ),
    }
    for pattern, said in counts.items():
        text, times = re.subn(pattern, said, text)
        if times != 1:
            raise LookupError(f"README.md says {pattern} {times} times")
    return between(text, "figures", figures())


def supported_page(text: str) -> str:
    """docs/supported.md as it has to be now."""
    return between(text, "towers", towers().to_markdown())


def benchmarks_page(text: str) -> str:
    """docs/benchmarks.md as it has to be now."""
    report = _read("convert-clip-italian")
    ours = {case["name"]: case for case in report["cases"]}
    theirs = {case["name"]: case for case in _read("convert-clip-italian-transformers")["cases"]}
    lines = ["| what | seconds (fastest to slowest) | x `cp` of the same bytes | peak memory |", "|---|---|---|---|"]
    lines += [_row(shown, ours[name]) for name, shown in _CONVERSIONS.items()]
    cp = ours["cp pt"]["median_s"]
    for name, shown in (
        ("unchecked_s", "limit of this machine, without the check"),
        ("checked_s", "limit of this machine"),
    ):
        seconds = report["limit"][name]
        lines.append(f"| {shown} | {seconds:.2f} | {seconds / cp:.1f} | |")
    lines += [_row(shown, theirs[name]) for name, shown in _PEERS.items()]
    steps = [(one["step"], one["cpu_s"], one["of_the_check"]) for one in report["limit"]["steps"]]
    start = report["limit"]["rates"]["start"]
    lines += [
        "",
        "The limit in seconds of a core:",
        "",
        "| step | without the check | the check adds |",
        "|---|---|---|",
    ]
    lines.append(f"| start | {start:.2f} | |")
    lines += [f"| {step} | | {s:.2f} |" if check else f"| {step} | {s:.2f} | |" for step, s, check in steps]
    return between(between(text, "conversions", "\n".join(lines)), "fleets", fleets())


def fleets() -> str:
    """The table of fleets: what they cost beyond the conversions themselves."""
    report = _read("fleets")
    tiny, large, driver = report["tiny"], report["large"], report["driver"]
    lines = ["| what | here | on Ray | `cp` |", "|---|---|---|---|"]
    beyond = " | ".join(f"{tiny[place]['overhead_s'] * 1000:.1f} ms" for place in ("local", "ray"))
    lines.append(f"| each of {tiny['checkpoints']:,} small checkpoints, beyond `pt2tf` alone | {beyond} | |")
    moved = " | ".join(f"{large[place]['bytes_per_s'] / 1e9:.2f} GB/s" for place in ("local", "ray", "cp"))
    of_which = f"{large['checkpoints']} checkpoints of {large['bytes_each'] / 1e6:.0f} MB"
    lines.append(f"| {of_which}, {report['workers']} at a time | {moved} |")
    lines += [
        f"| memory of the driver with a list of {int(count):,} | {case['peak_mb']:.0f} MB | | |"
        for count, case in driver.items()
    ]
    return "\n".join(lines)


_CONVERSIONS = {
    "cp pt": "`cp`",
    "pt2tf --no-check": "`pt2tf --no-check`",
    "pt2tf": "`pt2tf`",
    "tf2pt --no-check": "`tf2pt --no-check`",
    "tf2pt": "`tf2pt`",
    "flax2tf": "`to tf` from Flax",
    "flax2pt": "`to pt` from Flax",
    "pt2flax": "`to flax` from PyTorch",
}
_PEERS = {
    "transformers 4.57.6 from_pt": "transformers 4.57.6, PyTorch to TensorFlow",
    "transformers 4.50.3 from_flax": "transformers 4.50.3, Flax to PyTorch",
}


def _row(shown: str, case: dict[str, Any]) -> str:
    times = "" if case["times_cp"] is None else f"{case['times_cp']:.1f}"
    span = f"{case['fastest_s']:.2f} to {case['slowest_s']:.2f}"
    memory = f"{case['peak_mb']:,.0f} MB" if case["times_cp"] is not None else ""
    return f"| {shown} | {case['median_s']:.2f} ({span}) | {times} | {memory} |"


PAGES: dict[str, Callable[[str], str]] = {
    "README.md": readme,
    "docs/supported.md": supported_page,
    "docs/benchmarks.md": benchmarks_page,
}


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def _seconds(case: dict[str, Any]) -> str:
    return f"{case['median_s']:.3g} s"


def _cost(case: dict[str, Any]) -> str:
    return f"{_seconds(case)}, {case['peak_mb']:,.0f} MB"


if __name__ == "__main__":
    for name, made in PAGES.items():
        path = ROOT / name
        path.write_text(made(path.read_text("utf-8")), "utf-8")
        sys.stdout.write(f"{path}\n")
