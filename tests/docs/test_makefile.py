"""Makefile and scripts ask for nothing that macOS and the BSDs lack: GNU make 3.81, bash 3.2, their own sed, date and grep."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.docs.pages import ROOT

SCRIPTS = ["Makefile", ".ci/run", "examples/ci/parity.sh"]
GNU = {
    "tools that only Linux has": r"\b(nproc|tac|timeout|realpath|shuf|flock|free|ldd|getent)\b",
    "options of GNU tools": (
        r"\b(sed (-\w*[ir]|--)|readlink -f|date (-d|--)|grep -\w*P|stat -c|sort -V|xargs -\w*[rd]|cp (-a|--)|du -\w*b"
        r"|mktemp --|head -n -|echo -e|find \S+ .*-printf)"
    ),
    "escapes that only GNU sed knows": r"sed .*s/.*\\[tn+?|]",
    "make 4": r"(^\.ONESHELL|\$\(file |\$\(intcmp |\$\(let |&:(?!=)|::=|^\w+ *!= |^\S+: *(export|private) )",
    "--output-sync where it may be unknown": r"\bmake (?!--help).*--output-sync",
    "bash 4": r"(\bmapfile\b|\breadarray\b|declare -A|&>>|\|&|\$\{\w+(,,|\^\^)|;;&|\bcoproc\b)",
}


def asked_for(text: str) -> list[str]:
    """What a script asks for that is not everywhere; comments ask for nothing."""
    lines = [re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines()]
    return [kind for kind, pattern in GNU.items() if any(re.search(pattern, line) for line in lines)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_everything_asked_for_is_everywhere(name: str) -> None:
    assert asked_for((ROOT / name).read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("make -j$(nproc)", "tools that only Linux has"),
        ("sed -i s/a/b/ x", "options of GNU tools"),
        ("cd $(readlink -f x)", "options of GNU tools"),
        ("date -d yesterday", "options of GNU tools"),
        ("\t@sed 's/a/\\tb/' x", "escapes that only GNU sed knows"),
        (".ONESHELL:", "make 4"),
        ("a b &: c", "make 4"),
        ("torture: export TORTURE := 1", "make 4"),
        ("exec make -j2 --output-sync=target lint", "--output-sync where it may be unknown"),
        ("declare -A x", "bash 4"),
        ("echo ${x,,}", "bash 4"),
    ],
)
def test_what_is_not_everywhere_is_found(line: str, kind: str) -> None:
    assert asked_for(f"true\n{line}\n") == [kind]


def made_by(*words: str) -> str:
    """What make prints; not as a part of the make that may run these tests, which would say so and pass its options on."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *words], cwd=ROOT, env=alone, capture_output=True, text=True, check=True).stdout


def test_help_names_every_target_that_says_what_it_does() -> None:
    said = [line for line in made_by("help").splitlines() if line]
    text = (ROOT / "Makefile").read_text("utf-8")
    described = re.findall(r"^([a-z-]+):.*## (.*)$", text, re.MULTILINE)
    targets = [line for line in said if line.startswith("  ")]
    assert [(line.split()[1], line.split(maxsplit=2)[2]) for line in targets] == described
    assert max(map(len, said)) <= 120


def test_help_comes_in_groups() -> None:
    """A heading, then its targets: no heading is empty, and none has more than a glance takes in."""
    first, *groups = made_by("help").split("\n\n")
    assert first.split()[:2] == ["make", "help"]
    assert [group.splitlines()[0] for group in groups] == re.findall(
        r"^##@ (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE
    )
    assert len(groups) > 4
    assert all(2 <= len(group.strip().splitlines()) <= 7 for group in groups), groups


def test_the_demo_says_what_it_installs_and_takes_an_index() -> None:
    """The recipe as make would run it, in a clone where nothing is installed yet."""
    made = {}
    for words in ([], ["TORCH_INDEX=https://index.invalid/cpu"]):
        made[bool(words)] = made_by("-n", "--always-make", "demo", "PYTHON=python3", *words)
    for said in made.values():
        assert "GB to download" in said
        assert "--editable '.[demo]'" in said
        assert ".[dev]" not in said
        assert "-qq" not in said
    assert "--index-url" not in made[False]
    assert "--index-url https://index.invalid/cpu torch\n" in made[True]
