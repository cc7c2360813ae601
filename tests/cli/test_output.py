"""Whole outputs, to the letter: what a person reads, and what a machine does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import EXPECTED_TEXT, Convert
from tests.crash.sources import content
from tests.tiny import BFLOAT16, config_of, load, tensors_of, write_checkpoint, write_tiny

# A line per tower, with its share of the parameters.
TOWERS = (
    "  vision  clip_vision_model  █████████████░░░░░░░   64%  55 tensors, 72,240 parameters\n"
    "  text    bert               ███████░░░░░░░░░░░░░   34%  39 tensors, 38,912 parameters\n"
)


def test_there_and_back(convert: Convert, here: Path) -> None:
    assert convert("pt2tf", "src", "tf") == (
        0,
        "src -> tf/tf_model.h5: matches its source bit for bit\n"
        f"{TOWERS}"
        "  97 tensors, 113,617 parameters, 0.5 MB in 0.00 s\n"
        "  config.json: logit_scale_init_value: 2.6592 -> 3.309999942779541\n"
        "next: convert verify tf\n"
        "back: convert tf2pt tf OUT\n",
        "",
    )
    assert convert("tf2pt", "tf", "pt", "--no-check") == (
        0,
        "tf -> pt/model.safetensors: converted, not checked against its source\n"
        f"{TOWERS}"
        "  97 tensors, 113,617 parameters, 0.5 MB in 0.00 s\n"
        "next: convert verify pt\n"
        "back: convert pt2tf pt OUT\n",
        "",
    )


def test_quiet(convert: Convert, here: Path) -> None:
    assert convert("pt2tf", "src", "tf", "--quiet") == (0, "", "")
    assert (here / "tf" / "tf_model.h5").is_file()


def test_casts_drops_and_unknown_fields_are_said(convert: Convert, here: Path) -> None:
    config = config_of("swin", fields={"zeta": 1, "dtype": "bfloat16"})
    tensors = tensors_of(config, BFLOAT16) | {"text_model.embeddings.position_ids": np.arange(41)[None]}
    write_checkpoint(here / "odd", config, tensors)
    assert convert("pt2tf", "odd", "tf") == (
        0,
        "odd -> tf/tf_model.h5: matches its source bit for bit\n"
        "  vision  swin  ████████░░░░░░░░░░░░   42%  77 tensors, 16,990 parameters\n"
        "  text    bert  ███████████░░░░░░░░░   54%  39 tensors, 21,940 parameters\n"
        "  119 tensors, 40,387 parameters, 0.2 MB in 0.00 s\n"
        "  119 tensors bfloat16 -> float32\n"
        "  left out: text_model.embeddings.position_ids (1): 0, 1, 2 ..., which early versions stored; every version "
        "computes them\n"
        "  rebuilt: vision_model/swin/encoder/layers.{0...1}/blocks.{0...1}/attention/self/relative_position_index\n"
        "  config.json: logit_scale_init_value: 2.6592 -> 3.3125\n"
        '  config.json: dtype: "bfloat16" -> "float32"\n'
        "  config.json: unknown fields kept: zeta\n"
        "next: convert verify tf\n"
        "back: convert tf2pt tf OUT\n",
        "",
    )


def test_what_training_put_around_names_is_said(convert: Convert, here: Path) -> None:
    config = json.loads((here / "src" / "config.json").read_text())
    held = {f"model._orig_mod.{name}": array for name, array in load(here / "src" / "model.safetensors").items()}
    write_checkpoint(here / "src", config, held | {"global_step": np.array(7)})
    run = convert("pt2tf", "src", "tf")
    assert (run.status, run.err) == (0, "")
    assert run.out.splitlines()[4:6] == [
        "  names in the source: 97 v4, model. _orig_mod.",
        "  left out: global_step (1): how many steps were trained, no weight",
    ]


def test_dry_run(convert: Convert, here: Path) -> None:
    run = convert("pt2tf", "src", "tf", "--dry-run")
    assert (run.status, run.err) == (0, "")
    assert run.out == (EXPECTED_TEXT / "dry_run.txt").read_text("utf-8")
    assert [path.name for path in here.iterdir()] == ["src"]


def test_dry_run_goes_where_something_is_already(convert: Convert, here: Path) -> None:
    (here / "tf").mkdir()
    assert convert("pt2tf", "src", "tf", "--dry-run").status == 0
    assert list((here / "tf").iterdir()) == []


def test_what_is_replaced_is_said(convert: Convert, here: Path) -> None:
    """Beforehand and afterwards, for people and for machines; a folder that is new holds nothing of the kind."""
    assert "replaced" not in convert("pt2tf", "src", "tf").out
    (here / "tf" / ".git").mkdir()
    for name in ("README.md", "parity.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (here / "tf" / name).write_text("mine")
    before = content(here)
    names = ["conversion.json", "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    written = (path.name for path in (here / "tf").iterdir() if path.name not in (*names, ".git", "README.md"))
    names += sorted(written)
    for more, words in ((("--dry-run",), ("would be replaced", "would stay")), ((), ("replaced", "stayed"))):
        run = convert("pt2tf", "src", "tf", "--overwrite", "--json", "--dry-run")
        found = json.loads(run.out)
        assert (found["replaced"], found["kept"]) == (names, 2)
        assert content(here) == before
        run = convert("pt2tf", "src", "tf", "--overwrite", *more)
        assert (run.status, run.err) == (0, "")
        said = next(one for one in run.out.splitlines() if "replaced in" in one)
        assert said.startswith(f"  {words[0]} in tf: conversion.json, config.json, ")
        assert said.endswith(f"; 2 other files and folders {words[1]}")
    assert (here / "tf" / "README.md").read_text() == "mine"
    assert not (here / "tf" / "parity.json").exists()
    (here / "tf" / "README.md").unlink()
    assert "; 1 other file or folder would stay\n" in convert("pt2tf", "src", "tf", "--overwrite", "--dry-run").out
    found = json.loads(convert("pt2tf", "src", "tf", "--dry-run", "--json").out)
    assert (found["replaced"], found["kept"]) == ([], 0)


def test_a_tilde_is_the_home_folder(convert: Convert, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell puts it there after ``=``, or in quotes; and no folder ``~`` is made."""
    monkeypatch.setenv("HOME", str(here / "home"))
    assert convert("pt2tf", "src", "~/tf", "--config=src/config.json").status == 0
    (here / "home" / "config.json").write_bytes((here / "src" / "config.json").read_bytes())
    assert convert("tf2pt", "~/tf", "~/pt", "--config=~/config.json").status == 0
    assert convert("inspect", "~/pt").status == 0
    assert convert("verify", "~/tf", "--weights-only", "--reference=~/pt", "--report=~/report.md").status == 0
    assert sorted(path.name for path in (here / "home").iterdir()) == ["config.json", "pt", "report.md", "tf"]
    assert sorted(path.name for path in here.iterdir()) == ["home", "src"]
    run = convert("pt2tf", "src", "~nobody-of-that-name/tf")
    assert (run.status, run.err) == (
        1,
        "convert: ~nobody-of-that-name/tf: no such home folder; write the full path, or put ./ before the name\n",
    )
    assert sorted(path.name for path in here.iterdir()) == ["home", "src"]
    monkeypatch.delenv("HOME")
    for name in ("./~", "./~mine"):  # which is how to say that it is meant as it stands there
        for words in (["pt2tf", "src"], ["to", "tf", "src"], ["combine", "src", "src"]):
            assert convert(*words, name, *(["--overwrite"] if (here / name).exists() else [])).status == 0
        assert convert("inspect", name).status == 0
        assert convert("pt2tf", name, f"{name}2").status == 0
        assert convert("verify", f"{name}2", "--weights-only").status == 0
    assert sorted(path.name for path in here.iterdir()) == ["home", "src", "~", "~2", "~mine", "~mine2"]


@pytest.mark.parametrize(("name", "command"), [("pt", "pt2tf"), ("tf", "tf2pt")])
def test_inspect(convert: Convert, here: Path, name: str, command: str) -> None:
    convert("pt2tf", "src", "tf")
    (here / "src").rename(here / "pt")
    first = {
        "pt": "pt: can be converted\n  container   PyTorch safetensors, 0.5 MB in model.safetensors\n",
        "tf": "tf: can be converted\n  container   tf_model.h5, 0.6 MB in tf_model.h5\n",
    }[name]
    names = {"pt": '  names       97 v4\n  metadata    {"format": "pt"}\n', "tf": "  names       97 TensorFlow\n"}[name]
    shares = {
        "pt": "text_model 38,912, vision_model 72,240, text_projection 1,120, visual_projection 1,344, logit_scale 1",
        "tf": "vision_model 72,240, text_model 38,912, visual_projection 1,344, text_projection 1,120, logit_scale 1",
    }[name]
    run = convert("inspect", name)
    assert (run.status, run.err) == (0, "")
    found = run.out.splitlines(keepends=True)
    assert sorted(found[5].removeprefix("  parameters  113,617: ").strip().split(", ")) == sorted(shares.split(", "))
    del found[5]
    assert "".join(found) == (
        f"{first}"
        "  vision      clip_vision_model: hidden_size 48, num_hidden_layers 3, num_attention_heads 3, image_size 40, "
        "patch_size 8\n"
        "  text        bert: hidden_size 40, num_hidden_layers 2, num_attention_heads 5, vocab_size 137, "
        "max_position_embeddings 64\n"
        "  tensors     97: 97 float32\n"
        f"{names}"
        f"next: convert {command} {name} OUT\n"
    )


def test_inspect_of_images_that_are_cut_up(convert: Convert, here: Path) -> None:
    write_tiny(here / "src", family="siglip2")
    run = convert("inspect", "src")
    assert (run.status, run.err) == (0, "")
    assert (
        "  vision      siglip2_vision_model: hidden_size 32, num_hidden_layers 3, num_attention_heads 4, num_patches 25, "
        "patch_size 6\n"
    ) in run.out


def test_inspect_says_why_not(convert: Convert, here: Path) -> None:
    (here / "src" / "config.json").write_text('{"model_type": "blip"}')
    run = convert("inspect", "src")
    assert (run.status, run.err) == (0, "")
    assert run.out.splitlines()[0] == (
        "src: CANNOT be converted: src/config.json: expected a model with two towers (altclip, chinese_clip, clip, "
        "metaclip_2, siglip, siglip2, vision-text-dual-encoder), found model_type 'blip'; convert a folder "
        "that save_pretrained of such a model wrote"
    )


def test_inspect_for_machines(convert: Convert, here: Path) -> None:
    run = convert("inspect", "src", "--json")
    assert (run.status, run.err) == (0, "")
    found = json.loads(run.out)
    assert found == {
        "format": 1,
        "source": "src",
        "commit": None,
        "framework": "pt",
        "container": "PyTorch safetensors",
        "files": {"model.safetensors": 465980},
        "metadata": {"format": "pt"},
        "tensors": 97,
        "parameters": {
            "logit_scale": 1, "text_model": 38912, "text_projection": 1120, "vision_model": 72240,
            "visual_projection": 1344,
        },
        "dtypes": {"float32": 97},
        "dialects": {"v4": 97},
        "family": "vision-text-dual-encoder",
        "towers": {
            "vision": {
                "model_type": "clip_vision_model", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3,
                "image_size": 40, "patch_size": 8,
            },
            "text": {
                "model_type": "bert", "hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 5,
                "vocab_size": 137, "max_position_embeddings": 64,
            },
        },
        "config_unknown": [],
        "dropped": {},
        "restored": [],
        "problem": None,
        "nbytes": 465980,
        "file_records": [{"name": "model.safetensors", "size": 465980}],
        "dropped_tensors": [],
        "tower_types": {"vision": "clip_vision_model", "text": "bert"},
        "parameter_count": 113617,
    }  # fmt: skip


def test_result_for_machines(convert: Convert, here: Path) -> None:
    run = convert("pt2tf", "src", "tf", "--json")
    assert (run.status, run.err) == (0, "")
    found = json.loads(run.out)
    manifest = json.loads((here / "tf" / "conversion.json").read_text())
    assert found.pop("seconds") > 0
    assert found.pop("files") == found.pop("file_records") == manifest["files"]
    assert found == {
        "format": 1,
        "direction": "pt2tf",
        "family": "vision-text-dual-encoder",
        "source": "src",
        "commit": None,
        "out": "tf",
        "container": "PyTorch safetensors",
        "weights": "tf_model.h5",
        "towers": ["clip_vision_model", "bert"],
        "tensors": 97,
        "parameters": 113617,
        "nbytes": 454468,
        "dialects": {"v4": 97},
        "casts": {},
        "overflowed": {},
        "dropped": [],
        "restored": [],
        "made_new": [],
        "config_rewritten": ["config.json: logit_scale_init_value: 2.6592 -> 3.309999942779541"],
        "config_unknown": [],
        "left_behind": [],
        "replaced": [],
        "kept": 0,
        "checked": True,
        "dry_run": False,
        "dropped_tensors": [],
        "tower_types": {"vision": "clip_vision_model", "text": "bert"},
        "parameter_count": 113617,
    }


def test_names_that_would_take_over_a_terminal(convert: Convert, here: Path) -> None:
    write_tiny(here / "evil")
    config = json.loads((here / "evil" / "config.json").read_text())
    (here / "evil" / "config.json").write_text(json.dumps(config | {"\x1b[2J\r\nzeta": 1}))
    run = convert("inspect", "evil")
    assert r"  config.json unknown fields kept: \x1b[2J\r\nzeta" in run.out.splitlines()
    assert "\x1b" not in run.out + convert("pt2tf", "evil", "tf").out


def test_what_was_combined_is_not_sent_to_verify(convert: Convert, here: Path) -> None:
    """It has no source that it could be equal to."""
    write_tiny(here / "other")
    said = convert("combine", "src", "other", "both").out
    assert said.endswith("\nnext: convert pt2tf both OUT\n")
    said = convert("combine", "src", "src", "same", "--to", "tf").out
    assert "random, train before use" not in said
    assert said.endswith("\nnext: convert tf2pt same OUT\n")
    assert convert("pt2tf", "both", "tf").status == 0


def test_a_folder_whose_name_is_not_text(convert: Convert, here: Path) -> None:
    (here / "src").rename(here / "s\udcffc")
    assert r"s\udcffc -> tf/tf_model.h5: matches" in convert("pt2tf", "s\udcffc", "tf").out
    assert convert("inspect", "s\udcffc").out.startswith(r"s\udcffc: can be converted")
