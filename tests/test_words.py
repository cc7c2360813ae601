"""What a person reads is plain: short sentences, and no phrase that was replaced (`python -m tests.prose`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import prose
from tests.passages import passages

LONG = "word " * 30 + "word."


def found(path: Path, text: str, printed: bool = True) -> list[tuple[int, str]]:
    path.write_text(text, "utf-8")
    return [(line, fault.partition(":")[0]) for line, fault in prose.mistakes(path, prose.Phrases.read(), printed)]


def test_everything_that_is_read_is_plain() -> None:
    assert prose.report() == []


def test_enough_is_read() -> None:
    """Passages that are printed, of the package, and of every kind of file."""
    read = {path: list(passages(path, True)) for path in prose.files()}
    assert sum(one.printed for passages in read.values() for one in passages) > 1000
    for path in ("README.md", "docs/formats.md", "converter/errors.py", "Makefile", "rename_rules/towers/bert.toml"):
        assert any(words > 3 for one in read[prose.ROOT / path] for words in [prose.words(one.text)]), path


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("paragraph.md", "# Title\n\nShort one.\n@\n", 4),
        ("item.md", "- one\n- Short.\n  @\n", 3),
        ("docstring.py", '"""Short.\n\nArgs:\n    x: Short. @\n"""\n', 4),
        ("comment.py", "x = 1\n# Short.\n# @\n", 3),
        ("behind.py", "x = 1  # @\n", 1),
        ("message.py", 'x = 1\nraise E("@")\n', 2),
        ("pieces.py", 'x = 1\nraise E(f"{x}. Short. "\n    "@")\n', 2),
        ("help.mk", "all: one ## @\n", 1),
        ("rules.toml", "# Short.\n# @\nx = 1\n", 2),
    ],
)
def test_a_long_sentence_is_found_where_it_stands(name: str, text: str, line: int, tmp_path: Path) -> None:
    """And one of as many words as there may be is not."""
    faults = found(tmp_path / name, text.replace("@", LONG))
    assert [place for place, fault in faults if "words in a sentence" in fault] == [line]
    faults = found(tmp_path / name, text.replace("@", LONG.removeprefix("word ")))
    assert [fault for _, fault in faults if "words in a sentence" in fault] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("table.md", f"| a | b |\n|---|---|\n| c | {LONG} |\n"),
        ("code.md", f"```text\n{LONG}\n```\n"),
        ("code.py", f'"""Short.\n\n    {LONG}\n\nShort.\n"""\n'),
        ("span.md", f"One `{LONG}` and [a link](x y z).\n"),
        ("sentences.md", "Ten words are here, and they are not too many. " * 4 + "\n"),
        ("indented.md", f"Run:\n\n    {LONG}\n"),
        ("ellipsis.md", "ALBERT, ERNIE ... are text towers, e.g. of clip-italian.\n"),
    ],
)
def test_what_is_no_prose_is_left_alone(name: str, text: str, tmp_path: Path) -> None:
    assert [fault for _, fault in found(tmp_path / name, text) if "words" in fault] == []


def test_replaced_phrases_are_found(tmp_path: Path) -> None:
    """In an f-string of several pieces, and in what --help prints; not in a docstring, which nobody is shown."""
    module = tmp_path / "module.py"
    text = '"""A tower leaves tolerance."""\nx = 1\nraise E(f"{x}: leaves "\n        f"tolerance at {x}")\n'
    module.write_text(text, "utf-8")
    assert list(prose.mistakes(module, prose.Phrases.read(), True)) == [(3, "'leaves tolerance': say 'over tolerance'")]
    module.write_text('@click.command()\ndef verify():\n    """Write the file anew."""\n', "utf-8")
    assert list(prose.mistakes(module, prose.Phrases.read(), True)) == [(3, "'anew': say 'again'")]


def test_a_phrase_is_found_across_lines_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("One.\n\nAt\nnear the speed\nof cp.\n", "utf-8")
    assert [line for line, fault in prose.mistakes(page, prose.Phrases.read()) if "cp" in fault] == [3]


def test_lines_of_markdown_end_at_column_100(tmp_path: Path) -> None:
    """Not those of tables, headings and code, nor one that has no place to break, such as an address."""
    page, line, address = tmp_path / "page.md", "word " * 21, "x" * 101
    page.write_text(f"{line}\n\n- {address}\n\n## {line}\n\n| {line} |\n\n```\n{line}\n```\n\n- {line}\n", "utf-8")
    assert [line for line, _ in prose.mistakes(page, prose.Phrases.read())] == [1, 13]


def test_a_report_names_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "README.md").write_text(f"Short.\n\n{LONG[:80]}\n{LONG[80:]}\n", "utf-8")
    (tmp_path / "tests" / "phrases.toml").write_text("[prose]\n[printed]\n", "utf-8")
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    assert [one[:20] for one in prose.report()] == ["README.md:3: 31 word"]
