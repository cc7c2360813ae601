"""Names from files, made fit for a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter import errors
from converter.errors import ConverterError, listed, printable


def test_every_error_is_a_converter_error() -> None:
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(found) == 22
    assert [error.__name__ for error in found if not issubclass(error, ConverterError)] == []


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], "none"),
        (["a"], "a"),
        (["b", "a"], "b, a"),
        ([str(number) for number in range(10)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        ([str(number) for number in range(12)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
        (["a\nb"], r"a\nb"),
    ],
)
def test_listed(names: list[str], text: str) -> None:
    assert listed(names) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("text_model.encoder", "text_model.encoder"),
        ("perché", "perché"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("line\r\nline", r"line\r\nline"),
        ("\ud800", r"\ud800"),
        ("right\u202eleft", r"right\u202eleft"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(), max_size=500), st.integers(4, 100))
def test_printable_is_one_short_line(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= 10 * (limit + 3)
    shown.encode("utf-8")


def test_long_text_is_cut_in_the_middle() -> None:
    assert printable("a" * 150 + "b" * 150) == "a" * 100 + "..." + "b" * 100
