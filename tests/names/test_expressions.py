"""The arithmetic of rule files: Python's on integers, and nothing else of Python."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConfigError
from converter.names.expressions import evaluate, integer, truth

FIELDS: dict[str, Any] = {
    "image_size": 40,
    "rectangle": [30, 20],
    "patch_size": 8,
    "depths": [2, 6, 1],
    "ratio": 2.5,
    "bias": False,
    "name": "mean",
    "nothing": None,
    "languages": ["en_XX", "zh-CN"],
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("7", 7),
        ("image_size // patch_size", 5),
        ("(image_size // patch_size) ** 2 + 1", 26),
        ("image_size % 7 - 3 * 2", -1),
        ("image_size / patch_size", 5.0),
        ("int(ratio * patch_size)", 20),
        ("len(depths)", 3),
        ("depths[len(depths) - 2]", 6),
        ("pair(image_size)[1]", 40),
        ("names(languages)", ("en_XX", "zh-CN")),
        ("names(languages)[1]", "zh-CN"),
        ("pair(rectangle)[0] * pair(rectangle)[1]", 600),
        ("true", True),
        ("none", None),
        ("not bias", True),
        ("bias or nothing", False),
        ("image_size and name", True),
        ("name == 'mean'", True),
        ("name != 'cls'", True),
        ("2 in depths", True),
        ("2 not in depths", False),
        ("image_size > 40", False),
        ("image_size >= 40", True),
        ("patch_size < 9", True),
        ("patch_size <= 7", False),
        ("patch_size if bias else image_size", 40),
    ],
)
def test_value(expression: str, value: Any) -> None:
    found = evaluate(expression, FIELDS)
    assert (found, type(found)) == (value, type(value))


@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.sampled_from(["+", "-", "*", "//", "%"]))
def test_arithmetic_is_that_of_python(a: int, b: int, operation: str) -> None:
    expression = f"a {operation} b"
    if b == 0 and operation in ("//", "%"):
        with pytest.raises(ConfigError):
            evaluate(expression, {"a": a, "b": b})
    else:
        assert evaluate(expression, {"a": a, "b": b}) == eval(expression, {"a": a, "b": b})


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            "image_size // patch",
            "config.json: image_size = 40, patch = 0 cannot be right (image_size // patch: "
            "integer division or modulo by zero); correct the config",
        ),
        (
            "name * 2",
            "config.json: name = 'mean' cannot be right (name * 2: expected a number, found 'mean'); correct the config",
        ),
        (
            "bias + 1",
            "config.json: bias = False cannot be right (bias + 1: expected a number, found False); correct the config",
        ),
        (
            "depths[3]",
            "config.json: depths = [2, 6, 1] cannot be right (depths[3]: list index out of range); correct the config",
        ),
        (
            "len(nothing)",
            "config.json: nothing = None cannot be right (len(nothing): expected a list, found None); "
            "correct the config",
        ),
    ],
)
def test_fields_that_make_no_sense(expression: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluate(expression, {**FIELDS, "patch": 0})
    assert str(caught.value) == message


@pytest.mark.parametrize("huge", ["10 ** 62 ** 62", "image_size ** 62 ** 62", "9 ** 9 ** 9", "ratio ** 62 ** 62"])
def test_powers_stay_small(huge: str) -> None:
    with pytest.raises(ConfigError):
        evaluate(huge, FIELDS)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "open('/etc/passwd')",
        "name.upper()",
        "[1 for x in depths]",
        "lambda: 1",
        "{'a': 1}",
        "depths[0:1]",
        "1 < 2 < 3",
        "-image_size",
        "len(depths, depths)",
        "int(x=1)",
        "f'{name}'",
        "unknown + 1",
        "2.5",
        "1 +",
        "a b",
        "",
    ],
)
def test_anything_else_is_a_mistake_in_a_rule_file(expression: str) -> None:
    with pytest.raises(ValueError, match="a rule "):
        evaluate(expression, FIELDS)


@pytest.mark.parametrize("expression", ["ratio", "bias", "0 - 1", "2 ** 41", "depths", "name", "nothing"])
def test_a_size_is_an_integer_in_range(expression: str) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json: .* gives .*, expected a size; correct the config$"):
        integer(expression, FIELDS)


def test_sizes_in_range() -> None:
    assert integer("0", {}) == 0
    assert integer("2 ** 40", {}) == 2**40


def test_truth_is_that_of_python() -> None:
    assert [truth(name, FIELDS) for name in ("nothing", "bias", "name", "depths", "0", "image_size")] == [
        False, False, True, True, False, True,
    ]  # fmt: skip
