"""Fleets on Ray: one of this machine from end to end, and what is refused before there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from converter import fleet, fleet_status
from converter.errors import OptionError, WorkerError
from converter.fleets import driving
from converter.fleets.holding import Held
from converter.fleets.on_node import carry_out_on_node
from converter.folder.manifest import VERSION
from tests.cli.conftest import Convert
from tests.fleets.conftest import ENVIRONMENT
from tests.fleets.test_fleet import attempts, corrupt, states

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray (extra `fleet`)")


@pytest.fixture
def session() -> Iterator[dict[str, str]]:
    """What Ray has to be told so that it leaves nothing behind."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    yield {**os.environ, **ENVIRONMENT, "RAY_TMPDIR": folder}
    shutil.rmtree(folder, ignore_errors=True)


@needs_ray
def test_a_fleet_on_ray(models: Path, session: dict[str, str]) -> None:
    """Good and bad ones, one that takes too much memory, and the next run, which has one left to do."""
    corrupt(models / "b")
    out = Path("out")
    command = [sys.executable, "-m", "converter", "fleet", "models", "out", "--ray", "local", "--verify", "weights"]
    shutil.copytree(models / "a", models / "bomb")
    (models / "bomb" / "config.json").write_text("[" + "[]," * 2_700_000 + "[]]")
    first = subprocess.run([*command, "--memory", "150MB"], env=session, capture_output=True, text=True, check=False)
    found = fleet_status(out)
    assert first.returncode == 1, first.stderr
    assert first.stdout.startswith("4 checkpoints to tf: 2 failed, 2 done\n")
    assert states(found) == {"b": "failed", "bomb": "failed", "a": "done", "org--c": "done"}
    assert found.tasks[1].error == "took more than 150,000,000 bytes of memory, so it was stopped; raise --memory"
    assert all(task.verdict == "passed" and task.worker >= 1 for task in found.tasks[2:])
    assert not list(out.glob(".*"))
    # Another run goes on where that ended, with Ray or without.
    assert states(fleet(models, out)) == {
        "b": "failed before", "bomb": "failed before", "a": "done before", "org--c": "done before",
    }  # fmt: skip
    assert sorted(attempts(out)) == ["a", "b", "bomb", "org--c"]


def test_what_is_refused(models: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before OUTDIR is made."""
    with pytest.raises(OptionError, match="ray is 'ray://head:10001'; give auto, local or HOST:PORT"):
        fleet(models, "out", ray="ray://head:10001")
    monkeypatch.setitem(sys.modules, "ray", None)
    run = convert("fleet", "models", "out", "--ray", "auto")
    assert (run.status, run.err) == (
        2, "convert: --ray needs Ray; install it with `pip install 'dual-encoder-converter[fleet]'`\n",
    )  # fmt: skip
    with pytest.raises(WorkerError, match="--ray needs Ray"):
        fleet(models, "out", ray="local", workers=999)
    assert not Path("out").exists()


def test_what_ray_prints_is_no_result(models: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says to standard output that it has lost a node."""

    def prints(*_: object, **__: object) -> object:
        sys.stdout.write("(raylet) a node is dead\n")
        return fleet(models, "out", verify="none")

    monkeypatch.setattr(driving, "fleet", prints)
    run = convert("fleet", "models", "out", "--json")
    assert run.out.startswith("{")
    assert run.err == "(raylet) a node is dead\n"


def test_a_node_that_cannot_work_for_the_run(models: Path) -> None:
    """Another version, or another folder by the name of OUTDIR: it takes no task, so that none is noted as failed."""
    out = Path("out").absolute()
    out.mkdir()
    asked = {"do": "convert", "source": str(models / "a"), "hub": False, "revision": None, "out": str(out / "a"), "to": "tf",
             "options": {}, "verify": "none", "report": "", "report_name": "", "known": None, "again": False}  # fmt: skip
    with Held(out) as held:
        for owner, version, said in (
            ("another", VERSION, "out: a node of the Ray cluster does not see this folder; choose one on"),
            (
                held.owner,
                "0.0",
                f"a node of the Ray cluster has version {VERSION} of this package, the run 0.0; install",
            ),
        ):
            found = carry_out_on_node(asked, 60, 8 * 10**9, owner, version)
            assert list(found) == ["refused"]
            assert said in found["refused"]
        assert not (out / "a").exists()
        found = carry_out_on_node(asked, 60, 8 * 10**9, held.owner, VERSION)
        again = carry_out_on_node(asked, 60, 8 * 10**9, held.owner, VERSION)
    assert (found["answer"]["state"], found["reason"], found["process"]) == ("done", "", again["process"])
    from converter.fleets import on_node

    on_node._kept(60, 8 * 10**9).close()
    on_node._kept.cache_clear()


def test_an_out_that_appears_meanwhile(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray starts a task again whose node it has lost; the node may be there, and end the task a moment before."""
    from converter.conversion.anywhere import convert as real
    from converter.fleets import carrying_out

    def late(*arguments: object, **options: object) -> object:
        real(*arguments, **options)  # type: ignore[arg-type]
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(carrying_out, "convert", late)
    asked = {"do": "convert", "source": str(models / "a"), "hub": False, "revision": None, "out": "out/a", "to": "tf",
             "options": {}, "verify": "none", "report": "", "report_name": "", "known": None, "again": False}  # fmt: skip
    found = carrying_out.carry_out(asked)
    assert (found["state"], found["manifest"] != "", set(found["hashes"]) > {"tf_model.h5"}) == ("done", True, True)
