"""Writes the tables of fixtures/names again: odd.json and config_fields.json from the configs that odd.json holds, and
the PyTorch names of pairs.json from those in conftest.py.

    PYTHONPATH=. python tests/names/refresh_fixtures.py PYTHON_WITH_TRANSFORMERS_4 PYTHON_WITH_TRANSFORMERS_5

To add a case, add ``"its name": {"config": {...}}`` to odd.json first, or ``"vision+text": {"tf": null}`` to pairs.json.
TensorFlow's names of a pair are left as they are: no dual encoder of 4.x has a tower that is not there already.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.names.conftest import pair_fields

NAMES = Path(__file__).parents[2] / "fixtures" / "names"
SCRIPT = Path(__file__).with_name("reference_names.py")


def ask(python: str, question: str, cases: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given = json.dumps({case: {"config": content["config"]} for case, content in cases.items()})
    run = subprocess.run([python, SCRIPT, question], input=given, stdout=subprocess.PIPE, text=True, check=True)
    said = json.loads(run.stdout)
    return said["transformers"], said["answers"][question]


def main(python_4: str, python_5: str) -> None:
    refresh_towers(python_4, python_5)
    refresh_pairs(python_4, python_5)


def refresh_pairs(python_4: str, python_5: str) -> None:
    pairs = json.loads((NAMES / "pairs.json").read_text("utf-8"))
    cases = {pair: {"config": pair_fields(*pair.split("+"))} for pair in pairs}
    questions = {
        "pt_v4": (python_4, "state_dict"),
        "pt_v5": (python_5, "saved"),
        "pt_v5_live": (python_5, "state_dict"),
    }
    for column, (python, question) in questions.items():
        for pair, names in ask(python, question, cases)[1].items():
            pairs[pair][column] = names if column == "pt_v5_live" else dict(sorted(names.items()))
    (NAMES / "pairs.json").write_text(json.dumps(pairs, indent=0) + "\n", "utf-8")


def refresh_towers(python_4: str, python_5: str) -> None:
    cases = json.loads((NAMES / "odd.json").read_text("utf-8"))
    questions = {
        "pt_v4": (python_4, "state_dict"),
        "tf": (python_4, "tensorflow"),
        "pt_v5": (python_5, "saved"),
        "pt_v5_live": (python_5, "state_dict"),
        "pt_v5_of_live": (python_5, "same"),
    }
    columns = {column: ask(python, question, cases)[1] for column, (python, question) in questions.items()}
    lines = [
        f"{json.dumps(case)}: "
        + json.dumps({"config": content["config"], **{column: columns[column][case] for column in columns}})
        for case, content in cases.items()
    ]
    (NAMES / "odd.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    fields = dict(ask(python, "fields", cases) for python in (python_4, python_5))
    lines = [
        f"{json.dumps(version)}: {{\n"
        + ",\n".join(f"{json.dumps(t)}: {json.dumps(f, sort_keys=True)}" for t, f in sorted(types.items()))
        + "\n}"
        for version, types in fields.items()
    ]
    (NAMES / "config_fields.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
