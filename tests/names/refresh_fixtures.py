"""Adds to the tables of fixtures/names what they lack, such as the towers of fixtures/towers.toml that are not in them yet.

    PYTHONPATH=. python tests/names/refresh_fixtures.py [--all] PYTHON_WITH_TRANSFORMERS_4 PYTHON_WITH_TRANSFORMERS_5

Only cases without an answer are run; ``--all`` runs every case again, as another version of transformers requires.

A new tower gets a case in odd.json for its config and for each of its variants whose names or shapes are others, and one
pair in pairs.json. To add a further case by hand, add ``"its name": {"config": {...}}`` to odd.json first; for a new family
``"its model type": {"config": {...}}`` to families.json, with no field at its default. TensorFlow's names of a pair are
left as they are: no dual encoder of 4.x has a tower that is not there already.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.names.tables import NAMES, new_pair_fields, pair_fields
from tests.towers import TEXT, TOWERS, VISION, each_once

SCRIPT = Path(__file__).with_name("reference_names.py")


def ask(python: str, question: str, cases: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The version of transformers there, and its answer to one question about every case."""
    given = json.dumps({case: {"config": content["config"]} for case, content in cases.items()})
    run = subprocess.run([python, SCRIPT, question], input=given, stdout=subprocess.PIPE, text=True, check=True)
    said = json.loads(run.stdout)
    return said["transformers"], said["answers"][question]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="ask for every case again, not only for new ones")
    parser.add_argument("python_4", help="a Python with transformers 4.57.6, such as .venv-compat/bin/python")
    parser.add_argument("python_5", help="a Python with transformers 5, such as .venv/bin/python")
    asked = parser.parse_args()
    for refresh in (refresh_towers, refresh_pairs, refresh_families):
        refresh(asked.python_4, asked.python_5, asked.all)


def unanswered(cases: dict[str, Any], everything: bool) -> dict[str, Any]:
    """The cases to ask for: all of them, or those of which nothing but the config is known."""
    return {case: content for case, content in cases.items() if everything or "pt_v5" not in content}


def refresh_families(python_4: str, python_5: str, everything: bool) -> None:
    written = json.loads((NAMES / "families.json").read_text("utf-8"))
    cases = unanswered(written, everything)
    if not cases:
        return
    questions = {
        "pt_v4": (python_4, "saved"),
        "tf": (python_4, "tensorflow"),
        "pt_v5": (python_5, "saved"),
        "pt_v5_live": (python_5, "state_dict"),
        "pt_v5_of_live": (python_5, "same"),
    }
    columns = {column: ask(python, question, cases)[1] for column, (python, question) in questions.items()}
    fields = [ask(python, "fields", cases) for python in (python_4, python_5)]
    for family, content in cases.items():
        said = {column: names[family] for column, names in columns.items()}
        of_classes = {version: dict(sorted(types[family].items())) for version, types in fields}
        read = {name: {"config": raw} for name, raw in config_cases(content["config"]).items()}
        for version, answers in (ask(python, "sections", read) for python in (python_4, python_5)):
            for name, towers in answers.items():
                read[name][version] = {side: dict(sorted(tower.items())) for side, tower in towers.items()}
        written[family] = {"config": content["config"], **said, "fields": of_classes, "read": read}
    lines = [
        f"{json.dumps(family)}: {{\n"
        + ",\n".join(f"{json.dumps(column)}: {json.dumps(value)}" for column, value in content.items())
        + "\n}"
        for family, content in written.items()
    ]
    (NAMES / "families.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def config_cases(odd: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What config.json of a family may leave out and say twice, made of one in which no field is at its default."""
    sections = ("vision_config", "text_config")
    kind = {"model_type": odd["model_type"]}
    empty: dict[str, Any] = {f"{section}_dict": {} for section in sections}
    return {
        "both sections": odd,
        "silence": kind,
        "null": {**kind, **dict.fromkeys(sections)},
        "vision alone": {**kind, "vision_config": odd["vision_config"]},
        "text alone": {**kind, "text_config": odd["text_config"]},
        "dictionaries alone": {**kind, **{f"{section}_dict": odd[section] for section in sections}},
        "empty dictionaries over sections": {**odd, **empty},
        "null dictionaries over sections": {**odd, **dict.fromkeys(empty)},
        "one field over sections": {**odd, **{name: {"num_hidden_layers": 5} for name in empty}},
        "a dictionary over one section": {**odd, "text_config_dict": {"hidden_size": 96, "zeta": 1}},
        "sections of another model type": {
            **odd, **{section: {**odd[section], "model_type": "bert"} for section in sections}
        },
        "sections of no model type": {
            **odd, **{section: {n: v for n, v in odd[section].items() if n != "model_type"} for section in sections}
        },
    }  # fmt: skip


def new_pairs(pairs: dict[str, Any]) -> dict[str, Any]:
    """The fewest pairs of towers that stand in none so far; ViT or BERT where one side has no new tower."""
    known = {model_type for pair in pairs for model_type in pair.split("+")}
    visions, texts = ([t for t in side if t not in known] for side in (VISION, TEXT))
    if not visions and not texts:
        return {}
    found = each_once(visions or ["vit"], texts or ["bert"])
    return {"+".join(pair): {"config": new_pair_fields(*pair), "tf": None} for pair in found}


def new_cases(cases: dict[str, Any]) -> dict[str, Any]:
    """A case for each config and variant of a tower that has none so far."""
    known = {case["config"]["model_type"] for case in cases.values()}
    found: dict[str, Any] = {}
    for model_type in (t for t in TOWERS if t not in known):
        config = {"model_type": model_type, **TOWERS[model_type].config}
        found[f"{model_type} config"] = {"config": config}
        for number, variant in enumerate(TOWERS[model_type].variants):
            found[f"{model_type} variant {number}"] = {"config": {**config, **variant.changes}}
    return found


def refresh_pairs(python_4: str, python_5: str, everything: bool) -> None:
    pairs = json.loads((NAMES / "pairs.json").read_text("utf-8"))
    pairs |= new_pairs(pairs)
    asked = unanswered(pairs, everything)
    cases = {pair: {"config": content.get("config") or pair_fields(pair)} for pair, content in asked.items()}
    if not cases:
        return
    questions = {
        "pt_v4": (python_4, "state_dict"),
        "pt_v5": (python_5, "saved"),
        "pt_v5_live": (python_5, "state_dict"),
    }
    for column, (python, question) in questions.items():
        for pair, names in ask(python, question, cases)[1].items():
            is_sorted = column != "pt_v5_live" and isinstance(names, dict)
            pairs[pair][column] = dict(sorted(names.items())) if is_sorted else names
    (NAMES / "pairs.json").write_text(json.dumps(pairs, indent=0) + "\n", "utf-8")


def refresh_towers(python_4: str, python_5: str, everything: bool) -> None:
    known = json.loads((NAMES / "odd.json").read_text("utf-8"))
    added = new_cases(known)
    asked = unanswered({**known, **added}, everything)
    if not asked:
        return
    questions = {
        "pt_v4": (python_4, "state_dict"),
        "tf": (python_4, "tensorflow"),
        "pt_v5": (python_5, "saved"),
        "pt_v5_live": (python_5, "state_dict"),
        "pt_v5_of_live": (python_5, "same"),
    }
    refresh_fields([ask(python, "fields", asked) for python in (python_4, python_5)], everything)
    columns = {column: ask(python, question, asked)[1] for column, (python, question) in questions.items()}
    answered = {
        case: {"config": content["config"], **{column: columns[column][case] for column in columns}}
        for case, content in asked.items()
        if case not in added or not only_computes(case, added, columns)
    }
    lines = [f"{json.dumps(case)}: {json.dumps(content)}" for case, content in {**known, **answered}.items()]
    (NAMES / "odd.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def only_computes(case: str, added: dict[str, Any], columns: dict[str, Any]) -> bool:
    """Whether a case is a variant of the computation, not of names or shapes."""
    usual = f"{added[case]['config']['model_type']} config"
    return " variant " in case and all(column[case] == column[usual] for column in columns.values())


def refresh_fields(answers: list[tuple[str, dict[str, Any]]], everything: bool) -> None:
    """The fields of every config class, by version of transformers and model type.

    Raises:
        SystemExit: the table is of other versions than those that answered.
    """
    file = NAMES / "config_fields.json"
    known = {} if everything else json.loads(file.read_text("utf-8"))
    if known and list(known) != [version for version, _ in answers]:
        raise SystemExit(f"{file.name} is of transformers {' and '.join(known)}; ask for --all with another version")
    fields = {version: {**known.get(version, {}), **types} for version, types in answers}
    lines = [
        f"{json.dumps(version)}: {{\n"
        + ",\n".join(f"{json.dumps(t)}: {json.dumps(f, sort_keys=True)}" for t, f in sorted(types.items()))
        + "\n}"
        for version, types in fields.items()
    ]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
