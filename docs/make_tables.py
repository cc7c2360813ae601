"""Writes what README and docs show of the rules and of the measurements: `python docs/make_tables.py`.

docs/supported.md has the tables of `convert towers --markdown`. README.md has the number of families and towers, and
the figures of benchmarks/results.
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


PAGES: dict[str, Callable[[str], str]] = {"README.md": readme, "docs/supported.md": supported_page}


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
