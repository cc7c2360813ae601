"""The next step of a message works: each is carried out as it stands there, in folders whose names need quotes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from converter import ConverterError, pt2tf
from converter.cli import cli
from tests.bundles import write_bundle
from tests.tiny import config_of, in_tensorflow, load, tensors_of, write_checkpoint

CONFIG = config_of("clip_vision_model", "bert")
WEIGHTS = tensors_of(CONFIG)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "mein Modell's 汉字", CONFIG, WEIGHTS)


def said(*words: object) -> str:
    """What the command line complains of."""
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == 1, done.output
    return done.stderr.removeprefix("convert: ").strip()


def run(command: str, **places: Path) -> str:
    """Runs a line as a shell would split it, OUT and the like being the places that are given; gives what it printed."""
    program, *words = shlex.split(command)
    assert program == "convert"
    done = CliRunner().invoke(cli, [str(places.get(word, word)) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def python(call: str, state_dict: dict[str, Any], out: Path) -> Any:
    """Evaluates a call that a message gives."""
    return eval(
        call.replace("config=...", "config=CONFIG"),
        {"pt2tf": pt2tf, "numpy": np, "CONFIG": CONFIG, "OUT": out, "state_dict": state_dict},
    )


def test_next_lines(source: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["pt2tf", str(source), str(tmp_path / "aus gabe é")])
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line.startswith(("next: ", "back: ")))
    assert "matches" in run(f"{lines['next']} --weights-only")
    run(lines["back"], OUT=tmp_path / "back")
    inspected = CliRunner().invoke(cli, ["inspect", str(tmp_path / "aus gabe é")]).stdout
    run(inspected.partition("next: ")[2].splitlines()[0], OUT=tmp_path / "again")
    assert load(tmp_path / "back" / "model.safetensors").keys() == WEIGHTS.keys()


def test_the_other_direction(source: Path, tmp_path: Path) -> None:
    message = said("tf2pt", source, tmp_path / "out")
    found = re.search(r"`convert (\w+)`$", message)
    assert found is not None, message
    run(f"convert {found[1]} SRC OUT", SRC=source, OUT=tmp_path / "out")


def test_the_folder_of_a_config(source: Path, tmp_path: Path) -> None:
    message = said("pt2tf", source, tmp_path / "out", "--config", source)
    named = Path(message.partition("name the file in it, ")[2])
    run("convert pt2tf SRC OUT --config FILE", SRC=source, OUT=tmp_path / "out", FILE=named)


def test_a_head_is_left_out(source: Path, tmp_path: Path) -> None:
    held = {f"net.{name}": array for name, array in WEIGHTS.items()} | {"loss.weight": np.ones(3, "f4")}
    save_file(held, source / "model.safetensors", metadata={"format": "pt"})
    message = said("pt2tf", source, tmp_path / "out")
    done = python(message.partition("leave them out: ")[2], held, tmp_path / "out")
    assert (done.tensors, dict(done.dialects)) == (len(WEIGHTS), {"v4, net.": len(WEIGHTS)})


def test_a_lost_scale_is_put_in(source: Path, tmp_path: Path) -> None:
    held = {name: array for name, array in WEIGHTS.items() if name != "logit_scale"}
    save_file(held, source / "model.safetensors", metadata={"format": "pt"})
    call = said("pt2tf", source, tmp_path / "out").partition("(the state_dict by PyTorch's names): ")[2]
    assert python(call.replace("NUMBER", "3.25"), held, tmp_path / "out").tensors == len(WEIGHTS)


def test_one_of_two_models(source: Path, tmp_path: Path) -> None:
    held = {f"{side}.{name}": array for side in ("student", "teacher") for name, array in WEIGHTS.items()}
    save_file(held, source / "model.safetensors", metadata={"format": "pt"})
    message = said("pt2tf", source, tmp_path / "out")
    assert python(message.partition("the one that you want: ")[2], held, tmp_path / "out").tensors == len(WEIGHTS)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model card.md"])
def test_a_file_beside_the_weights(source: Path, tmp_path: Path, name: str) -> None:
    if name != "config.json":
        (source / name).write_text("some words, one a line\n")
    message = said("pt2tf", source / name, tmp_path / "out")
    assert message.startswith(f"{source / name}: not weights, but a file beside them; name the folder, ")
    run(f"convert pt2tf {message.rpartition(', ')[2]} OUT", OUT=tmp_path / "out")


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # torch warns of what it has in two ways
@pytest.mark.parametrize("kind", ["parametrize", "prune", "weight_norm", "spectral_norm"])
def test_weights_that_are_computed_from_others(source: Path, tmp_path: Path, kind: str) -> None:
    import torch
    import torch.nn.utils.prune
    from torch import nn

    model = nn.ModuleDict({"text_projection": nn.Linear(*WEIGHTS["text_projection.weight"].shape[::-1], bias=False)})
    {
        "parametrize": nn.utils.parametrizations.weight_norm,
        "prune": lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.3),
        "weight_norm": nn.utils.weight_norm,
        "spectral_norm": nn.utils.spectral_norm,
    }[kind](model["text_projection"])

    def save() -> None:
        weights = {**WEIGHTS, **{name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}}
        if "text_projection.weight" not in model.state_dict():
            del weights["text_projection.weight"]
        save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, source / "model.safetensors")

    save()
    message = said("pt2tf", source, tmp_path / "out")
    step = message.partition("; put the result in its place and save again: ")[2]
    exec(step, {"model": model, "torch": torch})
    save()
    run("convert pt2tf SRC OUT", SRC=source, OUT=tmp_path / "out")


def test_links_that_lead_nowhere(source: Path, tmp_path: Path) -> None:
    """A snapshot in the cache of the Hub, copied without what its links lead to."""
    snapshot, blobs = tmp_path / "snapshots" / "main", tmp_path / "blobs"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for file in source.iterdir():
        shutil.move(file, blobs / f"b-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/b-{file.name}")
    shutil.copytree(snapshot, tmp_path / "an other" / "place" / "x", symlinks=True)
    message = said("pt2tf", tmp_path / "an other" / "place" / "x", tmp_path / "out")
    command = re.search(r"copy the folder with `([^`]+)`", message)
    assert command is not None, message
    subprocess.run([*shlex.split(command[1]), str(snapshot), str(tmp_path / "whole")], check=True)
    run("convert pt2tf SRC OUT", SRC=tmp_path / "whole", OUT=tmp_path / "out")


def test_an_archive_is_unpacked(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for file in source.iterdir():
            archive.write(file, f"m/{file.name}")
    assert "; unpack it, and name the folder with config.json and the weights" in said(
        "pt2tf", tmp_path / "model.zip", tmp_path / "out"
    )
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    run("convert pt2tf SRC OUT", SRC=tmp_path / "unpacked" / "m", OUT=tmp_path / "out")


def test_one_of_several_checkpoints(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").unlink()
    for name in ("a 1", "b 2"):
        write_bundle(source / name, in_tensorflow(CONFIG, WEIGHTS))
    message = said("tf2pt", source, tmp_path / "out")
    run(f"convert tf2pt {message.partition('name one: ')[2]} OUT", OUT=tmp_path / "out")


def test_a_shard_leads_to_its_index(source: Path, tmp_path: Path) -> None:
    pt2tf(source, tmp_path / "in parts", format="safetensors", max_shard_size="100KB")
    shard = sorted((tmp_path / "in parts").glob("model-*.safetensors"))[0]
    message = said("tf2pt", shard, tmp_path / "out")
    named = message.partition("name their index, ")[2].removesuffix(", which reads all")
    run(f"convert tf2pt {named} OUT", OUT=tmp_path / "out")


def test_without_a_word_there_is_no_way(tmp_path: Path) -> None:
    """Every refusal here has a next step behind its last semicolon."""
    with pytest.raises(ConverterError) as caught:
        pt2tf(tmp_path / "nosuch", tmp_path / "out")
    assert str(caught.value).endswith("; name a folder that save_pretrained wrote, or a weights file in one")


@pytest.mark.torch
def test_one_of_two_dicts(source: Path, tmp_path: Path) -> None:
    import torch

    file = source / "pytorch_model.bin"
    (source / "model.safetensors").unlink()
    weights = {name: torch.tensor(array) for name, array in WEIGHTS.items()}
    torch.save({"generator": weights, "other": {"a": torch.ones(2)}}, file)
    message = said("pt2tf", source, tmp_path / "out")
    call = message[message.index("torch.save(") :]
    other = source / "pytorch_model.bin.new"
    eval(call, {"torch": torch, "FILE": file, "KEY": "generator", "OTHER_FILE": other})
    other.replace(file)
    run("convert pt2tf SRC OUT", SRC=source, OUT=tmp_path / "out")


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # torch warns that one process saves alone
def test_a_distributed_checkpoint_is_put_together(source: Path, tmp_path: Path) -> None:
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    (source / "model.safetensors").unlink()
    weights = {name: torch.tensor(array) for name, array in WEIGHTS.items()}
    dcp.save({"model": weights}, checkpoint_id=source / "pytorch_model_fsdp_0", no_dist=True)
    assert "torch.distributed.checkpoint.format_utils.dcp_to_torch_save" in said("pt2tf", source, tmp_path / "out")
    dcp_to_torch_save(source / "pytorch_model_fsdp_0", source / "pytorch_model.bin")
    run("convert pt2tf SRC OUT", SRC=source, OUT=tmp_path / "out")


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # torch warns of what its quantisation will become
def test_tensors_that_hold_no_values_as_they_are(source: Path, tmp_path: Path) -> None:
    """On the meta device, sparse, and one level too deep: the folder itself, or what the message says to pass."""
    import torch

    weights = {name: torch.tensor(array) for name, array in WEIGHTS.items()}
    for held, said in (
        ({"logit_scale": weights["logit_scale"].to("meta")}, "Convert the folder itself: convert to tf FOLDER OUT"),
        ({"text_projection.weight": weights["text_projection.weight"].to_sparse()}, "; pass TENSOR.to_dense()"),
        (
            {"state_dict": weights},
            "; if it is the state dict, pass it alone: pt2tf(checkpoint['state_dict'], OUT, config=...)",
        ),
        ({1: weights["logit_scale"]}, "state dict: a name is 1 (int), expected a text"),
    ):
        with pytest.raises(ConverterError) as caught:
            pt2tf({**weights, **held}, tmp_path / "out", config=CONFIG)
        assert str(caught.value).endswith(said)
    run("convert to flax SRC OUT", SRC=source, OUT=tmp_path / "flax")
    run("convert to tf FOLDER OUT", FOLDER=tmp_path / "flax", OUT=tmp_path / "tf")
    assert pt2tf({"state_dict": weights}["state_dict"], tmp_path / "out", config=CONFIG).tensors == len(WEIGHTS)


@pytest.mark.torch
def test_a_model_of_another_kind_is_loaded_by_the_class_that_is_named(source: Path, tmp_path: Path) -> None:
    import transformers

    sides = {"encoder": CONFIG["vision_config"], "decoder": {**CONFIG["text_config"], "is_decoder": True}}
    for kind in ("vision-encoder-decoder", "encoder-decoder"):
        (source / "config.json").write_text(json.dumps({"model_type": kind}))
        named = re.search(r"load it with transformers' (\w+)$", said("pt2tf", source, tmp_path / "out"))
        assert named is not None
        both = {**sides, "encoder": {**CONFIG["text_config"]}} if kind == "encoder-decoder" else sides
        both["decoder"] = {**both["decoder"], "add_cross_attention": True}
        both["encoder"] = {**both["encoder"], "model_type": "vit" if kind != "encoder-decoder" else "bert"}
        of = transformers.AutoConfig.for_model(kind, **both)
        getattr(transformers, named[1])(of).save_pretrained(tmp_path / kind)
        assert named[1] in said("pt2tf", tmp_path / kind, tmp_path / "out")
        assert getattr(transformers, named[1]).from_pretrained(tmp_path / kind).num_parameters() > 0


@pytest.mark.tf
def test_from_pretrained_instead_of_load_weights(source: Path, tmp_path: Path) -> None:
    """And what the messages about .keras and .weights.h5 say to do."""
    import keras

    from converter import TFVisionTextDualEncoderModel

    pt2tf(source, tmp_path / "tf")
    model = TFVisionTextDualEncoderModel.from_pretrained(source)
    with pytest.raises(ConverterError) as caught:
        model.load_weights(source / "model.safetensors")
    call = re.search(r"Use (.*), which reads", str(caught.value))
    assert call is not None
    assert eval(call[1], {"TFVisionTextDualEncoderModel": TFVisionTextDualEncoderModel}).built
    model.save(tmp_path / "m.keras")
    assert "keras.saving.load_model" in said("tf2pt", tmp_path / "m.keras", tmp_path / "out")
    keras.saving.load_model(tmp_path / "m.keras").save_pretrained(tmp_path / "of keras")
    run("convert tf2pt SRC OUT", SRC=tmp_path / "of keras", OUT=tmp_path / "out")
    model.save_weights(tmp_path / "m.weights.h5")
    assert "load them into the model, write it with save_pretrained" in said(
        "tf2pt", tmp_path / "m.weights.h5", tmp_path / "out2"
    )
    fresh = TFVisionTextDualEncoderModel(model.config)
    fresh.build()
    fresh.load_weights(tmp_path / "m.weights.h5")
    fresh.save_pretrained(tmp_path / "of weights")
    run("convert tf2pt SRC OUT", SRC=tmp_path / "of weights", OUT=tmp_path / "out2")
    for place in ("out", "out2"):
        assert load(tmp_path / place / "model.safetensors")["logit_scale"] == WEIGHTS["logit_scale"]


@pytest.mark.tf
def test_what_our_export_writes_is_read(source: Path, tmp_path: Path) -> None:
    from converter import TFVisionTextDualEncoderModel

    TFVisionTextDualEncoderModel.from_pretrained(source).export(tmp_path / "saved")
    message = said("tf2pt", tmp_path / "saved", tmp_path / "out")
    assert "--config FILE" in message
    config = source / "config.json"
    run("convert tf2pt SRC OUT --config FILE", SRC=tmp_path / "saved", OUT=tmp_path / "out", FILE=config)
    found = load(tmp_path / "out" / "model.safetensors")
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in WEIGHTS.items()
    }
