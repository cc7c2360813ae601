"""What pip and a package index are told: the right packages on every system, links that lead somewhere, two programs."""

from __future__ import annotations

import re
import runpy
import tomllib
from importlib.metadata import entry_points

import pytest
from packaging.requirements import Requirement

from tests.docs.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "python_version": "3.12"}
SYSTEMS = {
    "Linux": LINUX,
    "Linux on ARM": LINUX | {"platform_machine": "aarch64"},
    "macOS": LINUX | {"sys_platform": "darwin", "platform_machine": "arm64"},
    "macOS on Intel": LINUX | {"sys_platform": "darwin"},
    "Windows": LINUX | {"sys_platform": "win32", "platform_machine": "AMD64"},
    "Python 3.14": LINUX | {"python_version": "3.14"},
}


def installed(extra: str, system: str) -> set[str]:
    """Names of what an extra brings on a system, those of the extras that it names included."""
    found: set[str] = set()
    for line in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate(SYSTEMS[system]):
            continue
        if requirement.name == PROJECT["name"]:
            found = found.union(*(installed(inner, system) for inner in requirement.extras))
        else:
            found.add(requirement.name)
    return found


@pytest.mark.parametrize(
    ("system", "tensorflow", "fuzzer"),
    [
        ("Linux", "tensorflow-cpu", True),
        ("Linux on ARM", "tensorflow", False),
        ("macOS", "tensorflow", False),
        ("macOS on Intel", "tensorflow", False),
        ("Windows", "tensorflow-cpu", False),
        ("Python 3.14", "tensorflow-cpu", False),
    ],
)
def test_every_system_gets_what_there_are_wheels_of(system: str, tensorflow: str, fuzzer: bool) -> None:
    demo, dev = installed("demo", system), installed("dev", system)
    assert demo & {"tensorflow", "tensorflow-cpu"} == {tensorflow}
    assert demo == {tensorflow, "keras", "torch", "transformers", "pillow"}
    assert ("atheris" in dev) is fuzzer
    assert demo < dev


def test_every_extra_that_runs_a_model_reads_pictures() -> None:
    for extra in ("tf", "torch", "jax"):
        assert "pillow" in installed(extra, "Linux")


def test_pins_are_of_what_is_asked_for() -> None:
    """A constraint that names nothing which is installed says nothing."""
    pinned = {
        Requirement(line).name for line in (ROOT / "constraints" / "dev.txt").read_text().splitlines() if line[0] != "#"
    }
    core = {Requirement(line).name for line in PROJECT["dependencies"]}
    asked = core.union(*(installed(extra, system) for extra in ("dev", "jax") for system in SYSTEMS))
    assert pinned - asked == {"jaxlib", "tokenizers"}  # of jax and transformers, whose results they change


def test_two_programs_are_one() -> None:
    assert PROJECT["scripts"] == dict.fromkeys(["convert", "dual-encoder-converter"], "converter.__main__:main")
    found = {entry.name for entry in entry_points(group="console_scripts") if entry.value == "converter.__main__:main"}
    assert "convert" in found


def test_what_an_index_shows_leads_somewhere() -> None:
    text = runpy.run_path(str(ROOT / "setup.py"))["long_description"]()
    source = PROJECT["urls"]["Source"]
    assert source.startswith("https://")
    assert all(url.startswith(f"{source}") for url in PROJECT["urls"].values())
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert f"{source}/blob/main/SECURITY.md" in {target.partition("#")[0] for target in targets}
    assert f"{source}/raw/main/docs/terminal.svg" in targets
    for target in targets:
        assert target.startswith(("https://", "#")), target
        if target.startswith(f"{source}/"):
            path = re.sub(r"^(blob|raw|tree)/main/", "", target.removeprefix(f"{source}/")).partition("#")[0]
            assert (ROOT / path).exists(), target
