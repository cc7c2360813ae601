"""Finds the expression of config fields that gives a size in every config seen, and the condition under which a module is there.

Expressions are built from the smallest on; of those with the same values only the first is kept, so that few are left to
combine. What is found is the simplest that fits, so the configs have to tell apart what is different.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Env = Mapping[str, Any]
Sample = tuple[Env, Any]
# How tightly an expression binds: a choice, sums, products, powers, and what needs no brackets.
CHOICE, SUM, PRODUCT, POWER, ATOM = range(5)
MAX_TERMS = 6_000
MANY_FIELDS = 4  # of which not every combination is tried
CONSTANTS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Term:
    """An expression, how tightly it binds, and its value in every sample."""

    text: str
    binds: int
    values: tuple[Any, ...]

    def within(self, binds: int) -> str:
        """Its text as a part of something that binds so tightly."""
        return self.text if self.binds >= binds else f"({self.text})"


def fit(samples: Sequence[Sample], fields: Sequence[str], places: Sequence[str] = ()) -> str | None:
    """The simplest expression with these values; None where none was found.

    Args:
        samples: fields and placeholders by name, and the value that they give.
        fields: the fields that the value was seen to depend on.
        places: the placeholders that it may depend on.
    """
    samples = _unlike(samples, [*fields, *places])
    found = _searched(samples, fields, places)
    if found is not None or len(fields) > MANY_FIELDS:
        return found
    for flag in fields:
        if all(isinstance(env.get(flag), bool) for env, _ in samples):
            rest = [field for field in fields if field != flag]
            on, off = (
                _searched([sample for sample in samples if sample[0][flag] == state], rest, places)
                for state in (True, False)
            )
            if on is not None and off is not None:
                return f"{on} if {flag} else {off}"
    return None


def _searched(samples: Sequence[Sample], fields: Sequence[str], places: Sequence[str]) -> str | None:
    wanted = tuple(value for _, value in samples)
    if len(set(wanted)) == 1 and (not fields or len(samples) == 1):
        return str(wanted[0])
    if not wanted:
        return None
    atoms = list(_atoms(samples, fields, places))
    atoms += [_power(place, samples) for place in places]
    most = 3 if len(fields) > MANY_FIELDS else 5
    return next(filter(None, (_Search(wanted, products).run(atoms, most) for products in (True, False))), None)


def _unlike(samples: Sequence[Sample], names: Sequence[str]) -> list[Sample]:
    """Of samples that are alike in what may decide, one."""
    return list({(*(str(env.get(name)) for name in names), value): (env, value) for env, value in samples}.values())


def _atoms(samples: Sequence[Sample], fields: Sequence[str], places: Sequence[str]) -> Iterator[Term]:
    """What expressions are made of: fields, their items, and the number of patches."""
    texts = []
    for field in fields:
        held = [env.get(field) for env, _ in samples]
        if any(isinstance(value, list) for value in held):
            if field.endswith("_size"):
                texts += [f"pair({field})[{axis}]" for axis in (0, 1)]
            else:
                texts += [f"{field}[{place}{step}]" for place in places for step in ("", " + 1", " - 1")]
                texts += [f"{field}[{number}]" for number in (0, 1, f"len({field}) - 1")] + [
                    f"len({field})",
                    f"2 ** (len({field}) - 1)",
                ]
        else:
            texts.append(field)
    texts += [
        f"{field} if {field} else {other}"
        for field in fields
        for other in fields
        if other != field and _may_be_none(field, samples)
    ]
    texts += places
    for text in texts:
        values = _values(text, samples)
        if values is not None:
            yield Term(text, CHOICE if " if " in text else POWER if " ** " in text else ATOM, values)
    sizes = [field for field in fields if field.endswith("_size")]
    for image, patch in itertools.permutations(sizes, 2):
        sides = [f"(pair({image})[{axis}] // pair({patch})[{axis}])" for axis in (0, 1)]
        square = all(not isinstance(env.get(field), list) for env, _ in samples for field in (image, patch))
        windows = " * ".join(f"(2 * {side} - 1)" for side in sides)
        for text, binds in (
            (f"({image} // {patch}) ** 2", POWER) if square else (" * ".join(sides), PRODUCT),
            (windows, PRODUCT),
        ):
            values = _values(text, samples)
            if values is not None:
                yield Term(text, binds, values)


def _may_be_none(field: str, samples: Sequence[Sample]) -> bool:
    return any(env.get(field) is None for env, _ in samples)


def _power(place: str, samples: Sequence[Sample]) -> Term:
    """What doubles with every stage."""
    return Term(f"2 ** {place}", POWER, tuple(2 ** min(env[place], 12) for env, _ in samples))


def _values(text: str, samples: Sequence[Sample]) -> tuple[Any, ...] | None:
    """The value in every sample, by Python itself: the text is made above, of names and operators alone."""
    code = compile(text, "expression", "eval")
    try:
        found = tuple(eval(code, {"__builtins__": {}, "pair": _pair, "len": len}, dict(env)) for env, _ in samples)
    except (TypeError, IndexError, ZeroDivisionError, KeyError):
        return None
    return found if all(isinstance(value, int | float) and not isinstance(value, bool) for value in found) else None


def _pair(value: Any) -> Any:
    return value if isinstance(value, list) else (value, value)


class _Search:
    """Bottom up, by the number of parts; of products alone, which most sizes are, it finds those of many."""

    def __init__(self, wanted: tuple[Any, ...], products: bool) -> None:
        self.wanted = wanted
        self.products = products
        self.seen: dict[tuple[Any, ...], Term] = {}

    def run(self, atoms: Sequence[Term], most: int) -> str | None:
        """The first expression of the wanted values with at most this many parts."""
        count = len(self.wanted)
        constants = [Term(str(number), ATOM, (number,) * count) for number in CONSTANTS]
        levels = [[], self._new([*constants, *atoms])]
        for size in range(2, most + 1):
            if self.wanted in self.seen or len(self.seen) > MAX_TERMS:
                break
            made: list[Term] = []
            for small in range(1, size // 2 + 1):
                made += self._new(_combined(levels[size - small], levels[small], self.products))
                if self.wanted in self.seen:
                    break
            levels.append(sorted(made, key=lambda term: term.binds == SUM))
        found = self.seen.get(self.wanted)
        return None if found is None else found.text

    def _new(self, terms: Any) -> list[Term]:
        """Those of values not seen before; and what a size is made of a number that is none."""
        fresh = []
        for term in terms:
            for each in (term, *_rounded(term)) if min(term.values) >= 0 else ():
                key = (
                    tuple(map(str, each.values))
                    if any(isinstance(value, float) for value in each.values)
                    else each.values
                )
                if key not in self.seen:
                    self.seen[key] = each
                    fresh.append(each)
            if self.wanted in self.seen or len(self.seen) > MAX_TERMS:
                break
        return fresh


def _rounded(term: Term) -> Iterator[Term]:
    """``int(x)`` of what is no integer; of a product, too, two thirds at a multiple of 8, which gated MLPs have."""
    if any(isinstance(value, float) for value in term.values):
        if all(abs(value) < 2**40 for value in term.values):
            whole = Term(f"int({term.text})", ATOM, tuple(int(value) for value in term.values))
            yield whole
            yield from _rounded(whole)
    elif term.text.startswith("int(") or re.fullmatch(r"\w+ \* \w+", term.text):
        gated = tuple((int(value * 2 / 3) + 7) // 8 * 8 for value in term.values)
        yield Term(f"(int({term.text} * 2 / 3) + 7) // 8 * 8", PRODUCT, gated)


def _combined(ones: Sequence[Term], others: Sequence[Term], products: bool) -> Iterator[Term]:
    for one, other in itertools.product(ones, others):
        for left, right in ((one, other), (other, one)):
            yield from _operations(left, right, products)


def _operations(left: Term, right: Term, products: bool) -> Iterator[Term]:
    pairs = list(zip(left.values, right.values, strict=True))
    if not right.text.isdigit():
        factor = right.within(POWER if "//" in right.text else PRODUCT)
        yield Term(f"{left.within(PRODUCT)} * {factor}", PRODUCT, tuple(a * b for a, b in pairs))
    if products:
        return
    if left.text != right.text and not left.text.isdigit():
        yield Term(f"{left.within(SUM)} + {right.within(PRODUCT)}", SUM, tuple(a + b for a, b in pairs))
    yield Term(f"{left.within(SUM)} - {right.within(PRODUCT)}", SUM, tuple(a - b for a, b in pairs))
    if all(right.values) and all(isinstance(value, int) for value in (*left.values, *right.values)):
        yield Term(f"{left.within(PRODUCT)} // {right.within(POWER)}", PRODUCT, tuple(a // b for a, b in pairs))
    if right.text == "2":
        yield Term(f"{left.within(ATOM)} ** 2", POWER, tuple(a**2 for a in left.values))


def condition(samples: Sequence[Sample], fields: Sequence[str], places: Sequence[str] = ()) -> str | None:
    """The simplest condition that holds where the samples say so; None where none was found."""
    samples = _unlike(samples, [*fields, *places])
    wanted = tuple(bool(value) for _, value in samples)
    single = dict(_conditions(samples, fields, places))
    for text, values in single.items():
        if values == wanted:
            return text
    return _joined(single, wanted)


def _joined(single: Mapping[str, tuple[bool, ...]], wanted: tuple[bool, ...]) -> str | None:
    rules: dict[str, Callable[[bool, bool], bool]] = {"and": lambda a, b: a and b, "or": lambda a, b: a or b}
    for (one, ones), (other, others) in itertools.permutations(single.items(), 2):
        for word, both in rules.items():
            if tuple(both(a, b) for a, b in zip(ones, others, strict=True)) == wanted:
                return f"{one} {word} {other}"
    return None


def _conditions(
    samples: Sequence[Sample], fields: Sequence[str], places: Sequence[str]
) -> Iterator[tuple[str, tuple[bool, ...]]]:
    yield "true", (True,) * len(samples)
    yield "false", (False,) * len(samples)
    for field in fields:
        held = [env.get(field) for env, _ in samples]
        if all(isinstance(value, bool | None) for value in held):
            yield field, tuple(bool(value) for value in held)
            yield f"not {field}", tuple(not value for value in held)
        elif all(isinstance(value, int | float) for value in held):
            yield f"{field} > 0", tuple(value > 0 for value in held)
        elif any(isinstance(value, str) for value in held):
            for word in sorted({value for value in held if isinstance(value, str)}):
                yield f"{field} == {json.dumps(word)}", tuple(value == word for value in held)
        if any(value is None for value in held):
            yield f"{field} != none", tuple(value is not None for value in held)
    numbers = [field for field in fields if all(type(env.get(field)) is int for env, _ in samples)]
    for one, other in itertools.combinations(numbers, 2):
        yield f"{one} != {other}", tuple(env[one] != env[other] for env, _ in samples)
    yield from _conditions_of_places(samples, fields, places)


def _conditions_of_places(
    samples: Sequence[Sample], fields: Sequence[str], places: Sequence[str]
) -> Iterator[tuple[str, tuple[bool, ...]]]:
    for place in places:
        numbers = [env[place] for env, _ in samples]
        yield f"{place} == 0", tuple(number == 0 for number in numbers)
        yield f"{place} > 0", tuple(number > 0 for number in numbers)
        for field in fields:
            held = [env.get(field) for env, _ in samples]
            if all(isinstance(value, list) for value in held):
                last, text = [len(value) - 1 for value in held], f"len({field}) - 1"
                if all(isinstance(value, bool) for each in held for value in each):
                    yield f"{field}[{place}]", tuple(n < len(v) and v[n] for n, v in zip(numbers, held, strict=True))
            elif all(type(value) is int for value in held):
                last, text = [value - 1 for value in held], f"{field} - 1"
            else:
                continue
            yield f"{place} < {text}", tuple(n < end for n, end in zip(numbers, last, strict=True))
            yield f"{place} == {text}", tuple(n == end for n, end in zip(numbers, last, strict=True))
