"""The whole program with the environment that everybody sets: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, a proxy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.conftest import ID
from tests.hub.loopback import Hub, serving

ROOT = Path(__file__).resolve().parents[2]


def convert(home: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "converter", *map(str, arguments)],
        env={**kept, "PYTHONPATH": str(ROOT), "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def served(published: str, hub: Hub) -> Hub:
    """The Hub with the shipped checkpoint."""
    return hub


def test_daily_use(served: Hub, tmp_path: Path) -> None:
    done = convert(tmp_path / "home", "pt2tf", ID, tmp_path / "tf", HF_ENDPOINT=served.endpoint)
    commit = served.repositories[ID].refs["main"]
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{ID} (commit {commit[:12]}) -> {tmp_path / 'tf'}/tf_model.h5: matches its source")
    assert (tmp_path / "home" / "hub" / "models--org--clip-tiny" / "refs" / "main").read_text() == commit
    asked = len(served.requests)
    done = convert(tmp_path / "home", "pt2tf", ID, tmp_path / "again", HF_ENDPOINT=served.endpoint, HF_HUB_OFFLINE="1")
    assert (done.returncode, len(served.requests)) == (0, asked)
    assert (tmp_path / "again" / "tf_model.h5").read_bytes() == (tmp_path / "tf" / "tf_model.h5").read_bytes()


def test_quiet(served: Hub, tmp_path: Path) -> None:
    """Not even the warning that the cache is used; where the Hub is not to be asked there is none anyway."""
    for number, (options, environment, said) in enumerate([
        ([], {"HF_ENDPOINT": served.endpoint}, ""),
        ([], {"HF_ENDPOINT": "http://127.0.0.1:9"}, f"{ID}: cannot reach the Hub; using the cache\n"),
        (["--quiet"], {"HF_ENDPOINT": "http://127.0.0.1:9"}, ""),
        ([], {"HF_HUB_OFFLINE": "1"}, ""),
    ]):  # fmt: skip
        done = convert(tmp_path / "a home", "pt2tf", ID, tmp_path / f"{number}", *options, **environment)
        assert (done.returncode, done.stderr) == (0, said)


def test_a_proxy(served: Hub, tmp_path: Path) -> None:
    """Requests go to the proxy, which here is another Hub that holds nothing."""
    with serving() as proxy:
        done = convert(
            tmp_path / "home", "inspect", ID, HF_ENDPOINT="http://hub.invalid", http_proxy=proxy.endpoint, no_proxy=""
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert served.requests == []
    assert proxy.requests


def test_a_library_prints_nothing(served: Hub, tmp_path: Path) -> None:
    program = "import sys, converter; converter.pt2tf(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, ID, str(tmp_path / "out")],
        env={
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path), "HF_ENDPOINT": served.endpoint,
            "HF_HUB_DISABLE_XET": "1",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")
