"""Every snippet stands below an install line that is one of the package's; `make installs` runs them, CI those of the core."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.docs.pages import ROOT
from tests.installs import CORE, EXAMPLES, NOT_RUN, PAGES, commands, run_all, snippets, to_run

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
OF_FRAMEWORKS = (
    r"^\s*(?:import|from) (keras|tensorflow|torch|transformers|PIL)\b|(state_dict)\(|\b(TF\w+|AutoTwoTower)\b"
)


def test_every_snippet_has_an_install_line() -> None:
    for snippet in to_run():
        line = re.fullmatch(r"pip install (?:\.|'\.\[([a-z,]+)\]')", snippet.install)
        assert line, snippet
        assert line[1] is None or set(line[1].split(",")) <= set(EXTRAS), snippet


# A requirement by the package's name alone asks an index for it, and it is in none: a clone, a wheel or an address works.
FROM_AN_INDEX = re.compile(r"(?<![\w/.@+-])dual[-_]encoder[-_]converter(?:\[[\w,$]+\])?(?!\s*@)(?![\w/.\[-])")
INSTALLING = re.compile(r"pip3? install|\b(?:CONVERTER|PACKAGE|package)\b\s*[:=]")


def from_an_index(text: str) -> list[str]:
    """Lines that install the package from an index."""
    return [line for line in text.splitlines() if INSTALLING.search(line) and FROM_AN_INDEX.search(line)]


def test_no_install_line_asks_an_index() -> None:
    shown = [
        *PAGES,
        *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "action.yml", ".pre-commit-config.yaml")),
    ]
    shown += [path for folder in ("examples", ".github") for path in (ROOT / folder).rglob("*.*") if path.is_file()]
    assert {str(path): lines for path in shown if (lines := from_an_index(path.read_text("utf-8")))} == {}
    assert sum(bool(INSTALLING.search(path.read_text("utf-8"))) for path in shown) > 10


@pytest.mark.parametrize(
    ("line", "works"),
    [
        ("pip install .", True),
        ("pip install '.[tf,torch]'", True),
        ('pip install "$(ls dist/*.whl)[tf]"', True),
        ("pip install dist/dual_encoder_converter-0.2.0-py3-none-any.whl", True),
        ("pip install 'git+https://github.com/dual-encoder-converter/dual-encoder-converter'", True),
        ("pip install 'dual-encoder-converter[tf] @ git+https://github.com/a/b'", True),
        ("pip install dual-encoder-converter", False),
        ('- run: pip install "dual-encoder-converter[tf]"', False),
        ("pip install dual_encoder_converter==0.2.0", False),
        ('CONVERTER: "dual-encoder-converter[tf]" # or a wheel', False),
    ],
)
def test_what_an_index_is_asked_for_is_found(line: str, works: bool) -> None:
    assert (from_an_index(line) == []) is works


def test_what_is_not_run_is_there() -> None:
    there = {(one.page, one.language) for page in PAGES for one in snippets(page)}
    assert set(NOT_RUN) - there <= {("docs/families.md", "console")}


def test_the_core_is_installed_where_no_framework_is_needed() -> None:
    """And a framework where one is: a snippet that imports one fails after the install line of the core."""
    python = [one for one in to_run() if one.language == "python"]
    assert {one.install for one in python if re.search(OF_FRAMEWORKS, one.text, re.MULTILINE)} == {
        "pip install '.[tf]'", "pip install '.[tf,torch]'",
    }  # fmt: skip
    core = [one for one in to_run() if one.install == CORE]
    assert {one.page for one in core} == {
        f"docs/{name}.md" for name in ("fleets", "from-flax", "quickstart", "scripting", "to-pytorch")
    } | {"README.md"}
    assert not any(re.search(OF_FRAMEWORKS, one.text, re.MULTILINE) for one in core if one.language == "python")


def test_the_quickstart_says_what_each_example_needs() -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text("utf-8")
    said = dict(re.findall(r"^\| `examples/(\S+)` \| .* \| `([a-z,]+)` \|$", text, re.MULTILINE))
    assert {command.split()[0]: ",".join(extras) for command, extras in EXAMPLES.items()}.items() <= said.items()


def test_each_example_names_its_install_line() -> None:
    needed = {command.split()[0]: extras for command, extras in EXAMPLES.items()} | {"hub_upload.py": ("tf", "torch")}
    for path in (ROOT / "examples").glob("*.py"):
        lines = re.findall(r"^Install: `(.*?)`", path.read_text("utf-8"), re.MULTILINE)
        assert lines == [f"pip install '.[{','.join(needed[path.name])}]'"], path.name


def test_commands_are_those_after_a_prompt() -> None:
    text = "$ convert a \\\n    b\nsaid\n$ git add x\n$ sh c\n"
    assert list(commands([text])) == [("convert a      b", 0), ("sh c", 0)]
    assert list(commands(['$ convert a\n{"exit_status": 1}\n'])) == [("convert a", 1)]


def test_a_snippet_that_fails_is_told(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner is run: with an interpreter that is there already, and a page that is wrong."""
    import sys
    from pathlib import Path

    from tests import installs

    class Here:
        folder = tmp_path

        def python_of(self, install: str) -> Path:
            return Path(sys.executable)

    monkeypatch.setattr(installs, "_place", lambda folder, python: folder.mkdir() or folder)
    right = installs.Snippet("a.md", CORE, "python", "x = 1\n")
    monkeypatch.setattr(
        installs, "to_run", lambda: [right, installs.Snippet("a.md", CORE, "python", "assert x == 1\n")]
    )
    assert run_all(Here()) == [f"a.md: 2 of python after {CORE}"]  # type: ignore[arg-type]
    monkeypatch.setattr(
        installs, "to_run", lambda: [installs.Snippet("b.md", CORE, "python", "import nothing_of_that_name")]
    )
    with pytest.raises(AssertionError, match="nothing_of_that_name"):
        run_all(Here())  # type: ignore[arg-type]
