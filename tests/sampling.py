"""Which towers a run checks in full: those whose files changed lately, and of the others a quarter, another every day.

Every tower is in one pair in every run, outputs and gradients. The checks that each tower has by itself grow with the number
of towers: every variant, graphs, XLA, dropout, files. Those tests are marked `by_turns`, and tests/conftest.py leaves them out.
Families take turns likewise in what Keras does with a model. `make torture` runs all of them.
"""

from __future__ import annotations

import ast
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converter.names.families import JOINED, families
from converter.names.rule_files import SIDES
from converter.names.towers import tower_rules
from tests.torture import FULL
from tests.towers import ROUND, TOWERS

ROOT = Path(__file__).resolve().parents[1]
MODELS = "converter/models"
# What a run looks back on; a clone without that history has no way to tell, and checks every tower.
SINCE = os.environ.get("TOWERS_SINCE", "HEAD~5")
PARTS = 4
FAMILY_PARTS = 3


def changed_files(since: str = SINCE) -> frozenset[str] | None:
    """Files that differ from a commit, those not added yet too; None where git cannot tell."""
    commands = (["git", "diff", "--name-only", since], ["git", "ls-files", "--others", "--exclude-standard"])
    try:
        runs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for command in commands]
    except (OSError, subprocess.CalledProcessError):
        return None
    return frozenset(line for run in runs for line in run.stdout.splitlines())


def files_of(model_type: str) -> frozenset[str]:
    """The files that decide what a tower computes: its rules, its Keras file, and what that is made of."""
    rules = tower_rules(TOWERS[model_type].side, model_type) or {}
    module = str(rules["keras"]).partition(":")[0]
    return _imported(f"{MODELS}/towers/{module}.py") | {str(next(_rule_files(model_type)))}


def _rule_files(model_type: str) -> Iterator[Path]:
    for path in (ROOT / "rename_rules" / "towers").glob("*.toml"):
        if f'"{model_type}"' in path.read_text("utf-8").partition("\n[")[0]:
            yield path.relative_to(ROOT)


@functools.cache
def _imported(path: str) -> frozenset[str]:
    """A module of the models and all that it imports of them."""
    found = {path}
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("converter.models."):
            other = f"{str(node.module).replace('.', '/')}.py"
            if (ROOT / other).is_file() and other != path:
                found |= _imported(other)
    return frozenset(found)


def in_full(changed: frozenset[str] | None, turn: int = ROUND) -> frozenset[str]:
    """Model types that are checked in full."""
    if FULL or changed is None:
        return frozenset(TOWERS)
    lately = {t for t in TOWERS if files_of(t) & changed}
    others = [t for t in TOWERS if t not in lately]
    return frozenset(lately | set(others[turn % PARTS :: PARTS]))


def families_in_turn(changed: frozenset[str] | None, turn: int = ROUND) -> tuple[str, ...]:
    """Families on which a run tries what Keras does with a model: two always, those changed lately, and some of the others.

    Outputs in float64 and every gradient are compared of all families in every run.
    """
    always = (JOINED, "clip")
    if FULL or changed is None:
        return tuple(families())
    lately = {name for name in families() if _files_of_family(name) & changed}
    others = [name for name in families() if name not in always and name not in lately]
    chosen = {*always, *lately, *others[turn % FAMILY_PARTS :: FAMILY_PARTS]}
    return tuple(name for name in families() if name in chosen)


def _files_of_family(name: str) -> frozenset[str]:
    of = families()[name]
    towers = {t for side in SIDES for t in of.towers(side) if (tower_rules(side, t) or {}).get("family_only")}
    rules = {path for t in towers for path in map(str, _rule_files(t))}
    keras = {str((tower_rules(side, t) or {})["keras"]).partition(":")[0] for side in SIDES for t in of.towers(side)}
    imported = _imported(f"{MODELS}/families/{of.stem}.py").union(
        *(_imported(f"{MODELS}/towers/{m}.py") for m in keras)
    )
    return imported | rules | {f"rename_rules/families/{of.stem}.toml"}


def towers_of(parameters: dict[str, Any]) -> frozenset[str]:
    """The towers that a case of a test is about."""
    names = (getattr(value, "kind", value) for value in parameters.values())
    return frozenset(name for name in names if isinstance(name, str) and name in TOWERS)
