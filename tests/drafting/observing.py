"""Asks both generations of transformers about one tower, with configs in which more and more fields are changed."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.names.rule_files import rule_file
from tests.drafting.dialects import canonical_of_saved
from tests.drafting.draft import Run
from tests.drafting.observe import counted
from tests.drafting.templates import is_list_of_names
from tests.towers import Side, Tower

SCRIPT = Path(__file__).with_name("observe.py")
TOGETHER = 40  # configs in which several fields are changed: half of them to learn from, half to check the draft
# Irrelevant to most towers, and looked at in every one.
TOKENS = {"pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id"}
SECONDS = 600


@dataclass(frozen=True)
class Observed:
    """What was seen of a tower.

    Attributes:
        effects: field -> default and effect, of transformers 5, or of 4.x where only that has the field.
        learnt: runs to draft from, the config of the entry first.
        held_out: runs that the draft has to be right about.
        said: further answers: what the tower takes, its prefix, the names that pooling adds.
        order: TensorFlow's variables in order; None where transformers 4 has no class.
    """

    side: Side
    model_type: str
    effects: Mapping[str, Mapping[str, Any]]
    learnt: Sequence[Run]
    held_out: Sequence[Run]
    said: Mapping[str, Any]
    order: Mapping[str, list[int]] | None


def ask(python: str, question: str, **asked: Any) -> dict[str, Any]:
    """One answer of observe.py in an environment.

    Raises:
        RuntimeError: it failed; the end of what it said.
    """
    run = subprocess.run(
        [python, str(SCRIPT), question],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    if run.returncode:
        raise RuntimeError(f"observe.py {question}: {run.stderr[-1500:]}")
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def observe(tower: Tower, python_4: str, python_5: str) -> Observed:
    """Everything that a draft is made from.

    Args:
        tower: its entry in fixtures/towers.toml: side, model type, and a config with no field at its default.
        python_4: an interpreter with transformers 4.57.6, PyTorch and TensorFlow.
        python_5: one with transformers 5 and PyTorch.
    """
    base = {"model_type": tower.model_type, **tower.config}
    common = rule_file("common")["config"]
    general = sorted({*common["irrelevant"], *common["refused"]} - set(tower.config) - TOKENS)
    seen = ask(python_5, "effects", side=tower.side, config=base, skip=general)
    effects = dict(seen["fields"])
    effects |= _gone(effects, ask(python_4, "effects", side=tower.side, config=base, skip=[*general, *effects]))
    shaping = {name: said for name, said in effects.items() if said["effect"] == "shape" or name == "image_size"}
    apart = [*_counting(shaping, base), *_longer(base), *_same(shaping, base), *_beside_flags(effects)]
    changes = [{}, *_alone(shaping), *apart, *_together(effects, tower)]
    configs = [{**base, **change} for change in changes]
    answers = {version: ask(python, "tables", configs=configs) for version, python in ((4, python_4), (5, python_5))}
    defaults = {name: said["default"] for name, said in effects.items()}
    runs = [
        Run(
            tuple(change),
            {**defaults, **tower.config, **change},
            _canonical(old, new),
            {**new, **_in_4(old, "buffers")},
        )
        for change, old, new in zip(changes, answers[4]["tables"], answers[5]["tables"], strict=True)
        if "error" not in new and ("error" not in old or "error" in answers[4]["tables"][0])
    ]
    asked = {str(change) for change in apart}
    single = [
        run for run in runs if len(run.changed) < 2 or str({name: run.config[name] for name in run.changed}) in asked
    ]
    joint = [run for run in runs if run not in single]
    order = ask(python_4, "order", configs=[base])["order"] if tower.tensorflow else None
    said = {**answers[5], **_in_4(answers[4], "prefix", "unpooled"), **seen["given"]}
    return Observed(tower.side, tower.model_type, effects, [*single, *joint[::2]], joint[1::2], said, order)


def _in_4(said: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """What transformers 4 says of some things, where it has the model."""
    return {key: said[key] for key in keys if key in said}


def _canonical(old: Mapping[str, Any], new: Mapping[str, Any]) -> Any:
    """The names of transformers 4, with the shapes of 5 where 4 builds a model and cannot run it.

    Where 4 has no such model: the names that 5 saves, with the kinds of its live modules.
    """
    if "error" not in old:
        if old["width"] is not None:
            return old["names"]
        names = canonical_of_saved(Run((), {}, old["names"], new))
        shapes = dict(zip(names, new["saved"].values(), strict=True))
        return {name: [shapes.get(name, shape), *rest] for name, (shape, *rest) in old["names"].items()}
    live = {whole if isinstance(whole, str) else whole[0]: name for name, whole in new["live"].items()}
    return {name: [shape, new["names"][live[name]][1], True] for name, shape in new["saved"].items()}


def _gone(known: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that transformers 4 alone has; what they changed, a later version ignores."""
    gone = {name: effect for name, effect in said["fields"].items() if name not in known}
    return {
        name: {**effect, "effect": "none" if effect["effect"] == "none" else "version 4"}
        for name, effect in gone.items()
    }


def _alone(effects: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value} for name, said in effects.items() if "beside" not in said for value in said["values"]]


def _counting(effects: Mapping[str, Mapping[str, Any]], base: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields that say how long lists are, with the lists cut or made longer."""
    counts = {name: said["values"] for name, said in effects.items() if "beside" in said}
    return [{name: value, **counted(base, name, value)} for name, values in counts.items() for value in values]


def _longer(base: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lists of one length, with one more item each: the last again, or twice it, since widths are shared among heads.

    Of a list that no other is as long as, with one less, too.
    """
    lists = {name: value for name, value in base.items() if isinstance(value, list) and not name.endswith("_size")}
    lists = {name: value for name, value in lists.items() if not is_list_of_names(value)}
    if len(lists) < 2:
        return [
            {name: other} for name, value in lists.items() for other in ([*value, *value[-1:]], value[:-1]) if other
        ]
    longer = [{name: [*value, times * value[-1]] for name, value in lists.items()} for times in (1, 2)]
    # One stage more may want more of an image than there is.
    size = base.get("image_size")
    large = [each * 4 for each in size] if isinstance(size, list) else size and size * 4
    return [*longer, *({**each, "image_size": large} for each in longer if large)]


def _same(effects: Mapping[str, Mapping[str, Any]], base: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Widths that are the same, since a map between them may be missing then.

    That of the blocks stays as it is: their heads have to divide it.
    """
    widths = [name for name in effects if re.search(r"(hidden|emb|embedding|input|output)_(size|dim)$", name)]
    widths = [name for name in widths if type(base.get(name)) is int]
    return [{one: base[other]} for one in widths for other in widths if one not in (other, "hidden_size")]


def _beside_flags(effects: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a flag adds has sizes of its own: every flag turned, beside each size."""
    shaping = {name: said for name, said in effects.items() if said["effect"] == "shape" or name == "image_size"}
    flags = [
        (name, said["values"][0])
        for name, said in shaping.items()
        if said["values"] and type(said["values"][0]) is bool
    ]
    sizes = [
        (name, value) for name, said in shaping.items() for value in said["values"] if type(value) in (int, float, list)
    ]
    return [{flag: state, size: value} for flag, state in flags for size, value in sizes]


def _together(effects: Mapping[str, Mapping[str, Any]], tower: Tower) -> list[dict[str, Any]]:
    """Several fields that change shapes at once, and what the variants of the entry change."""
    draw = random.Random(tower.model_type)
    choices = {name: said["values"] for name, said in effects.items() if said["effect"] == "shape" and said["values"]}
    choices = {name: values for name, values in choices.items() if "beside" not in effects[name]}
    choices |= {"image_size": effects["image_size"]["values"]} if "image_size" in effects else {}
    names = sorted(choices)
    found = [dict(variant.changes) for variant in tower.variants if len(variant.changes) > 1]
    for _ in range(TOGETHER):
        count = draw.randint(2, max(2, min(4, len(names))))
        found.append({name: draw.choice(choices[name]) for name in sorted(draw.sample(names, min(count, len(names))))})
    return [change for change in found if len(change) > 1]
