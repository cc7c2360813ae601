"""Everything that a GPU is needed for, in one command: parity of every tower, `convert verify`, `convert reference`, speed.

    python benchmarks/gpu.py --out results/
    python benchmarks/gpu.py --out /tmp/found --device cpu --small

Writes `gpu-<card>.json` after every step, and `golden.tar`: a checkpoint and what PyTorch computed of it on the GPU, which is
to be verified on a CPU afterwards. A step that fails or runs out of its time leaves the others alone. Needs torch,
transformers, keras and JAX, no TensorFlow; `--budget` seconds in all, whole steps are left out beyond it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "keras", "jax", "jaxlib", "numpy", "safetensors")
FIXTURE = ROOT / "fixtures" / "clip-bert-tiny"


def describe(device: str) -> dict[str, Any]:
    """The card, the driver and the versions."""
    found: dict[str, Any] = {"python": platform.python_version(), "cpus": os.cpu_count(), "device": device}
    found |= {name: metadata.version(name) for name in PACKAGES}
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        told = subprocess.run(query, stdout=subprocess.PIPE, text=True, check=True).stdout
        found |= dict(zip(("card", "driver", "memory"), map(str.strip, told.splitlines()[0].split(",")), strict=True))
    return found


class Steps:
    """Runs commands and records the result of each in the results' file at once."""

    def __init__(self, out: Path, scratch: Path, asked: argparse.Namespace) -> None:
        """Parses where to write, where to work, and which parts to run."""
        self.asked, self.scratch = asked, scratch
        self.end = time.perf_counter() + asked.budget
        self.report: dict[str, Any] = {"machine": describe(asked.device)}
        card = re.sub(r"[^a-z0-9]+", "-", str(self.report["machine"].get("card", "cpu")).lower()).strip("-")
        self.path, self.golden = out / f"gpu-{card}.json", out / "golden.tar"
        self._lock = threading.Lock()

    def keep(self, name: str, found: Any) -> None:
        """Adds a result and writes the file."""
        with self._lock:
            self.report[name] = found
            fresh = self.path.with_suffix(".part")
            fresh.write_text(json.dumps(self.report, indent=1) + "\n", "utf-8")
            fresh.replace(self.path)

    def run(self, *command: str, seconds: float, quiet: bool = False) -> tuple[int, str]:
        """Exit status and standard output of a Python program, which ends with its time at the latest."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "KERAS_BACKEND": "jax"}
        seconds = min(seconds, self.end - time.perf_counter())
        if seconds <= 5:
            return 124, ""
        try:
            found = subprocess.run(
                [sys.executable, *command], env=environment, cwd=self.scratch, timeout=seconds, text=True, capture_output=True
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            print(f"{command[0]} {command[1]}: not done within {seconds:.0f} s", flush=True)
            return 124, ""
        if not quiet:
            print(found.stdout, flush=True)
        if found.returncode:
            print(f"{' '.join(command)}: status {found.returncode}\n{found.stderr[-1500:]}", flush=True)
        return found.returncode, found.stdout

    def parity(self) -> None:
        """Every tower and family, tiny, and one pair of clip-italian's size, layer by layer."""
        file, asked = self.scratch / "parity.json", self.asked
        share = asked.budget * (0.4 if "speed" in asked.steps else 0.75)
        size = ["--no-large", "--pairs", "clip_vision_model+bert", "siglip2"] if asked.small else []
        command = [str(ROOT / "benchmarks" / "gpu_parity.py"), "--device", asked.device, "--json", str(file), *size]
        self.run(*command, "--budget", str(share), "--jobs", str(asked.jobs), seconds=share + 60)
        self.keep("parity", json.loads(file.read_text("utf-8")) if file.exists() else None)

    def verify(self, name: str, source: Path) -> None:
        """`convert verify --device cuda` of a conversion to TensorFlow."""
        out = self.scratch / f"{name}-tf"
        self.run("-m", "converter", "pt2tf", str(source), str(out), "--quiet", seconds=60)
        command = ("-m", "converter", "verify", str(out), "--device", self.asked.device, "--backend", "jax", "--json")
        started = time.perf_counter()
        status, told = self.run(*command, seconds=150, quiet=True)
        found = json.loads(told) if told.startswith("{") else {}
        report = found.get("report") or {}
        kept: dict[str, Any] = {"status": status, "seconds": time.perf_counter() - started}
        kept |= {name: report.get(name) for name in ("passed", "verdict", "tolerance", "reference", "candidate")}
        kept["findings"] = [{k: v for k, v in one.items() if k != "against"} for one in found.get("findings", [])]
        print(f"verify {name}: status {status}, {kept['seconds']:.0f} s, {kept.get('verdict')}", flush=True)
        self.keep(f"verify {name}", kept)

    def reference(self) -> None:
        """`convert reference --device cuda`, its file kept with the checkpoint for a CPU to verify."""
        file = self.scratch / "golden.safetensors"
        command = ("-m", "converter", "reference", str(FIXTURE), "-o", str(file), "--device", self.asked.device)
        status, _ = self.run(*command, seconds=120)
        self.keep("reference", {"status": status, "bytes": file.stat().st_size if file.exists() else None})
        if file.exists():
            with tarfile.open(self.golden, "w") as archive:
                archive.add(file, file.name)

    def large(self) -> Path:
        """A checkpoint of clip-italian's size, or a tiny one."""
        size = ["--pairs", "clip_vision_model+bert"] if self.asked.small else ["--pairs", "--large"]
        self.run(str(ROOT / "benchmarks" / "pairs.py"), str(self.scratch / "models"), *size, seconds=90)
        return self.scratch / "models" / ("clip_vision_model+bert" if self.asked.small else "large")

    def speed(self, source: Path) -> None:
        """One forward pass of both towers, ours on JAX beside PyTorch."""
        file = self.scratch / "speed.json"
        left = self.end - time.perf_counter() - 10
        size = ["--batches", "1", "2", "--runs", "3"] if self.asked.small else []
        command = [str(ROOT / "benchmarks" / "gpu_speed.py"), str(source), "--device", self.asked.device, *size]
        self.run(*command, "--json", str(file), "--budget", str(max(30.0, left - 40)), seconds=left)
        self.keep("speed", json.loads(file.read_text("utf-8")) if file.exists() else None)


def guarded(step: Callable[[], Any], name: str) -> None:
    """Runs a step; what goes wrong in it is printed."""
    try:
        step()
    except Exception as error:  # the others go on
        print(f"{name}: {type(error).__name__}: {error}", flush=True)


def main() -> int:
    """Runs every step and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--budget", type=float, default=450.0, help="seconds in all")
    parser.add_argument("--jobs", type=int, default=6, help="pairs that are compared side by side")
    parser.add_argument("--small", action="store_true", help="tiny models only, to see that it starts")
    parser.add_argument("--steps", nargs="*", default=["parity", "verify", "speed"])
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        steps = Steps(asked.out, Path(scratch), asked)
        print(json.dumps(steps.report["machine"]), flush=True)

        def checks() -> None:
            guarded(steps.reference, "reference")
            guarded(lambda: steps.verify("tiny", FIXTURE), "verify")
            guarded(lambda: steps.verify("large", source), "verify")

        source = steps.large()
        threads = [threading.Thread(target=checks)] if "verify" in asked.steps else []
        threads += [threading.Thread(target=guarded, args=(steps.parity, "parity"))] if "parity" in asked.steps else []
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if "speed" in asked.steps:
            guarded(lambda: steps.speed(source), "speed")
        print(f"written to {steps.path}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
