"""``python -m tests.fuzz NAME --seconds N --corpus DIR``: feeds one reader with atheris, from the seeds and a corpus.

The fuzzer runs in a process of its own, as what it looks for may end it; that process is started again while there
is time. Status 1 where anything was found; what was found lies in ``<corpus>/found``.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("safetensors", "archive", "hdf5", "index", "config", "manifest", "golden")
_PROGRESS = re.compile(r"#(\d+)\s.*?cov: (\d+) ft: (\d+)(?: corp: (\d+))?")
_MOST_FOUND = 20
_MEMORY = Path("/dev/shm")  # files written and read a thousand times a second


def main() -> int:
    """Fuzzes one reader and prints a line of JSON with the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, required=True, help="a folder for what was interesting; kept and grown")
    options = parser.parse_args()
    corpus, found = options.corpus / "corpus", options.corpus / "found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    before, started = set(found.iterdir()), time.monotonic()
    executions, coverage, features, ends = 0, 0, 0, []
    while (left := int(options.seconds - (time.monotonic() - started))) > 0 and len(ends) < _MOST_FOUND:
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
            status, log = _run([options.name, folder], corpus, found, left)
        counts = [tuple(int(number or 0) for number in match) for match in _PROGRESS.findall(log)]
        executions += max((count[0] for count in counts), default=0)
        coverage = max([coverage, *(count[1] for count in counts)])
        features = max([features, *(count[2] for count in counts)])
        if status == 0:
            break
        ends.append(log[-3000:])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    new = sorted(path.name for path in set(found.iterdir()) - before)
    figures = {
        "reader": options.name, "seconds": round(time.monotonic() - started), "executions": executions,
        "cpu_seconds": round(used.ru_utime + used.ru_stime), "edges": coverage, "features": features,
        "corpus": len(list(corpus.iterdir())), "found": new,
    }  # fmt: skip
    for end in ends:
        print(end, file=sys.stderr)
    print(json.dumps(figures))
    return 1 if ends else 0


def _run(arguments: list[str], corpus: Path, found: Path, seconds: int) -> tuple[int, str]:
    command = [
        sys.executable, "-m", "tests.fuzz.fuzzer", *arguments, f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=1500",
        "-max_len=100000", "-len_control=0", "-print_final_stats=1", "-reload=0", f"-artifact_prefix={found}/", str(corpus),
    ]  # fmt: skip
    log = corpus.parent / "log.txt"
    with log.open("wb") as out:
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    return status, log.read_text("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())
