"""How long a test takes: a sample under `make test`, everything under `make torture`.

`python -m tests.torture` writes which pairs of towers went there and back with this code: benchmarks/results/pairs.json.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "out" / "torture"
SUMMARY = ROOT / "benchmarks" / "results" / "pairs.json"
FULL = os.environ.get("TORTURE") == "1"
# Fewer rounds of each than there are, for a run that has to end sooner.
_MOST = int(os.environ.get("ROUNDS", "0"))


def rounds(sample: int, full: int) -> int:
    """`full`, or what `ROUNDS` says where that is less, under `make torture`; otherwise `sample`."""
    if not FULL:
        return sample
    return min(full, _MOST) if _MOST else full


@functools.cache
def state_of_the_code() -> str:
    """A sum over the package and its rules: a result that was kept holds for this code and no other."""
    found = hashlib.sha256()
    for path in sorted(path for folder in ("converter", "rename_rules") for path in (ROOT / folder).rglob("*.[pt]*")):
        if path.suffix in (".py", ".toml"):
            found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def is_done(name: str, results: Path = RESULTS) -> bool:
    """Whether a run under `make torture` has passed this case with this very code: one that was interrupted goes on."""
    path = results / f"{name}.json"
    return FULL and path.is_file() and json.loads(path.read_text("utf-8")) == {"passed": state_of_the_code()}


def note_done(name: str, results: Path = RESULTS) -> None:
    """Keeps that a case has passed."""
    if FULL:
        results.mkdir(parents=True, exist_ok=True)
        (results / f"{name}.json").write_text(json.dumps({"passed": state_of_the_code()}), "utf-8")


def there_and_back(vision: str, text: str) -> str:
    """What the record of a pair is called that went to TensorFlow and back."""
    return f"there-and-back-{vision}+{text}"


def main() -> None:
    """Writes the summary; fails where a pair is missing."""
    from converter.names.rule_files import supported

    towers = {side: sorted(supported(side)) for side in ("vision", "text")}
    pairs = itertools.product(*towers.values())
    missing = [f"{vision}+{text}" for vision, text in pairs if not is_done(there_and_back(vision, text))]
    if missing:
        raise SystemExit(f"not converted there and back with this code: {' '.join(missing)}; run `make torture`")
    passed = len(towers["vision"]) * len(towers["text"])
    summary = {"code": state_of_the_code(), "there_and_back_bit_for_bit": passed, **towers}
    SUMMARY.write_text(json.dumps(summary, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    FULL = True
    main()
