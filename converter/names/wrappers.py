"""Takes off what training put around a PyTorch tensor's name: levels of wrappers anywhere in it, and one common prefix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from converter.errors import PlanError, listed
from converter.names.rule_files import rule_file
from converter.specs import StoredTensor


def respell(name: str) -> tuple[str, str]:
    """Undoes what training wrappers and TensorFlow 1 did to a name; says which."""
    spellings = rule_file("common")["spellings"]
    *levels, leaf = name.split(".")
    seen = [level for level in levels if level in spellings["wrappers"]]
    if seen:
        name = ".".join([level for level in levels if level not in seen] + [leaf])
    said = [f"{level}." for level in dict.fromkeys(seen)]
    for old, new in spellings["suffixes"]:
        if name.endswith(f".{old}"):
            name = name.removesuffix(old) + new
            said.append(old.rpartition(".")[2])
    return name, " ".join(said)


def common_prefix(names: Iterable[str], known: Collection[str], least: int) -> str:
    """The prefix of the model's names, as in a Lightning module that holds the model as ``self.model``.

    Args:
        names: of the source, respelled.
        known: every name that a tensor of the model can have.
        least: how many names must have it; fewer are not a model.

    Returns:
        For example ``"model."``; empty if most known names have no prefix.

    Raises:
        PlanError: the model occurs twice, under two prefixes.
    """
    found = Counter(prefix for name in names for prefix in _prefixes(name, known))
    best = max(found.values(), default=0)
    most = [prefix for prefix, count in found.items() if count == best]
    if "" in most or best < least:
        return ""
    if len(most) > 1:
        raise PlanError(
            f"found the model {len(most)} times, below {listed(sorted(most))}; pass the one that you want: "
            f"pt2tf({{name.removeprefix({sorted(most)[0]!r}): tensor for name, tensor in state_dict.items() if "
            f"name.startswith({sorted(most)[0]!r})}}, OUT, config=...)"
        )
    return most[0]


def is_counter(name: str, tensor: StoredTensor) -> bool:
    """Whether a tensor is a training wrapper's own: one number that counts its steps."""
    counters = rule_file("common")["spellings"]["counters"]
    return name.rpartition(".")[2] in counters and tensor.size == 1 and not tensor.dtype.startswith(("float", "bfloat"))


def counter_reason(name: str) -> str:
    """Why such a number is left out."""
    reason: str = rule_file("common")["spellings"]["counters"][name.rpartition(".")[2]]
    return reason


def _prefixes(name: str, known: Collection[str]) -> Iterable[str]:
    """The shortest prefixes after which the rest of a name is known; none if no rest is."""
    if name in known:  # as nearly all are
        yield ""
        return
    levels = name.split(".")
    for count in range(1, len(levels)):
        if ".".join(levels[count:]) in known:
            yield "".join(f"{level}." for level in levels[:count])
            return
