"""Processes of their own: what a caller is told when one refuses, fails, crashes, hangs or is killed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from converter.errors import ParityError, WorkerError
from converter.parity.runners import candidate, reference
from converter.parity.runners.isolation import LOG_LINES, Worker
from converter.parity.runners.serving import serve

ROOT = Path(__file__).resolve().parents[2]
QUICK = 30.0


def start(**options: object) -> Worker:
    # the worker loads this package by its file and puts nothing on the path; the test module needs the path
    environment = {"PYTHONPATH": str(ROOT), "CASE": "given"}
    return Worker("Worker", "tests.parity.worker_cases", environment, **options)  # type: ignore[arg-type]


@pytest.fixture
def worker() -> Iterator[Worker]:
    with start() as started:
        yield started


def failure(worker: Worker, do: str, seconds: float = QUICK) -> str:
    with pytest.raises(ParityError) as caught:
        worker.ask({"do": do}, seconds)
    return str(caught.value)


def test_answers_come_one_after_the_other(worker: Worker) -> None:
    for value in ("one", "zwei\n", None):
        answer = worker.ask({"do": "echo", "value": value}, QUICK)
        assert answer["echo"] == value
        assert 0 <= answer["seconds"] < QUICK
        assert answer["peak_memory"] > 1_000_000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="about what Linux says of a process")
def test_the_peak_of_memory_is_not_the_callers() -> None:
    held = bytearray(b"1") * 600_000_000
    with start() as worker:
        assert worker.ask({"do": "echo", "value": len(held)}, QUICK)["peak_memory"] < 300_000_000


def test_two_workers_run_at_the_same_time() -> None:
    with start() as one, start() as other:
        for number, each in enumerate((one, other)):
            each.send({"do": "echo", "value": number})
        assert [each.receive(QUICK)["echo"] for each in (other, one)] == [1, 0]


def test_requests_and_answers_take_turns(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match="no request was sent"):
        worker.receive(QUICK)
    worker.send({"do": "echo", "value": 1})
    with pytest.raises(RuntimeError, match="a request is under way"):
        worker.send({"do": "echo", "value": 2})
    assert worker.receive(QUICK)["echo"] == 1


def test_what_it_prints_is_no_answer(worker: Worker) -> None:
    assert worker.ask({"do": "print"}, QUICK)["printed"]


def test_a_refusal_is_passed_on_and_the_worker_goes_on(worker: Worker) -> None:
    assert failure(worker, "refuse") == "Worker: the folder is empty; fill it"
    assert worker.ask({"do": "echo", "value": 1}, QUICK)["echo"] == 1


def test_a_bug_shows_its_traceback_and_the_worker_goes_on(worker: Worker) -> None:
    message = failure(worker, "bug")
    assert message.startswith("Worker: failed with KeyError: 'of the bug'\n  its log ends with:\n")
    assert "  | Traceback (most recent call last):\n" in message
    assert "worker_cases.py" in message
    assert worker.ask({"do": "echo", "value": 1}, QUICK)["echo"] == 1


@pytest.mark.parametrize(
    ("do", "said"), [("memory", "Unable to allocate 9 TiB"), ("device memory", "CUDA out of memory")]
)
def test_memory_that_runs_out_is_called_so(worker: Worker, do: str, said: str) -> None:
    message = failure(worker, do)
    assert message.startswith("Worker: ran out of memory: ")
    assert said in message


def test_a_crash_is_named_and_its_log_is_safe_to_print(worker: Worker) -> None:
    message = failure(worker, "segfault")
    assert message.startswith("Worker: crashed with SIGSEGV\n  its log ends with:\n")
    assert "  | about to crash\\x1b[31m\n" in message
    assert "Fatal Python error: Segmentation fault" in message
    assert "worker_cases.py" in message
    assert "\x1b" not in message
    again = failure(worker, "echo")
    assert again.startswith("Worker: crashed with SIGSEGV"), "a worker that is gone stays gone"


def test_why_it_aborted_is_shown_although_its_stack_is_long(worker: Worker) -> None:
    message = failure(worker, "abort")
    assert message.startswith("Worker: crashed with SIGABRT\n  its log has, where it crashed:\n")
    assert "  | terminate called after throwing an instance of 'std::bad_alloc'\n" in message
    assert len(message.splitlines()) == LOG_LINES + 2


def test_a_kill_is_called_what_it_mostly_is(worker: Worker) -> None:
    message = failure(worker, "kill")
    assert message == (
        "Worker: was killed (SIGKILL), probably because memory ran out; use a machine with more memory; "
        "its log is empty"
    )


def test_one_that_is_dismissed_is_gone(worker: Worker) -> None:
    worker.dismiss()
    assert "was killed" in failure(worker, "echo")
    worker.dismiss()  # a second time does no harm
    worker.close()


def test_an_exit_tells_its_status(worker: Worker) -> None:
    message = failure(worker, "exit")
    assert message == "Worker: ended with exit status 3 before it answered\n  its log ends with:\n  | giving up"


def test_a_hang_is_ended_in_time(worker: Worker) -> None:
    worker.ask({"do": "echo", "value": 1}, QUICK)
    begin = time.monotonic()
    message = failure(worker, "sleep", seconds=0.5)
    assert time.monotonic() - begin < 5
    assert message == (
        "Worker: no answer within 0.5 s, so it was stopped; raise --seconds if the model is large or the machine "
        "slow\n  its log ends with:\n  | sleeping"
    )
    assert failure(worker, "echo") == message, "it is not said to have been killed by the system"


def test_time_counts_from_when_a_request_was_sent(worker: Worker) -> None:
    worker.ask({"do": "echo", "value": 1}, QUICK)
    worker.send({"do": "sleep"})
    time.sleep(0.6)
    begin = time.monotonic()
    with pytest.raises(WorkerError, match=r"no answer within 0\.5 s"):
        worker.receive(0.5)
    assert time.monotonic() - begin < 0.4


@pytest.mark.parametrize(("do", "kind"), [("refuse", ParityError), ("bug", WorkerError), ("memory", WorkerError),
                                          ("exit", WorkerError)])  # fmt: skip
def test_only_a_refusal_leaves_it_to_be_asked_again(worker: Worker, do: str, kind: type[ParityError]) -> None:
    with pytest.raises(ParityError) as caught:
        worker.ask({"do": do}, QUICK)
    assert type(caught.value) is kind


def test_a_package_that_is_missing_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> Callable[[dict[str, Any]], dict[str, Any]]:
        raise ModuleNotFoundError("No module named 'torch'")

    reply = tmp_path / "reply.json"
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"reply": str(reply)}) + "\n"))
    serve(load, "install torch")
    assert json.loads(reply.read_text()) == {"missing": "cannot be started: No module named 'torch'; install torch"}
    assert "ModuleNotFoundError" in capsys.readouterr().err


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_nothing_stays_behind(tmp_path: Path) -> None:
    with start() as worker:
        pid = worker.ask({"do": "child"}, QUICK)["pid"]
        family = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and group_of(p) == pid]
        assert len(family) == 2
        folder = worker.log.parent
    time.sleep(0.1)
    assert not any(is_running(each) for each in family)
    assert not folder.exists()


KILLED = """
import json, sys
from tests.parity.test_isolation import start
worker = start()
worker.ask({"do": "echo", "value": 1}, 30)
worker.send({"do": "sleep"})
print(worker._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_it_ends_when_its_caller_is_killed() -> None:
    """In the middle of an answer, which may be a model that takes ever more memory, it would not see its input end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    caller = subprocess.Popen([sys.executable, "-c", KILLED], stdin=-1, stdout=-1, text=True, env=environment)
    with caller:
        assert caller.stdout is not None
        pid = int(caller.stdout.readline())
        assert is_running(pid)
        caller.kill()
    deadline = time.monotonic() + QUICK
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(pid)


def group_of(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[2])
    except OSError:
        return None


def test_a_log_can_be_kept(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with start(log=log) as worker:
        failure(worker, "exit")
    assert log.read_text() == "giving up\n"


def test_the_current_folder_is_not_on_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json.py", "numpy.py", "converter.py"):
        (tmp_path / name).write_text("raise SystemExit('code of a download ran')")
    monkeypatch.chdir(tmp_path)
    with start() as worker:
        answer = worker.ask({"do": "environment", "value": "CASE"}, QUICK)
    assert str(tmp_path) not in answer["path"]
    assert "" not in answer["path"]
    assert answer["folder"] not in (str(tmp_path), *answer["path"])
    assert answer["value"] == "given"


def test_an_interpreter_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError) as caught:
        start(python=tmp_path / "python")
    assert str(caught.value) == (
        f"Worker: cannot start {tmp_path / 'python'}: No such file or directory; expected a Python interpreter"
    )
    with start(python=Path("/bin/false")) as worker:
        assert "ended with exit status 1 before it answered" in failure(worker, "echo")


def test_an_interpreter_is_named_as_it_is_seen_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    with start(python=Path("environment/python")) as worker:
        assert worker.ask({"do": "environment", "value": "CASE"}, QUICK)["value"] == "given"
    with pytest.raises(ParityError, match=r"^Worker: cannot start no/python: No such file or directory"):
        start(python=Path("no/python"))


def test_the_rules_are_those_of_this_package(tmp_path: Path) -> None:
    """Whatever lies on the path under their name, and where nothing does."""
    (tmp_path / "rename_rules").mkdir()
    (tmp_path / "rename_rules" / "__init__.py").write_text("raise ImportError('of another package')")
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    with Worker("Worker", "tests.parity.worker_cases", environment) as started:
        assert started.ask({"do": "rules"}, QUICK)["folder"] == str(ROOT / "rename_rules")


def test_another_interpreter_runs_this_package_without_this_environment() -> None:
    base = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    if not base.exists() or sys.prefix == sys.base_prefix:
        pytest.skip("this interpreter is not in a virtual environment")
    with start(python=base) as worker:
        answer = worker.ask({"do": "environment", "value": "CASE"}, QUICK)
    assert not any(entry.startswith(sys.prefix + os.sep) for entry in answer["path"])


def said_by(program: str) -> str:
    """What a program prints in a process of its own, from which nothing is hidden yet."""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return run.stdout


def test_hidden_packages_are_not_there_and_others_are() -> None:
    program = (
        "from converter.parity.runners.serving import hide; import importlib.util, sys; hide('wave', 'xml');"
        "print([importlib.util.find_spec(name) is None for name in ('wave', 'xml', 'colorsys')])\n"
        "try:\n import xml.dom\nexcept ModuleNotFoundError as error:\n print(error)"
    )
    assert said_by(program).splitlines() == ["[True, True, False]", "No module named 'xml'"]


@pytest.mark.parametrize("cached", ["functools.lru_cache(maxsize=1)", ""])
def test_folders_of_models_are_looked_through_once(tmp_path: Path, cached: str) -> None:
    package = tmp_path / "transformers" / "utils"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    decorator = f"@{cached}" if cached else ""
    (package / "import_utils.py").write_text(
        f"import functools\n{decorator}\ndef create_import_structure_from_path(path):\n    print(path)\n"
    )
    program = (
        "from converter.parity.runners.serving import remember_models; remember_models()\n"
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from transformers.utils import import_utils\n"
        "for path in 'abab': import_utils.create_import_structure_from_path(path)"
    )
    assert said_by(program).split() == list("ab" if cached else "abab")


@pytest.mark.torch
def test_transformers_has_what_is_remembered() -> None:
    program = (
        "from converter.parity.runners.serving import remember_models; remember_models()\n"
        "from transformers import CLIPConfig\nfrom transformers.utils import import_utils\n"
        "print(import_utils.create_import_structure_from_path.cache_parameters()['maxsize'])"
    )
    assert said_by(program).strip() == "None"


@pytest.mark.parametrize(
    ("module", "backend", "expected"),
    [
        pytest.param("reference", "", ["torch"], marks=pytest.mark.torch),
        pytest.param("candidate", "tensorflow", ["keras", "tensorflow"], marks=[pytest.mark.tf, pytest.mark.torch]),
        pytest.param("candidate", "jax", ["jax", "keras"], marks=pytest.mark.jax),
    ],
)
def test_each_side_has_its_framework_only(module: str, backend: str, expected: list[str], tmp_path: Path) -> None:
    program = (
        f"import sys; from converter.parity.runners import {module} as side; side._load();"
        "print([name for name in ('flax', 'jax', 'keras', 'tensorflow', 'tf_keras', 'torch') if name in sys.modules])"
    )
    side = {"reference": reference, "candidate": candidate}[module]
    environment = {**os.environ, **side.ENVIRONMENT, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    # Keras writes its settings into a folder where the process starts, which is not to be this repository.
    environment["PYTHONPATH"] = str(ROOT)
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert run.stdout.splitlines()[-1] == str(expected)
