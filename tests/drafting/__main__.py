"""Drafts the rule file of a tower: `python -m tests.drafting MODEL_TYPE PY4 PY5`. docs/towers.md tells the rest."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.drafting.drafting import NotDrafted, draft
from tests.drafting.observing import observe
from tests.drafting.writing import text_of
from tests.towers import TOWERS

RULES = Path(__file__).resolve().parents[2] / "rename_rules" / "towers"


def main() -> int:
    """Drafts one tower; the exit status is 1 where a person has to write more than prose."""
    parser = argparse.ArgumentParser(prog="python -m tests.drafting", description=__doc__)
    parser.add_argument("model_type", choices=sorted(TOWERS), help="has an entry in fixtures/towers.toml")
    parser.add_argument("python_4", help="a Python with transformers 4.57.6, such as .venv-compat/bin/python")
    parser.add_argument("python_5", help="a Python with transformers 5, such as .venv/bin/python")
    parser.add_argument("--print", action="store_true", help="print it, and write no file")
    asked = parser.parse_args()
    tower = TOWERS[asked.model_type]
    try:
        seen = observe(tower, asked.python_4, asked.python_5)
        rules = draft(tower, seen)
    except NotDrafted as error:
        print(f"{tower.model_type}: {error}", file=sys.stderr)
        return 1
    text = text_of(rules, tower.model_type)
    path = RULES / f"{tower.model_type.replace('-', '_')}.toml"
    if asked.print or path.exists():
        print(text, end="")
        return 0
    path.write_text(text, "utf-8")
    print(f"{path}: right about {len(seen.learnt) + len(seen.held_out)} configs, {len(seen.held_out)} of them held out")
    print(f"what is left to write: {json.dumps(text.count('TODO'))} reasons, marked TODO")
    return 0


if __name__ == "__main__":
    sys.exit(main())
