"""Times our model on JAX beside PyTorch, eager and compiled, on a GPU: one forward pass of both towers.

    python benchmarks/gpu_speed.py FOLDER --json speed.json
    python benchmarks/gpu_speed.py FOLDER --device cpu --batches 1 2 --runs 3

FOLDER is a PyTorch checkpoint (`benchmarks/pairs.py --large` makes one). Every framework and precision has its own
process; all load and compile at once, then the rounds take turns. Each answer's embeddings are compared with those of
PyTorch in float32 without TF32: the last columns say what a precision costs. The JSON file is written after every case.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_contender import MODES, PRECISIONS, TOKENS  # noqa: E402

NAMES = {"jax": "this package on JAX", "torch": "PyTorch"}
REFERENCE = ("torch", "float32", "eager")
ROUNDS = 11


class Contender:
    """A process that holds a model in one precision."""

    def __init__(self, kind: str, precision: str, folder: Path, device: str) -> None:
        """Starts it; it loads its model while the caller goes on."""
        self.kind, self.precision = kind, precision
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
        environment |= {"KERAS_BACKEND": "jax", "USE_TF": "0", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        environment |= {"HF_HUB_OFFLINE": "1"}
        command = [sys.executable, str(ROOT / "benchmarks" / "gpu_contender.py"), kind, precision, str(folder), device]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next answer; one that does not come is an error, too."""
        try:
            line = self._lines.get(timeout=max(0.1, seconds))
        except queue.Empty:
            return {"error": f"no answer within {seconds:.0f} s"}
        if not line:
            self.log.seek(0)
            return {"error": "the process ended: " + " ".join(self.log.read()[-300:].split())}
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, seconds: float, **asked: Any) -> dict[str, Any]:
        """Some runs of one case."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended: receive says how
        return self.receive(seconds)

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self.log.close()


def prepare(contender: Contender, batches: Sequence[int], folder: Path, end: float, done: Callable[..., None]) -> None:
    """Waits until a model is loaded, then runs every case once, which compiles it."""
    first = contender.receive(end - time.perf_counter())
    for mode in MODES[contender.kind]:
        for batch in batches:
            key = (contender.kind, contender.precision, mode, batch)
            if "error" in first:
                done(key, first, 0.0)
                continue
            keep = str(folder / ("-".join(map(str, key)) + ".npz"))
            started = time.perf_counter()
            left = end - started
            answer = (
                contender.ask(left, batch=batch, mode=mode, runs=2, keep=keep)
                if left > 0
                else {"error": "not begun in time"}
            )
            done(key, answer, time.perf_counter() - started)
            if "no answer" in answer.get("error", ""):
                first = answer  # what it says later would be taken for the answer to something else


def errors_of(folder: Path, key: tuple[Any, ...]) -> dict[str, float]:
    """How far the outputs are from PyTorch's in float32, and the least cosine between embeddings of both."""
    told = folder / ("-".join(map(str, (*REFERENCE, key[-1]))) + ".npz")
    own = folder / ("-".join(map(str, key)) + ".npz")
    if not (told.exists() and own.exists()):
        return {}
    with np.load(told) as one, np.load(own) as other:
        found = {f"{name}_abs": float(np.abs(one[name] - other[name]).max()) for name in one}
        for name in ("image_embeds", "text_embeds"):
            a, b = one[name].astype(np.float64), other[name].astype(np.float64)
            cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
            found[f"{name}_least_cosine"] = float(cosines.min())
    return found


def table(rows: Sequence[dict[str, Any]], batches: Sequence[int]) -> str:
    """Milliseconds as a Markdown table, times ours in the same precision in brackets, and the errors of the largest batch."""
    found = {(row["kind"], row["precision"], row["mode"], row["batch"]): row for row in rows}
    head = [f"{batch} image{'s' * (batch > 1)} and text{'s' * (batch > 1)}" for batch in batches]
    lines = [
        f"| milliseconds (times ours) | {' | '.join(head)} | embeddings off by | logits off by |",
        f"|---|{'---|' * (len(head) + 2)}",
    ]
    for kind, precision, mode in sorted(
        {(row["kind"], row["precision"], row["mode"]) for row in rows}, key=lambda k: (PRECISIONS.index(k[1]), k)
    ):
        cells = []
        for batch in batches:
            row, ours = found[kind, precision, mode, batch], found.get(("jax", precision, "jit", batch), {})
            median, own = row.get("median_s"), ours.get("median_s")
            ratio = f" ({median / own:.2f})" if median and own and kind != "jax" else ""
            cells.append("-" if not median else f"{median * 1e3:.3g}{ratio}")
        errors = [found[kind, precision, mode, batch].get("errors", {}) for batch in batches]
        embeds = max((max(e["image_embeds_abs"], e["text_embeds_abs"]) for e in errors if e), default=float("nan"))
        logits = max((e["logits_per_image_abs"] for e in errors if e), default=float("nan"))
        lines.append(f"| {NAMES[kind]}, {mode}, {precision} | {' | '.join(cells)} | {embeds:.1e} | {logits:.1e} |")
    return "\n".join(lines)


def main() -> int:
    """Times every case and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 64, 256, 1])
    parser.add_argument("--precisions", nargs="*", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--runs", type=int, default=ROUNDS, help="timed rounds of every case")
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds after which nothing more is compiled")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    asked = parser.parse_args()
    start = time.perf_counter()
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    lock = threading.Lock()

    def done(key: tuple[Any, ...], answer: dict[str, Any], seconds: float) -> None:
        kind, precision, mode, batch = key
        with lock:
            rows[key] = {"kind": kind, "precision": precision, "mode": mode, "batch": batch, "runs": [],
                         "first_s": seconds, "error": answer.get("error")}  # fmt: skip
            print(f"{' '.join(map(str, key)):<32} {answer.get('error') or f'first {seconds:.1f} s'}", flush=True)

    def write() -> None:
        if asked.json is not None:
            report = {"tokens": TOKENS, "device": asked.device, "seconds": time.perf_counter() - start,
                      "passes": list(rows.values())}  # fmt: skip
            asked.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")

    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        contenders = [Contender(kind, p, asked.folder, asked.device) for p in asked.precisions for kind in NAMES]
        for contender in contenders:
            stack.callback(contender.close)
        threads = [
            threading.Thread(
                target=prepare, args=(each, asked.batches, Path(temporary), start + asked.budget, done), daemon=True
            )
            for each in contenders
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for key, row in rows.items():
            row["errors"] = {} if row["error"] else errors_of(Path(temporary), key)
        write()
        for batch in asked.batches:
            for number in range(asked.runs + 1):
                for contender in contenders:
                    for mode in MODES[contender.kind]:
                        row = rows[contender.kind, contender.precision, mode, batch]
                        if row["error"]:
                            continue
                        answer = contender.ask(60.0, batch=batch, mode=mode, runs=3)
                        if "error" in answer:
                            row["error"] = answer["error"]
                        elif number:  # the first round wakes the device
                            row["runs"].append(statistics.median(answer["seconds"]))
            for row in rows.values():
                if row["batch"] == batch and row["runs"]:
                    row |= {"median_s": statistics.median(row["runs"]), "fastest_s": min(row["runs"]),
                            "slowest_s": max(row["runs"])}  # fmt: skip
            write()
    print(table(list(rows.values()), sorted(asked.batches)), flush=True)
    return 0 if all(not row["error"] for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
