"""Towers that are checked in full: what changed, a quarter of the rest, and in four days every one."""

from __future__ import annotations

from types import SimpleNamespace

from converter.names.families import JOINED, families
from tests.sampling import FAMILY_PARTS, PARTS, changed_files, families_in_turn, files_of, in_full, towers_of
from tests.torture import FULL
from tests.towers import TOWERS


def test_a_tower_is_of_its_rules_its_file_and_their_parts() -> None:
    files = files_of("xlm-roberta")
    assert {
        "rename_rules/towers/roberta.toml",
        "converter/models/towers/roberta.py",
        "converter/models/blocks.py",
    } <= files
    assert "converter/models/towers/swin.py" not in files
    assert all(files_of(model_type) for model_type in TOWERS)


def test_what_changed_is_checked_and_in_the_end_everything() -> None:
    changed = frozenset({"converter/models/towers/swin.py"})
    rounds = [in_full(changed, turn) for turn in range(PARTS)]
    assert all("swin" in found for found in rounds)
    assert frozenset().union(*rounds) == set(TOWERS)
    if not FULL:
        assert all(len(found) < len(TOWERS) / 2 for found in rounds)
        assert len(in_full(frozenset({"README.md"}), 0)) <= -(-len(TOWERS) // PARTS)


def test_where_nothing_is_known_of_changes_every_tower_is_checked() -> None:
    assert changed_files("no-such-commit") is None
    assert in_full(None) == set(TOWERS)
    assert in_full(frozenset({"converter/models/tower.py"}), 0) == set(TOWERS)


def test_the_towers_of_a_case() -> None:
    assert towers_of({"kind": "vit", "xla": True}) == {"vit"}
    assert towers_of({"case": SimpleNamespace(kind="swin")}) == {"swin"}
    assert towers_of({"vision": "deit", "text": "albert", "changes": {}}) == {"deit", "albert"}
    assert towers_of({"name": "clip_vision_model+bert"}) == frozenset()


def test_families_take_turns_and_those_changed_lately_are_tried() -> None:
    some = frozenset({"README.md"})
    rounds = [families_in_turn(some, turn) for turn in range(FAMILY_PARTS)]
    assert {name for chosen in rounds for name in chosen} == set(families())
    if not FULL:
        assert all({JOINED, "clip"} <= set(chosen) < set(families()) for chosen in rounds)
        for file in ("converter/models/towers/siglip2_vision.py", "rename_rules/families/siglip2.toml",
                     "rename_rules/towers/siglip2_vision.toml", "converter/models/families/siglip2.py"):  # fmt: skip
            assert all("siglip2" in families_in_turn(frozenset({file}), turn) for turn in range(FAMILY_PARTS)), file
    assert (
        families_in_turn(None) == families_in_turn(frozenset({"converter/models/two_towers.py"})) == tuple(families())
    )
