"""SavedModel and TensorFlow checkpoints: found by any of their files, named by their object graph, read without TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from converter import inspect, pt2tf, tf2pt, verify
from converter.checkpoints.detect import open_source, read_header
from converter.conversion.streams import open_tensors
from converter.errors import ConverterError, CorruptCheckpoint, quoted
from tests.bundles import BEHIND, Node, graph_of, laid_out, write_bundle, write_files
from tests.tiny import BFLOAT16, FIXTURES, assert_same, config_of, in_tensorflow, load, tensors_of

CASES = FIXTURES / "cases"
WEIGHTS = in_tensorflow(config_of(), tensors_of(config_of()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config and no weights yet; its name needs quotes."""
    held = tmp_path / "ein Modell äé"
    held.mkdir()
    (held / "config.json").write_text(json.dumps(config_of()))
    return held


def saved_model(folder: Path) -> Path:
    (folder / "variables").mkdir()
    (folder / "saved_model.pb").write_bytes(b"never read")
    write_bundle(folder / "variables" / "variables", WEIGHTS, save_counter=np.int64(3))
    return folder


@pytest.mark.parametrize(
    "named", ["", "saved_model.pb", "variables", "variables/variables.index", "variables/variables"]
)
def test_a_saved_model_by_any_name(named: str, folder: Path, tmp_path: Path) -> None:
    done = tf2pt(saved_model(folder) / named, tmp_path / "out")
    assert (done.container, done.tensors) == ("SavedModel", len(WEIGHTS))
    assert_same(load(tmp_path / "out" / "model.safetensors"), tensors_of(config_of()))
    assert verify(tmp_path / "out", weights_only=True).status == "passed"


@pytest.mark.parametrize("named", ["", "ckpt-2", "ckpt-2.index", "ckpt-2.data-00000-of-00001", "checkpoint"])
def test_a_checkpoint_by_any_name(named: str, folder: Path, tmp_path: Path) -> None:
    write_bundle(folder / "ckpt-1", {"logit_scale": np.ones(1, "f4")})
    write_bundle(folder / "ckpt-2", WEIGHTS)
    # Written where it lay then.
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "/home/x/ckpt-2"\nall_model_checkpoint_paths: "ckpt-1"\n'
    )
    done = tf2pt(folder / named, tmp_path / "out")
    assert (done.container, done.tensors) == ("TensorFlow checkpoint", len(WEIGHTS))
    assert_same(load(tmp_path / "out" / "model.safetensors"), tensors_of(config_of()))
    assert inspect(folder / named).problem is None


@pytest.mark.parametrize("dtype", ["f8", "f2", BFLOAT16])
def test_dtypes(dtype: object, folder: Path, tmp_path: Path) -> None:
    write_bundle(folder / "w", in_tensorflow(config_of(), tensors_of(config_of(), dtype)))
    tf2pt(folder, tmp_path / "out")
    assert_same(load(tmp_path / "out" / "model.safetensors"), tensors_of(config_of(), dtype))


def test_several_and_none_is_the_last(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_bundle(folder / name, WEIGHTS)
    with pytest.raises(ConverterError) as caught:
        tf2pt(folder, tmp_path / "out")
    assert str(caught.value) == (
        f"{folder}: holds 2 TensorFlow checkpoints (a.index, b.index), and no file `checkpoint` that says which is the "
        f"last; name one: {quoted(folder / 'b.index')}"
    )
    assert tf2pt(folder / "b.index", tmp_path / "out").tensors == len(WEIGHTS)


def test_of_the_other_framework(folder: Path, tmp_path: Path) -> None:
    write_bundle(folder / "w", WEIGHTS)
    with pytest.raises(ConverterError, match=r"holds TensorFlow weights, expected PyTorch; .*`convert tf2pt`$"):
        pt2tf(folder, tmp_path / "out")


def test_what_a_training_run_keeps_is_left_out(folder: Path, tmp_path: Path) -> None:
    """Tensors of an optimizer, of a metric and of a generator, and a counter; the model hangs in another object."""
    names = [(f"v/{place}{BEHIND}", f"root/{name}") for place, name in enumerate(WEIGHTS)]
    beside = {
        "o/m": "m/root/logit_scale",
        "o/i": "iteration",
        "m/t": "total",
        "g": "d/seed_generator_state",
        "e": "epoch",
    }
    nodes: list[Node] = [([("net", 1), ("optimizer", 2), ("keras_api", 3), ("epoch", 4), ("net_again", 1)], [])]
    nodes += [([("x", place) for place in range(5, 5 + len(names) + 1)], [])]
    nodes += [([("iterations", 6 + len(names)), ("m", 7 + len(names))], []), ([("t", 8 + len(names))], [])]
    values = [("epoch", f"e{BEHIND}"), *((full, key) for key, full in names), (beside["g"], f"g{BEHIND}")]
    values += [(beside[key], f"{key}{BEHIND}") for key in ("o/i", "o/m", "m/t")]
    nodes += [([], [value]) for value in values]
    arrays = dict(zip([key for key, _ in names], WEIGHTS.values(), strict=True))
    arrays |= {f"{key}{BEHIND}": np.ones(1, "f4") for key in ("o/m", "m/t")} | {f"g{BEHIND}": np.ones(2, "i8")}
    arrays |= {f"{key}{BEHIND}": np.asarray(4, "i8") for key in ("o/i", "e")}
    write_files(folder / "w", *laid_out(arrays, graph_of(nodes)))
    done = tf2pt(folder, tmp_path / "out")
    assert {item.name: item.reason for item in done.dropped} == {
        **dict.fromkeys(("o/i", "o/m", "m/t"), "state of a training run, no weight"),
        "d/seed_generator_state": "state of a random generator, not a weight",
        "epoch": "a single number or text, not a weight",
    }


def test_a_model_and_its_average(folder: Path, tmp_path: Path) -> None:
    """The same below two scopes is one model; two that differ are refused."""
    for number, root in ((1, "other_1"), (2, "other_2")):
        again = WEIGHTS if number == 1 else {name: array + 1 for name, array in WEIGHTS.items()}
        held = {f"root/{name}": array for name, array in WEIGHTS.items()}
        held |= {f"{root}/{name}": array for name, array in again.items()}
        write_files(folder / f"w{number}", *laid_out(held, None))
    assert tf2pt(folder / "w1.index", tmp_path / "out").tensors == len(WEIGHTS)
    with pytest.raises(ConverterError) as caught:
        tf2pt(folder / "w2.index", tmp_path / "out2")
    assert str(caught.value) == (
        f"{folder / 'w2.index'}: holds logit_scale twice with different values, below other_2 and root: two models, or a "
        "model and its average; write the one you want with save_pretrained"
    )


def test_a_head_beside_the_model_keeps_its_name(folder: Path, tmp_path: Path) -> None:
    held = {f"root/{name}": array for name, array in WEIGHTS.items()} | {"dense/kernel": np.ones((3, 2), "f4")}
    write_files(folder / "w", *laid_out(held, None))
    with pytest.raises(ConverterError, match=r"\(1\): dense/kernel; the file holds more than the model; write the"):
        tf2pt(folder, tmp_path / "out")


def test_damaged_data_is_found(folder: Path, tmp_path: Path) -> None:
    write_bundle(folder / "w", WEIGHTS)
    data = folder / "w.data-00000-of-00001"
    held = bytearray(data.read_bytes())
    held[1000] ^= 1
    data.write_bytes(held)
    with pytest.raises(CorruptCheckpoint, match="have another CRC-32C than the index says; the file is damaged"):
        tf2pt(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CorruptCheckpoint, match="have another CRC-32C"), open_tensors(folder):
        pass


def test_what_is_lost_is_said(folder: Path) -> None:
    index = write_bundle(folder / "w", WEIGHTS)
    data = folder / "w.data-00000-of-00001"
    held, text = data.read_bytes(), index.read_bytes()
    data.unlink()
    with pytest.raises(ConverterError) as caught:
        open_source(folder, "tf")
    assert str(caught.value) == f"{data}: not found; w.index needs it: copy both, or save the checkpoint again"
    index.unlink()
    data.write_bytes(held)
    with pytest.raises(ConverterError) as caught:
        open_source(data, "tf")
    assert str(caught.value) == f"{data}: data of a TensorFlow checkpoint without its index; put w.index beside it"
    index.write_bytes(text[:-1])
    with pytest.raises(ConverterError, match="not a TensorFlow 2 checkpoint"):
        open_source(folder, "tf")
    index.unlink()
    (folder / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(
        ConverterError,
        match="a TensorFlow SavedModel without its folder `variables`, which holds the weights; copy it whole",
    ):
        open_source(folder, "tf")


@pytest.mark.tf
def test_tensorflow_reads_what_the_tests_write_and_we_read_what_it_writes(tmp_path: Path) -> None:
    import tensorflow as tf

    index = write_bundle(tmp_path / "ours", WEIGHTS)
    theirs = tf.train.load_checkpoint(str(index.with_suffix("")))
    for place, (name, array) in enumerate(WEIGHTS.items()):
        assert theirs.get_tensor(f"v/{place}{BEHIND}").tobytes() == array.tobytes(), name
    step = tf.Variable(3, dtype=tf.int64, name="step")
    held = [tf.Variable(array, name=f"root/{name}") for name, array in WEIGHTS.items()]
    path = tf.train.Checkpoint(v=held, step=step).write(str(tmp_path / "theirs"))
    checkpoint = read_header(Path(f"{path}.index"))
    checkpoint.check()
    assert checkpoint.beside == {"step": "a single number or text, not a weight"}
    assert sorted(checkpoint.tensors) == sorted(WEIGHTS)
    for name, tensor in checkpoint.tensors.items():
        assert tensor.extent is not None
        found = np.fromfile(tensor.extent.path, tensor.dtype, tensor.size, offset=tensor.extent.offset)
        assert found.tobytes() == WEIGHTS[name].tobytes(), name
