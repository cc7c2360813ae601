"""What a person reads is in the words of the field: no phrase that was replaced comes back in a printed string."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A phrase as it was printed once -> what is said instead. Patterns, so that a plural or an article does not hide one.
REPLACED = {
    r"leaves? tolerance": "over tolerance",
    r"greatest (absolute )?difference": "max abs diff",
    r"atol that passes|passing atol": "atol needed",
    r"masked positions left out": "masked",
    r"\b(is not a|different|in \d+|has no) taps?\b": "layer output",
    r"equal to its source|NOT shown to be its source": "matches its source / does NOT match its source",
    r"what remains is no rounding": "any difference left is real",
    r"may be given more than once": "repeatable",
    r"\bsee to (it|the|HT|HF)": "check",
    r"\banew\b": "again",
    r"somebody else": "another process",
    r"not a sound\b|\bis not sound\b": "not valid",
    r"nothing of it was run": "none of it was run",
    r"is (one of those )?that there are\b": "does not exist",
    r"which (was|is) taken\b": "which was converted",
    r"became shorter": "shrank",
    r"others keep replacing": "other processes keep replacing",
    r"cannot be looked at": "cannot be accessed",
    r"be put right|mend that": "restored; fix that",
    r"as was asked for": "the option's name",
    r"so that (nothing|there is nothing)\b": "so nothing",
    r"\bread from afar\b|\bnot read afar\b": "read remotely",
    r"lie in parts": "are split",
    r"saved along\b": "saved with them",
    r"(the Hub|what) is not (well|reached)": "reports an error; cannot reach the Hub",
    r"made by somebody": "created by another process",
    r"kept without knowing": "unknown fields kept",
    r"drawn at random, to be trained": "random, train before use",
}


def printed(path: Path) -> Iterator[tuple[int, str]]:
    """String literals of a module that are more than a word, docstrings left out; adjacent pieces are one already."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped.update(id(piece) for piece in node.values)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and not _is_command(node):
            skipped.add(id(body[0].value))
    for node in ast.walk(tree):
        if id(node) not in skipped and isinstance(node, ast.Constant | ast.JoinedStr):
            text = _text(node)
            if " " in text.strip():
                yield node.lineno, text


def _is_command(node: ast.AST) -> bool:
    """Whether a function's docstring is printed, by --help."""
    return isinstance(node, ast.FunctionDef) and any("command" in ast.unparse(one) for one in node.decorator_list)


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(_text(piece) if isinstance(piece, ast.Constant) else "{}" for piece in node.values)


MODULES = sorted((ROOT / "converter").rglob("*.py"))


def mistakes(path: Path) -> list[str]:
    return [
        f"{path.name}:{line}: {text[:80]!r}: say {instead!r}"
        for line, text in printed(path)
        for phrase, instead in REPLACED.items()
        if re.search(phrase, text)
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_replaced_phrase_is_printed(path: Path) -> None:
    assert mistakes(path) == []


def test_replaced_phrases_are_found(tmp_path: Path) -> None:
    """In an f-string of several pieces, and in what --help prints; not in a docstring, which nobody is shown."""
    module = tmp_path / "module.py"
    module.write_text('"""A tower leaves tolerance."""\nx = 1\nraise E(f"{x}: leaves "\n        f"tolerance at {x}")\n')
    assert mistakes(module) == ["module.py:3: '{}: leaves tolerance at {}': say 'over tolerance'"]
    module.write_text('@click.command()\ndef verify():\n    """Write the file anew."""\n')
    assert [found.partition(" say ")[2] for found in mistakes(module)] == ["'again'"]
    assert sum(1 for path in MODULES for _ in printed(path)) > 1000
