"""The limits that SECURITY.md states are those of the code, all of them; real models are far from them."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

from converter.checkpoints import pickle_machine, safetensors
from converter.checkpoints.pickle_machine import MAX_OPCODES, MAX_PICKLE_BYTES
from converter.checkpoints.torch_pickle import write_pickle
from converter.names.configs import check_config
from converter.names.rules import MAX_TENSORS, compile_rules
from converter.specs import MAX_NAME_CHARACTERS
from converter.tensors.casts import DTYPES

ROOT = Path(__file__).resolve().parents[2]
UNITS = {"": 1, "characters": 1, "bytes": 1, "s": 1, "MiB": 2**20, "GiB": 2**30}
# The largest of their families that are published: XLM-R XXL, and DINOv2 giant.
LARGEST = {
    "model_type": "vision-text-dual-encoder",
    "vision_config": {"model_type": "dinov2", "hidden_size": 1536, "num_hidden_layers": 40, "use_swiglu_ffn": True},
    "text_config": {"model_type": "xlm-roberta-xl", "hidden_size": 4096, "num_hidden_layers": 48},
}


def stated() -> dict[str, tuple[int, str]]:
    """By constant, the limit that SECURITY.md states, and the reason."""
    limits, _, _ = (ROOT / "SECURITY.md").read_text("utf-8").partition("\n## Where a guard is weaker")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in limits.splitlines()
        if line.startswith("| ") and not line.startswith("| what | limit ")
    ]
    found = {constant.strip("`"): (number(limit), why) for _, limit, why, constant in rows}
    assert len(found) == len(rows)
    return found


def number(limit: str) -> int:
    match = re.fullmatch(r"(2\^)?([\d,]+) ?(\w*)", limit)
    assert match is not None, limit
    plain = int(match[2].replace(",", ""))
    return (2**plain if match[1] else plain) * UNITS[match[3]]


def constants() -> dict[str, int]:
    """Every constant of the package that is called a limit, by module and name."""
    found = {}
    for path in sorted((ROOT / "converter").rglob("*.py")):
        where = path.relative_to(ROOT).with_suffix("")
        names = re.findall(r"^_?(MAX_\w+)\b.* = ", path.read_text("utf-8"), re.MULTILINE)
        module = importlib.import_module(".".join(where.parts)) if names else None
        for name in names:
            found[f"{where.relative_to('converter').as_posix()}.{name}"] = getattr(module, name)
    return found


# What is written is cut at that, whatever it holds: a limit of the format, not of what is read.
OF_THE_FORMAT = {"checkpoints/hdf5.MAX_ATTRIBUTE_BYTES"}


def test_each_is_stated_and_each_that_is_stated_is_there() -> None:
    found = {name: value for name, value in constants().items() if name not in OF_THE_FORMAT}
    assert {name: value for name, (value, _) in stated().items()} == found
    assert len(found) > 40


def test_each_has_a_reason() -> None:
    assert all(why for _, why in stated().values())


def test_nothing_raises_one() -> None:
    """Each is set once, at the top of its module, by numbers alone; nowhere else is anything set that is called so."""
    sound = 0
    for path in sorted((ROOT / "converter").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and _limits_set(node):
                assert all(isinstance(part, _ARITHMETIC) for part in ast.walk(node.value)), path
                sound += len(_limits_set(node))
        assert len(_limits_set(tree)) == sum(
            len(_limits_set(node)) for node in tree.body if isinstance(node, ast.Assign)
        )
    assert sound == len(constants())


_ARITHMETIC = (ast.Constant, ast.BinOp, ast.Mult, ast.Pow)


def _limits_set(tree: ast.AST) -> list[str]:
    """Names of limits that some code sets, as a variable or as an attribute of a module."""
    stored = (node for node in ast.walk(tree) if isinstance(getattr(node, "ctx", None), ast.Store))
    names = (str(getattr(node, "id", None) or getattr(node, "attr", "")) for node in stored)
    return [name for name in names if re.match(r"_?MAX_", name)]


def test_the_largest_models_are_far_from_them(tmp_path: Path) -> None:
    rules = compile_rules(check_config(LARGEST)).tensors
    assert 1000 < len(rules) < MAX_TENSORS / 20
    names = [(rule.names["pt"], "float32", (1,) * len(rule.shape)) for rule in rules]
    assert max(len(name) for name, _, _ in names) < MAX_NAME_CHARACTERS / 8
    safetensors.write_header(tmp_path / "x.safetensors", names, "pt")
    with (tmp_path / "x.safetensors").open("rb") as file:
        assert int.from_bytes(file.read(8), "little") < safetensors.MAX_HEADER_BYTES / 20
    assert len(write_pickle(names)) < MAX_PICKLE_BYTES / 20


def test_as_many_tensors_as_a_model_may_have_fit_everywhere() -> None:
    """The limits agree with one another: what ``rules.MAX_TENSORS`` allows, every reader reads."""
    name = "text_model.encoder.layer.{}.attention.output.LayerNorm.weight"
    tensors = [(name.format(number), "float32", (1024,)) for number in range(MAX_TENSORS)]
    text = write_pickle(tensors)
    assert len(text) < MAX_PICKLE_BYTES
    machine = pickle_machine.Machine(text, _Anything(), lambda _: None)
    assert len(machine.run()) == MAX_TENSORS
    assert MAX_OPCODES > MAX_TENSORS * 40
    header = sum(
        len(f'"{n}":{{"dtype":"F32","shape":[1024],"data_offsets":[{9**10},{9**10}]}},') for n, _, _ in tensors
    )
    assert header < safetensors.MAX_HEADER_BYTES
    assert DTYPES["float32"] == 4


class _Anything(dict[str, Any]):
    """Stands for every name of a pickle by a function that makes a dict."""

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, name: str) -> pickle_machine.Function:
        return pickle_machine.Function(lambda _: {})
