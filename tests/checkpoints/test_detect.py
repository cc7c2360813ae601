"""What a person gave: each kind of folder and file is taken, or named with the next step."""

from __future__ import annotations

import errno
import io
import os
import pickle
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save

from converter import pt2tf, tf2pt
from converter.checkpoints.detect import open_source, read_header
from converter.errors import ConverterError, CorruptCheckpoint, SourceError, UnsupportedContainer, WrongFramework
from converter.folder.files import inside
from tests.bundles import write_bundle
from tests.tiny import EXPECTED, FIXTURE, safetensors_bytes

OF_TF = (
    "not a TensorFlow 2 checkpoint, which is a valid .index file with .data files beside it; "
    "load it where it was made and write it with save_pretrained"
)

OF_CKPT = (
    "torch.save did not write this .ckpt, as it does Lightning's; if it belongs to a TensorFlow checkpoint, name the .index "
    "file beside it"
)


def zipped(name: str = "archive/data.pkl") -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, b"x")
    return held.getvalue()


def refusal(call: Callable[[], object], error: type[ConverterError] = SourceError) -> str:
    with pytest.raises(ConverterError) as caught:
        call()
    assert type(caught.value) is error
    return str(caught.value)


def opened(source: Path, framework: object = None) -> Callable[[], object]:
    return lambda: open_source(source, framework)  # type: ignore[arg-type]


def test_nothing_there(tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert refusal(opened(path)) == (
        f"{path}: not found; name a folder that save_pretrained wrote, or a weights file in one"
    )


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(opened(tmp_path / "pipe")) == (
        f"{tmp_path / 'pipe'}: neither a file nor a folder; name a folder that save_pretrained wrote"
    )


def test_an_empty_folder(tmp_path: Path) -> None:
    message = refusal(opened(tmp_path, "pt"))
    assert message.startswith(f"{tmp_path}: holds no weights (it is empty); expected model.safetensors or ")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes\n.txt").touch()
    (tmp_path / "old.ckpt").mkdir()
    assert refusal(opened(tmp_path)).startswith(rf"{tmp_path}: holds no weights (notes\n.txt, old.ckpt); expected ")


@pytest.mark.parametrize("source", [FIXTURE, FIXTURE / "model.safetensors"])
def test_pytorch_given_as_tensorflow(tmp_path: Path, source: Path) -> None:
    where = FIXTURE if source == FIXTURE else source
    assert refusal(lambda: tf2pt(source, tmp_path / "out"), WrongFramework) == (
        f"{where}: holds PyTorch weights, expected TensorFlow; use `convert pt2tf`"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", [EXPECTED, EXPECTED / "tf_model.h5"])
def test_tensorflow_given_as_pytorch(tmp_path: Path, source: Path) -> None:
    assert refusal(lambda: pt2tf(source, tmp_path / "out"), WrongFramework) == (
        f"{source}: holds TensorFlow weights, expected PyTorch; use `convert tf2pt`"
    )
    assert list(tmp_path.iterdir()) == []


def test_either(tmp_path: Path) -> None:
    assert open_source(FIXTURE, None)[0].framework == "pt"
    assert open_source(EXPECTED, None)[0].framework == "tf"
    assert open_source(FIXTURE / "model.safetensors", None)[1] == FIXTURE


def test_of_both_kinds_in_one_folder_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((FIXTURE / "model.safetensors").read_bytes())
    (tmp_path / "tf_model.h5").write_bytes((EXPECTED / "tf_model.h5").read_bytes())
    assert open_source(tmp_path, "pt")[0].container == "PyTorch safetensors"
    assert open_source(tmp_path, "tf")[0].container == "tf_model.h5"


def keras_weights(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.ones(3)


def whole_keras_model(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["model_weights/dense/kernel:0"] = np.ones(3)


def other_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["measurements"] = np.ones(3)


@pytest.mark.parametrize(
    ("name", "write", "what"),
    [
        (
            "pytorch_model.bin",
            lambda path: path.write_bytes(zipped("notes.txt")),
            "a zip archive that torch.save did not write (no data.pkl), which holds notes.txt; unpack it, "
            "and name the folder with config.json and the weights",
        ),
        (
            "pytorch_model.bin",
            lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=2)),
            "a pickle that torch.save did not write; save the state_dict with torch.save",
        ),
        (
            "model.keras",
            lambda path: path.write_bytes(zipped()),
            "a whole Keras 3 model (.keras); import TFVisionTextDualEncoderModel from where it was made, load it with "
            "keras.saving.load_model and write it with save_pretrained, then convert the tf_model.h5",
        ),
        (
            "model.weights.h5",
            keras_weights,
            "weights in Keras' .weights.h5 format, which stores no variable names; load them into the model, write it "
            "with save_pretrained, and convert the tf_model.h5",
        ),
        (
            "model.h5",
            whole_keras_model,
            "a whole Keras model saved as HDF5; load it with Keras 2 and write it with save_pretrained",
        ),
        (
            "data.h5",
            other_hdf5,
            "an HDF5 file without the attribute layer_names of a tf_model.h5; write the model with save_pretrained",
        ),
        ("bert_model.ckpt", lambda path: path.write_bytes(b"x" * 20), OF_CKPT),
    ],
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_containers_that_are_not_read(
    tmp_path: Path, name: str, write: Callable[[Path], object], what: str, as_folder: bool
) -> None:
    write(tmp_path / name)
    message = refusal(opened(tmp_path if as_folder else tmp_path / name), UnsupportedContainer)
    assert message == f"{tmp_path / name}: {what}"


ADAPTER = (
    "a PEFT adapter, not a model; merge it: PeftModel.from_pretrained(model, FOLDER)"
    ".merge_and_unload().save_pretrained(OTHER), then convert OTHER"
)
DEEPSPEED = (
    "a DeepSpeed checkpoint, whose weights are split; run `python zero_to_fp32.py . .` in {} and convert what it writes"
)
DISTRIBUTED = (
    "a distributed checkpoint (.distcp), whose weights are split; merge them with `accelerate merge-weights "
    "{} OTHER`, or torch.distributed.checkpoint.format_utils.dcp_to_torch_save, and convert OTHER"
)
SAVED_MODEL = "a TensorFlow SavedModel without its folder `variables`, which holds the weights; copy it whole"
OPEN_CLIP = (
    "an OpenCLIP model of which a file is missing; put open_clip_config.json and open_clip_model.safetensors or "
    "open_clip_pytorch_model.bin into one folder"
)


@pytest.mark.parametrize("inner", ["", "step 10"])
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("saved_model.pb", SAVED_MODEL),
        ("bert_model.ckpt.index", OF_TF),
        ("adapter_config.json", ADAPTER),
        ("zero_to_fp32.py", DEEPSPEED),
        ("mp_rank_00_model_states.pt", DEEPSPEED),
        ("bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", DEEPSPEED),
        ("__0_0.distcp", DISTRIBUTED),
        ("open_clip_config.json", OPEN_CLIP),
    ],
)
def test_folders_that_are_not_read(tmp_path: Path, name: str, what: str, inner: str) -> None:
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    for state in ("optimizer.pt", "rng_state_0.pth", "training_args.bin", "random_states_0.pkl"):
        (folder / state).write_bytes(b"never looked at")
    assert refusal(opened(tmp_path), UnsupportedContainer) == f"{folder}: {what.format(shlex.quote(str(folder)))}"


def test_weights_beside_the_marks_are_read(tmp_path: Path) -> None:
    """A Trainer with DeepSpeed, or of a model with adapters, writes whole weights as well."""
    for name in ("zero_to_fp32.py", "adapter_config.json", "optimizer.pt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes({}))
    assert open_source(tmp_path, "pt")[0].container == "PyTorch safetensors"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("adapter_model.safetensors", ADAPTER),
        ("zero_pp_rank_0_mp_rank_00_optim_states.pt", DEEPSPEED),
        ("optimizer.pt", "the state of a training run, not weights; name the folder, or the weights file beside it"),
        (
            "training_args.bin",
            "the state of a training run, not weights; name the folder, or the weights file beside it",
        ),
    ],
)
def test_files_that_hold_no_weights_by_their_name(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert refusal(opened(tmp_path / name), UnsupportedContainer) == f"{tmp_path / name}: {what.format(tmp_path)}"


@pytest.mark.parametrize("place", ["", "run 5"])
def test_the_step_of_deepspeed_runs_where_its_script_is(tmp_path: Path, place: str) -> None:
    """It lies above the folders of single steps, of which each holds the marks as well."""
    step = tmp_path / place / "global_step5"
    step.mkdir(parents=True)
    (step / "zero_pp_rank_0_mp_rank_00_model_states.pt").write_bytes(b"x")
    (tmp_path / place / "latest").write_bytes(b"global_step5")
    for named in {tmp_path, step}:
        said = refusal(opened(named), UnsupportedContainer)
        assert said.endswith(f": {DEEPSPEED.format(shlex.quote(str(tmp_path / place)))}")


def test_marks_three_folders_deep(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "step 5" / "pytorch_model_fsdp_0"
    folder.mkdir(parents=True)
    (folder / "__0_0.distcp").write_bytes(b"x")
    message = refusal(opened(tmp_path), UnsupportedContainer)
    assert message == f"{folder}: {DISTRIBUTED.format(shlex.quote(str(folder)))}"


@pytest.mark.parametrize(
    "name",
    [
        "model.fp16.safetensors", "best model.pt", "epoch=3.ckpt", "m.safetensors.index.x.json", "net.ptl", "net.pt2",
        "net.jit", "net.hdf5",
    ],
)  # fmt: skip
@pytest.mark.parametrize("framework", ["pt", "tf", None])
def test_one_by_another_name_is_named_in_a_command_that_can_be_pasted(
    tmp_path: Path, name: str, framework: str | None
) -> None:
    (tmp_path / "optimizer.bin").write_bytes(b"x")
    if name.endswith(".json"):
        (tmp_path / "m-00001-of-00001.safetensors").write_bytes(save({"a": np.ones(2)}))
        (tmp_path / name).write_text('{"weight_map": {"a": "m-00001-of-00001.safetensors"}}')
    else:
        (tmp_path / name).write_bytes(save({"a": np.ones(2)}))
    message = refusal(opened(tmp_path, framework))
    place = shlex.quote(str(tmp_path / name))
    # Where any framework will do, another command than a direction was typed.
    step = f"name that file, {place}" if framework is None else f"convert pt2tf {place} OUT"
    assert message == f"{tmp_path}: holds no weights by a usual name; {name} is one by another name: {step}"
    if framework is None:
        return
    command = shlex.split(message.partition("another name: ")[2])
    assert command[:2] == ["convert", "pt2tf"]
    assert list(open_source(Path(command[2]), "pt")[0].tensors) == ["a"]


def test_several_by_other_names(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(safetensors_bytes({}))
    assert refusal(opened(tmp_path)) == (
        f"{tmp_path}: holds no weights by a usual name; a.safetensors, b.safetensors have other names: name that file, "
        f"{shlex.quote(str(tmp_path / 'a.safetensors'))}"
    )


def test_a_shard_that_is_all_is_whole(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes(safetensors_bytes({}))
    assert refusal(opened(tmp_path, "pt")).endswith(
        f": convert pt2tf {shlex.quote(str(tmp_path / 'model-00001-of-00001.safetensors'))} OUT"
    )


def test_shards_without_their_index(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(safetensors_bytes({}))
    assert refusal(opened(tmp_path)) == (
        f"{tmp_path}: holds shards (model-00001-of-00002.safetensors) without their index; put "
        "model.safetensors.index.json beside them, which was saved with them"
    )


def test_folders_of_folders(tmp_path: Path) -> None:
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-2", "logs"):
        (tmp_path / name).mkdir()
        if name != "logs":
            (tmp_path / name / "model.safetensors").write_bytes(safetensors_bytes({}))
    paths = [shlex.quote(str(tmp_path / f"checkpoint-{step}")) for step in (10, 9, 2)]
    assert refusal(opened(tmp_path)) == (
        f"{tmp_path}: holds no weights, but its subfolders do; name one of them: {paths[0]} (others: {paths[1]}, {paths[2]})"
    )


@pytest.mark.parametrize("mark", ["saved_model.pb", "ckpt.index"])
def test_a_folder_in_which_tensorflow_saved_is_named(tmp_path: Path, mark: str) -> None:
    (tmp_path / "1" / "variables").mkdir(parents=True)
    write_bundle(tmp_path / "1" / ("ckpt" if mark == "ckpt.index" else "variables/variables"), {"a": np.ones(1, "f4")})
    (tmp_path / "1" / mark).touch()
    named = shlex.quote(str(tmp_path / "1"))
    assert (
        refusal(opened(tmp_path)) == f"{tmp_path}: holds no weights, but its subfolders do; name one of them: {named}"
    )


def test_links_to_what_is_not_there(tmp_path: Path) -> None:
    said = (
        ": a link to ../../blobs/0123, which does not exist; copy the folder with `cp -rL`, which follows links, "
        "or download it again"
    )
    link = tmp_path / "model.safetensors"
    link.symlink_to("../../blobs/0123")
    for framework in ("pt", "tf", None):
        assert refusal(opened(tmp_path, framework), CorruptCheckpoint) == f"{link}{said}"
    assert refusal(opened(link), CorruptCheckpoint) == f"{link}{said}"
    (tmp_path / "pytorch_model.bin").write_bytes(safetensors_bytes({}))
    assert open_source(tmp_path, "pt")[0].files == (tmp_path / "pytorch_model.bin",)
    (tmp_path / "config.json").symlink_to("../../blobs/0123")
    assert refusal(opened(tmp_path), CorruptCheckpoint) == f"{tmp_path / 'config.json'}{said}"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            b"<!DOCTYPE html>\n<html lang=en>",
            "a web page, not the file; download the file itself (its address has /resolve/ where the page's has /blob/)",
        ),
        (b"Entry not found", "text ('Entry not found' ...), not weights; download or copy the file itself"),
        (
            b"../../blobs/0123",
            "the text of a link, not the file that it points to; copy the folder with `cp -rL`, or download it again",
        ),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tf_model.h5"])
def test_text_in_place_of_weights(tmp_path: Path, content: bytes, what: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert refusal(opened(tmp_path), CorruptCheckpoint) == f"{tmp_path / name}: {what}"


def test_files_that_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\x01\x02\x03" * 9)
    assert refusal(lambda: read_header(tmp_path / "empty"), CorruptCheckpoint) == (
        f"{tmp_path / 'empty'}: an empty file; download or save it again"
    )
    assert refusal(lambda: read_header(tmp_path / "binary"), UnsupportedContainer).startswith(
        f"{tmp_path / 'binary'}: an unknown kind of weights file; name one of these: PyTorch safetensors, "
    )


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "renamed.bin"
    path.write_bytes(safetensors_bytes({}))
    assert read_header(path).container == "PyTorch safetensors"


@pytest.mark.parametrize("as_folder", [True, False])
def test_weights_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_folder: bool) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({}))

    def refuse(self: Path, *_: object, **__: object) -> object:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(opened(tmp_path if as_folder else path)) == (
        f"{path}: cannot be read: Permission denied; check its permissions"
    )


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> object:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert refusal(opened(tmp_path)) == (f"{tmp_path}: cannot be read: Permission denied; check its permissions")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_links_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(safetensors_bytes({}))
    (folder / "model.safetensors").write_bytes(safetensors_bytes({}))
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../secret")
    assert refusal(opened(folder), CorruptCheckpoint) == (
        f"{folder / name}: a link out of its folder, to {tmp_path / 'secret'}; copy the file itself into the folder"
    )


def test_links_within_the_folder_and_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "real").write_bytes(safetensors_bytes({}))
    (folder / "model.safetensors").symlink_to("real")
    (tmp_path / "link").symlink_to("model")
    assert open_source(tmp_path / "link", None)[0].framework == "pt"


def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(CorruptCheckpoint) as caught:
        inside(tmp_path / "a", tmp_path)
    assert str(caught.value) == f"{tmp_path / 'a'}: a link to itself; copy the file into the folder"


def test_links_of_other_names_out_of_the_folder(tmp_path: Path) -> None:
    """A file that would only be looked at to say what it is."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"\x80\x04 of somebody else")
    (folder / "weights.pt").symlink_to("../secret")
    assert refusal(opened(folder), CorruptCheckpoint) == (
        f"{folder / 'weights.pt'}: a link out of its folder, to {tmp_path / 'secret'}; copy the file itself into the folder"
    )


def test_a_snapshot_links_to_its_own_blobs_only(tmp_path: Path) -> None:
    """Blobs of another repository, perhaps a private one, are not its own."""
    ours = tmp_path / "models--a--b" / "snapshots" / "0123"
    ours.mkdir(parents=True)
    for name in ("models--a--b", "models--private--c"):
        (tmp_path / name / "blobs").mkdir(parents=True)
        (tmp_path / name / "blobs" / "abc").write_bytes(safetensors_bytes({}))
    (ours / "model.safetensors").symlink_to("../../blobs/abc")
    assert inside(ours / "model.safetensors", ours) == ours / "model.safetensors"
    for target in ("../../../models--private--c/blobs/abc", "../../blobs", "../../.."):
        (ours / "model.safetensors").unlink()
        (ours / "model.safetensors").symlink_to(target)
        said = refusal(lambda: inside(ours / "model.safetensors", ours), CorruptCheckpoint)
        assert ": a link out of its folder, to " in said
