"""What every test shares: a quiet offline environment, the fixture folder, and skips for what is not installed."""

from __future__ import annotations

import os
import re
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from tests.sampling import changed_files, in_full, towers_of
from tests.towers import ROUND

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # one order of summation, the same on every machine

# A shell has SIGINT ignored by what it runs in the background, and so would everything that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are shared: an example that takes long says nothing of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
FRAMEWORK_FOLDER = Path(__file__).parent / "models"
NEEDS = {"tf": "tensorflow", "torch": "torch", "jax": "jax"}


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of shipped checkpoints, pictures and name tables."""
    return FIXTURES


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The shipped CLIP + BERT checkpoint with nested PyTorch names."""
    return FIXTURES / "clip-bert-tiny"


@pytest.fixture(scope="session")
def tiny_expected() -> Path:
    """What transformers 4.57.6 makes of it: `tf_model.h5`; and what PyTorch answers: `outputs.safetensors`."""
    return FIXTURES / "clip-bert-tiny-expected"


def pytest_report_header() -> str:
    """Which sample of pairs this run tries."""
    return f"pairs of towers: PAIRS_ROUND={ROUND} tries the same again"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out modules marked for a framework that `-m "not ..."` rules out, before they import it."""
    ruled_out = set(re.findall(r"not (\w+)", config.option.markexpr))
    if collection_path == FRAMEWORK_FOLDER and ruled_out >= {"torch", "tf", "jax"}:
        return True  # its conftest imports them all
    if not ruled_out or collection_path.suffix != ".py":
        return None
    marked = re.search(
        r"^pytestmark = (\[.*?\]|.*?)$", collection_path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return True if marked and ruled_out & set(re.findall(r"pytest\.mark\.(\w+)", marked[1])) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what needs something that is not there, and says what; leaves out what has its turn another day."""
    _leave_out(config, items)
    for item in items:
        for marker, package in NEEDS.items():
            if item.get_closest_marker(marker) and find_spec(package) is None:
                item.add_marker(pytest.mark.skip(reason=f"{package} is not installed (extra `{marker}`)"))
        if item.get_closest_marker("compat") and "COMPAT_PYTHON" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="COMPAT_PYTHON names no interpreter; `make compat` makes one"))


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Checks of towers that this run does not look at in full, where the test is marked `by_turns`."""
    marked = [item for item in items if item.get_closest_marker("by_turns")]
    full = in_full(changed_files()) if marked else frozenset()
    about = {id(item): towers_of(item.callspec.params) for item in marked if hasattr(item, "callspec")}
    left_out = [item for item in marked if about.get(id(item)) and not about[id(item)] & full]
    config.hook.pytest_deselected(items=left_out)
    gone = set(map(id, left_out))
    items[:] = [item for item in items if id(item) not in gone]
