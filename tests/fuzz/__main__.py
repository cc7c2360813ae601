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

NAMES = (
    "safetensors", "archive", "hdf5", "bundle", "graph", "flax", "index", "modules", "config", "open_clip",
    "manifest", "golden", "onnx",
)  # fmt: skip
_PROGRESS = re.compile(r"#(\d+)\s.*?cov: (\d+) ft: (\d+)(?: corp: (\d+))?")
_MOST_FOUND = 20
_MEMORY = Path("/dev/shm")  # files written and read a thousand times a second


def main() -> int:
    """Fuzzes one reader and prints a line of JSON with the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="a folder for what was interesting; kept and grown")
    parser.add_argument("--replay", type=Path, help="reads this file only, as the converter does")
    options = parser.parse_args()
    if options.replay is not None:
        return _replay(options.name, options.replay)
    if options.corpus is None:
        parser.error("say where with --corpus")
    corpus, found = options.corpus / "corpus", options.corpus / "found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    before, started = set(found.iterdir()), time.monotonic()
    executions, coverage, features, survived, ends = 0, 0, 0, 0, []
    while (left := int(options.seconds - (time.monotonic() - started))) > 0 and len(ends) < _MOST_FOUND:
        held = set(found.iterdir())
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
            status, log = _run([options.name, folder], corpus, found, left)
        counts = [tuple(int(number or 0) for number in match) for match in _PROGRESS.findall(log)]
        executions += max((count[0] for count in counts), default=0)
        coverage = max([coverage, *(count[1] for count in counts)])
        features = max([features, *(count[2] for count in counts)])
        if status == 0:
            break
        new = set(found.iterdir()) - held
        if new and all(_is_survived(options.name, path) for path in new):
            survived += len(new)
        else:
            ends.append(log[-3000:])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    kept = sorted(path.name for path in set(found.iterdir()) - before)
    figures = {
        "reader": options.name, "seconds": round(time.monotonic() - started), "executions": executions,
        "cpu_seconds": round(used.ru_utime + used.ru_stime), "edges": coverage, "features": features,
        "corpus": len(list(corpus.iterdir())), "found": kept, "survived": survived,
    }  # fmt: skip
    for end in ends:
        print(end, file=sys.stderr)
    print(json.dumps(figures))
    return 1 if ends else 0


def _replay(name: str, file: Path) -> int:
    from tests.fuzz.readers import READERS, feed

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        READERS[name].prepare(Path(folder))
        print(feed(READERS[name], Path(folder), file.read_bytes()) or "read")
    return 0


def _is_survived(name: str, file: Path) -> bool:
    """Whether the converter itself reads or refuses what ended the fuzzer; kept then under another name."""
    command = [sys.executable, "-m", "tests.fuzz", name, "--replay", str(file)]
    survived = subprocess.run(command, check=False, capture_output=True, timeout=120).returncode == 0
    if survived:
        (file.parent.parent / "survived").mkdir(exist_ok=True)
        file.rename(file.parent.parent / "survived" / file.name)
    return survived


def _run(arguments: list[str], corpus: Path, found: Path, seconds: int) -> tuple[int, str]:
    timeout = 5 if arguments[0] == "hdf5" else 20
    command = [
        sys.executable, "-m", "tests.fuzz.fuzzer", *arguments, f"-max_total_time={seconds}", f"-timeout={timeout}",
        "-report_slow_units=60", "-rss_limit_mb=1500", "-max_len=100000", "-len_control=0", "-print_final_stats=1",
        "-reload=0", f"-artifact_prefix={found}/", str(corpus),
    ]  # fmt: skip
    log = corpus.parent / "log.txt"
    with log.open("wb") as out:
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    return status, log.read_text("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())
