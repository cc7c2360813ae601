"""Prose taken out of files: of Markdown, modules, Makefiles and TOML, as the passages that one reads in a piece."""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_COLUMNS = 100  # of a line of Markdown

# A sentence ends here. An abbreviation's point does not end one, nor does an ellipsis.
_END = re.compile(r"(?<!\.)(?<!e\.g)(?<!i\.e)(?<!vs)(?<!cf)[.!?][)\"'`*_]*\s+")
_ITEM = re.compile(r"\s*([-*+]|\d+\.)\s+")
_TERM = re.compile(rf"{_ITEM.pattern}|\S+(, \w+)*\s{{2,}}\S")  # what a comment lists
_ENTRY = re.compile(r"\s*\*{0,2}[\w.`]+( \([^)]*\))?: ")
_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Examples):$")
_DIRECTIVE = re.compile(r"(noqa|type:|fmt:|pragma|ruff|mypy)")


@dataclass(frozen=True)
class Passage:
    """Text that one reads in a piece: a paragraph, a list item, a comment, a message."""

    line: int
    text: str
    printed: bool = False

    def sentences(self) -> Iterator[tuple[int, str]]:
        """Each sentence with the line that it starts in."""
        start = 0
        for end in [*(found.end() for found in _END.finditer(self.text)), len(self.text)]:
            sentence = self.text[start:end]
            skipped = len(sentence) - len(sentence.lstrip())
            yield self.line + self.text.count("\n", 0, start + skipped), " ".join(sentence.split())
            start = end


def paragraphs(lines: Iterable[tuple[int, str]], begins: re.Pattern[str]) -> Iterator[Passage]:
    """Lines joined to passages. An empty line ends one, and what ``begins`` matches starts one."""
    start, held = 0, list[str]()
    for number, line in lines:
        if held and (not line.strip() or begins.match(line)):
            yield Passage(start, "\n".join(held))
            held = []
        if line.strip():
            start = start if held else number
            held.append(line)
    if held:
        yield Passage(start, "\n".join(held))


def markdown(text: str) -> Iterator[Passage]:
    """Paragraphs, list items and headings of a page."""
    yield from paragraphs(_outside_code(text), re.compile(rf"{_ITEM.pattern}|#|!!!"))


def _outside_code(text: str) -> Iterator[tuple[int, str]]:
    """Lines of a page; those of code, tables and comments are empty."""
    fence, listed = "", False
    for number, line in enumerate(re.sub(r"<!--.*?-->", _blank, text, flags=re.DOTALL).splitlines(), 1):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if line.strip() and not line.startswith(" "):
            listed = bool(_ITEM.match(line))
        indented = line.startswith("    ") and not listed
        hidden = bool(fence or mark or indented or re.match(r"\s*[|<]", line))
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        yield number, "" if hidden else line


def _blank(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n")


def long_lines(text: str) -> Iterator[int]:
    """Lines of a page that could be broken before column 100 and are not."""
    for number, line in _outside_code(text):
        whole = re.sub(r"!\[[^\]]*\]\([^)]*\)|(`+).+?\1", "piece", _ITEM.sub("", line, count=1))
        if len(line) > MAX_COLUMNS and not line.startswith("#") and " " in whole.strip():
            yield number


def python(text: str, printed: bool = False) -> Iterator[Passage]:
    """Docstrings and comments of a module, and its messages where it prints any."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if said := _documentation(node):
            yield from docstring(said, printed and is_command(node))
    yield from comments((token.start, token.string, token.line) for token in _tokens(text))
    if printed:
        yield from (Passage(line, message, True) for line, message in messages(tree) if "\n" not in message.strip())


def _documentation(node: ast.AST) -> ast.Constant | None:
    """The docstring of a module, class or function."""
    body = getattr(node, "body", None)
    first = body[0] if isinstance(body, list) and body else None
    value = first.value if isinstance(first, ast.Expr) else None
    return value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def docstring(node: ast.Constant, printed: bool) -> Iterator[Passage]:
    """Paragraphs of a docstring and entries of its sections; an indented block is code."""
    lines, code, last, blank = list[tuple[int, str]](), -1, "", False
    for number, line in enumerate(inspect.cleandoc(str(node.value)).splitlines(), node.lineno):
        indent = len(line) - len(line.lstrip())
        if line.strip() and -1 < indent <= code:
            code = -1
        if blank and line.strip() and code < 0 and indent > len(last) - len(last.lstrip()) and not _SECTION.match(last):
            code = len(last) - len(last.lstrip())
        hidden = code >= 0 or line.strip().startswith((">>>", "$ ", "\b"))
        lines.append((number, "" if hidden or _SECTION.match(line.strip()) else line))
        last, blank = line.rstrip() or last, not line.strip()
    for one in paragraphs(lines, re.compile(f"{_ITEM.pattern}|{_ENTRY.pattern}")):
        yield Passage(one.line, one.text, printed)


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token


def comments(found: Iterable[tuple[tuple[int, int], str, str]]) -> Iterator[Passage]:
    """Comments of lines that follow each other are one passage; one behind code stands by itself."""
    start, held, last = 0, list[str](), 0
    for (line, column), text, whole in found:
        body = re.sub(r"^#+ ?:?", "", text)
        alone = not whole[:column].strip()
        if held and (line != last + 1 or not alone):
            yield from paragraphs(enumerate(held, start), _TERM)
            held = []
        if _DIRECTIVE.match(body.strip()) or body.startswith(("!", "---")):
            continue
        if not alone:
            yield Passage(line, body)
            continue
        start = start if held else line
        held.append(body)
        last = line
    yield from paragraphs(enumerate(held, start), _TERM)


def commented(text: str) -> Iterator[Passage]:
    """Comments of a Makefile, a TOML file or a script, and the help behind its targets."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.search(r"(?:^|\s)(#+ ?)(?=[^#\s])", line)
        if mark and "$" not in line[mark.start(1) :] and '"' not in line[mark.end() :]:
            found.append(((number, mark.start(1)), line[mark.start(1) :], line))
    yield from comments(found)


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """String literals of more than a word, docstrings left out."""
    skipped = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped.update(id(piece) for piece in node.values)
        skipped.add(id(_documentation(node)))
    for node in ast.walk(tree):
        if id(node) not in skipped and isinstance(node, ast.Constant | ast.JoinedStr):
            text = _text(node)
            if " " in text.strip():
                yield node.lineno, text


def is_command(node: ast.AST) -> bool:
    """Whether ``--help`` prints a function's docstring."""
    return isinstance(node, ast.FunctionDef) and any("command" in ast.unparse(one) for one in node.decorator_list)


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(_text(piece) if isinstance(piece, ast.Constant) else "{}" for piece in node.values)


def passages(path: Path, printed: bool = False) -> Iterator[Passage]:
    """The prose of one file."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return markdown(text)
    return python(text, printed) if path.suffix == ".py" else commented(text)
