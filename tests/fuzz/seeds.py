"""Sound files to begin from, small and various: every feature that a reader knows is in one of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import save

from converter import pt2tf, tf2pt
from converter.parity.runners.golden import write_recording
from tests import bundles
from tests.archives import Call, Named, dump, ordered, storage, tensor
from tests.compat.towers import ALL_TEXT, ALL_VISION, FAMILIES
from tests.exporting import onnx_bytes
from tests.flax_files import chunked, nest, pack
from tests.fuzz.mutators import write_entries
from tests.hdf5_files import write_h5
from tests.parity.samples import recording, taps
from tests.tiny import BFLOAT16, FIXTURES, OF_FAMILIES, config_of, in_tensorflow, tensors_of, write_checkpoint

Array = np.ndarray[Any, Any]
SMALL: dict[str, Array] = {
    "vision_model.a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "text_model.b.bias": np.arange(3, dtype=np.float16),
    "text_model.c": np.arange(4, dtype=np.int64).reshape(4, 1),
    "empty": np.zeros((0, 2), np.float64),
    "logit_scale": np.asarray(3.31, np.float32),
}


# Fields that make a model of any family as small as one can be that is still of a size of its own everywhere.
_LEAST = {"intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 4}
_LEAST_VISION = {**_LEAST, "image_size": 4, "patch_size": 2}
_LEAST_TEXT = {**_LEAST, "vocab_size": 7, "max_position_embeddings": 9, "eos_token_id": 6}


def smallest(family: str) -> dict[str, Any]:
    """The config of the smallest model of a family."""
    return config_of(family=family, vision_fields=_LEAST_VISION, text_fields=_LEAST_TEXT, fields={"projection_dim": 3})


def json_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def safetensors_files() -> Iterator[bytes]:
    """Headers of both frameworks, with and without metadata."""
    yield save(SMALL, {"format": "pt"})
    yield save({f"{name}:0": array for name, array in SMALL.items()}, {"format": "tf"})
    yield save({"a": np.zeros(2, BFLOAT16), "b": np.ones(3, bool), "c": np.ones((1, 2), np.uint8)}, {"x": "y"})
    yield save({"a": np.zeros((), np.float32)})
    yield save({}, {"format": "pt"})
    for family in FAMILIES:
        tensors = tensors_of(smallest(family))
        yield save(tensors, {"format": "pt"})
        yield save(
            {f"{name}:0": array for name, array in in_tensorflow(smallest(family), tensors).items()}, {"format": "tf"}
        )


def flax_files() -> Iterator[bytes]:
    """Trees of every kind of leaf, a training state, pieces, and a whole model of transformers'."""
    yield pack({"params": {"a": SMALL["vision_model.a.weight"]}, "step": 3, "opt_state": {"0": {"mu": {"a": None}}}})
    yield pack(nest({name.replace(".", "/"): array for name, array in SMALL.items()}))
    yield pack({"a": chunked(np.arange(12, dtype=np.float32).reshape(3, 4), 16), "b": np.float32(1), "c": {}})
    yield pack({"a": np.zeros(2, BFLOAT16), "b": {"0": True, "1": 0.5, "2": "text", "3": b"bytes", "4": -5}})
    for folder in ("clip-bert", "beit_both-xlm-roberta"):
        yield (FIXTURES / "flax" / folder / "flax_model.msgpack").read_bytes()


def archives() -> Iterator[bytes]:
    """What torch.save writes: plain, shared, strided and wrapped tensors, of several protocols."""
    plain = {"a": _floats("0", (2, 3)), "b": _floats("1", (4,))}
    strided = {
        "t": tensor(storage("0", 6), 0, (3, 2), (1, 3)),
        "s": tensor(storage("0", 6), 2, (2,), (3,)),
        "e": tensor(storage("1", 4), 0, (5, 4), (0, 1)),
        "n": tensor(storage("1", 4), 3, (), ()),
    }
    wrapped = {"state_dict": ordered(plain, {"_metadata": {"": {"version": 1}}}), "epoch": 3, "lr": 0.5, "x": None}
    parameter = Call(Named("torch._utils", "_rebuild_parameter"), (_floats("0", (6,)), True, ordered()))
    untyped = Call(
        Named("torch._utils", "_rebuild_tensor_v3"),
        (storage("1", 16, "bytes"), 0, (2, 2), (2, 1), False, ordered(), Named("torch", "uint32")),
    )
    for protocol in (2, 4, 5):
        yield _archive(dump(ordered(plain), protocol))
    for value in (strided, wrapped, {"p": parameter, "u": untyped}, {}):
        yield _archive(dump(value))
    yield _archive(dump(ordered(plain)), [("archive/.data/serialization_id", b"1"), ("archive/.format_version", b"1")])


def _floats(key: str, shape: tuple[int, ...]) -> Call:
    stride = tuple(int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape)))
    return tensor(storage(key, int(np.prod(shape))), 0, shape, stride)


def _archive(text: bytes, more: list[tuple[str, bytes]] | None = None) -> bytes:
    notes = [("archive/byteorder", b"little"), ("archive/version", b"3\n"), *(more or [])]
    return write_entries(
        [("archive/data.pkl", text), *notes, ("archive/data/0", bytes(24)), ("archive/data/1", bytes(16))]
    )


_H5: dict[str, Array] = {
    "text_model/bert/a/kernel": SMALL["vision_model.a.weight"],
    "text_model/bert/a/bias": SMALL["text_model.b.bias"],
    "vision_model/b": SMALL["text_model.b.bias"],
    "logit_scale": np.ones(1, "f4"),
}


_STORED: tuple[dict[str, Any], ...] = (
    {}, {"chunks": True}, {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True},
    {"chunks": True, "compression": "lzf"}, {"dtype": ">f4"}, {"maxshape": (None,), "chunks": True},
)  # fmt: skip


def hdf5_files() -> Iterator[bytes]:
    """tf_model.h5 in the ways that h5py can write it, old and new formats, and what is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.h5")

        def take() -> bytes:
            data = path.read_bytes()
            path.unlink()
            return data

        for options in _STORED:
            held = {name: array for name, array in _H5.items() if "maxshape" not in options or array.ndim == 1}
            write_h5(path, held, **options)
            yield take()
        write_h5(path, _H5, attribute_bytes=100)
        yield take()
        write_h5(path, _H5, userblock=512)
        yield take()
        for family in FAMILIES:
            write_h5(path, in_tensorflow(smallest(family), tensors_of(smallest(family))))
            yield take()
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = np.array([b"a/kernel:0", b"logit_scale:0"])
            file["a/kernel:0"], file["logit_scale:0"] = np.ones((2, 3), "f4"), np.ones(1, "f4")
        yield take()
        for write in _ODD_HDF5:
            for version in ("earliest", "latest"):
                with h5py.File(path, "w", libver=version) as file:
                    layer = file.create_group("a")
                    file.attrs["layer_names"] = np.array([b"a"])
                    write(file, layer)
                    layer.attrs["weight_names"] = [f"r/{name}".encode() for name in layer["r"]]
                yield take()


def _compact(file: h5py.File, layer: h5py.Group) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    group = layer.create_group("r")
    space = h5py.h5s.create_simple((2, 3))
    h5py.h5d.create(group.id, b"x:0", h5py.h5t.NATIVE_FLOAT, space, properties).write(
        space, space, np.ones((2, 3), "f4")
    )


def _links(file: h5py.File, layer: h5py.Group) -> None:
    layer["r/x:0"] = np.ones(3, "f4")
    layer["r/y:0"] = layer["r/x:0"]
    layer["r/z:0"] = h5py.SoftLink("/a/r/x:0")


def _external(file: h5py.File, layer: h5py.Group) -> None:
    layer.create_dataset("r/x:0", (4,), "u1", external=[("beside", 0, 4)])
    layer["r/y:0"] = h5py.ExternalLink("beside", "/x")


def _strings(file: h5py.File, layer: h5py.Group) -> None:
    layer["r/x:0"] = np.array(["a", "b"], dtype=h5py.string_dtype())
    layer["r/y:0"] = np.zeros(2, [("a", "f4"), ("b", "i2")])


def _kinds(file: h5py.File, layer: h5py.Group) -> None:
    for kind in ("f8", "f2", "i8", "u1", "bool"):
        layer[f"r/{kind}:0"] = np.ones(2, kind)
    layer["r/b:0"] = np.ones(2, BFLOAT16)
    layer["r/0:0"] = np.zeros((0, 3), "f4")
    layer["r/n:0"] = np.float32(1)


_ODD_HDF5: tuple[Callable[[h5py.File, h5py.Group], None], ...] = (_compact, _links, _external, _strings, _kinds)


def bundle_indices() -> Iterator[bytes]:
    """Indices of TensorFlow checkpoints, for the data that ``readers`` lays beside them."""
    items, data = bundle_parts()
    yield bundles.table(items.items())
    yield bundles.table(items.items(), in_a_block=1)
    # As one of TensorFlow 1: the keys are the names.
    plain = {key: value for key, value in items.items() if b"OBJECT" not in key}
    yield bundles.table(plain.items())
    yield bundles.table((plain | {b"": bundles.header(2)}).items())
    yield bundles.table((plain | {b"z": bundles.entry(1, (0, 2), 0, len(data), 0, 0, bundles.wrapped(7, b""))}).items())


def bundle_parts() -> tuple[dict[bytes, bytes], bytes]:
    """What the index says by key, and the data, of all that is in ``SMALL``."""
    names = {f"v/{place}{bundles.BEHIND}": f"root/{name}" for place, name in enumerate(SMALL)}
    tensors = dict(zip(names, SMALL.values(), strict=True))
    return bundles.laid_out(tensors, bundles.plain_graph(names))


def graphs() -> Iterator[bytes]:
    """Object graphs: of a model, of one with an optimizer, of one that holds itself."""
    yield bundles.plain_graph({f"v/0{bundles.BEHIND}": "root/a", f"v/1{bundles.BEHIND}": "root/b/kernel"})
    leaf = ([], [("root/a", "a")])
    yield bundles.graph_of([([("model", 1), ("optimizer", 2)], []), leaf, ([("iter", 3)], []), ([], [("iter", "i")])])
    yield bundles.graph_of([([("model", 1), ("self", 0)], []), ([("root", 0)], [("root/é", "a")])])


def pairs() -> Iterator[dict[str, Any]]:
    """Configs in which every tower is once, and odd ones."""
    visions, texts = list(ALL_VISION), list(ALL_TEXT)
    for number in range(max(len(visions), len(texts))):
        vision, text = visions[number % len(visions)], texts[number % len(texts)]
        yield {
            "model_type": "vision-text-dual-encoder", "projection_dim": 26, "logit_scale_init_value": 2.6592,
            "vision_config": {"model_type": vision, **ALL_VISION[vision]},
            "text_config": {"model_type": text, **ALL_TEXT[text]},
        }  # fmt: skip
    for odd in json.loads((FIXTURES / "names" / "odd.json").read_text("utf-8")).values():
        side = "vision" if any(name.startswith("vision_model") for name in odd["pt_v5"]) else "text"
        other = ALL_TEXT["bert"] if side == "vision" else ALL_VISION["vit"]
        towers = {f"{side}_config": odd["config"], f"{'text' if side == 'vision' else 'vision'}_config": other}
        towers["text_config"].setdefault("model_type", "bert")
        towers["vision_config"].setdefault("model_type", "vit")
        yield {"model_type": "vision-text-dual-encoder", "projection_dim": 26, **towers}


def configs() -> Iterator[bytes]:
    """config.json of every tower and family, with sections that are missing or said twice."""
    yield from map(json_bytes, pairs())
    whole = {"model_type": "clip", "vision_config": ALL_VISION["clip_vision_model"]}
    bert = {"model_type": "bert", **ALL_TEXT["bert"]}
    yield json_bytes({"model_type": "vision-text-dual-encoder", "vision_config": whole, "text_config": bert})
    for family, config in OF_FAMILIES.items():
        if family in FAMILIES:
            yield json_bytes(config)
            yield json_bytes(smallest(family))
    for said in json.loads((FIXTURES / "names" / "families.json").read_text("utf-8")).values():
        yield from (json_bytes(case["config"]) for case in said["read"].values())


def open_clip_configs() -> Iterator[bytes]:
    """OpenCLIP's config of every kind of model, with all that its own files say, and with nothing that they need not say."""
    towers = {"layers": 1, "width": 4, "heads": 2, "mlp_ratio": 2.0}
    vision = {"layers": 1, "width": 4, "head_width": 2, "patch_size": 2, "image_size": 4, "mlp_ratio": 1.5}
    text = {**towers, "context_length": 5, "vocab_size": 9}
    process = {
        "size": [4, 4], "mode": "RGB", "mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "interpolation": "bicubic",
        "resize_mode": "shortest", "fill_color": 0,
    }  # fmt: skip
    clip = {"embed_dim": 3, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    yield json_bytes({"model_cfg": clip, "preprocess_cfg": process})
    yield json_bytes({"model_cfg": {**clip, "text_cfg": {**text, "pool_type": "eos", "eos_id": 2}}})
    yield json_bytes({"model_cfg": {**clip, "custom_text": True, "vision_cfg": {**vision, "image_size": [4, 4]}}})
    yield json_bytes({"embed_dim": 3, "vision_cfg": {}, "text_cfg": {}})
    siglip = {
        "embed_dim": 768, "init_logit_bias": -10, "custom_text": True,
        "vision_cfg": {
            "image_size": 224, "timm_model_name": "vit_base_patch16_siglip_224", "timm_model_pretrained": False,
            "timm_pool": "map", "timm_proj": "none",
        },
        "text_cfg": {
            **text, "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"}, "hf_tokenizer_name": "x/y", "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    }  # fmt: skip
    yield json_bytes({"model_cfg": siglip, "preprocess_cfg": {**process, "resize_mode": "squash"}})


SMALLEST = {
    "model_type": "vision-text-dual-encoder", "projection_dim": 3, "logit_scale_init_value": 2.6592,
    "vision_config": {
        "model_type": "vit", "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 4, "patch_size": 2,
    },
    "text_config": {
        "model_type": "bert", "hidden_size": 4, "intermediate_size": 5, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": 7, "max_position_embeddings": 9, "type_vocab_size": 2,
    },
}  # fmt: skip


def write_converted(folder: Path, config: dict[str, Any] = SMALLEST) -> Path:
    """Writes a converted checkpoint, its source beside it, and gives the folder with conversion.json."""
    write_checkpoint(folder / "pt", config, tensors_of(config))
    pt2tf(folder / "pt", folder / "tf")
    return folder / "tf"


def manifests() -> Iterator[bytes]:
    """conversion.json of both directions, with and without hashes."""
    with tempfile.TemporaryDirectory() as made:
        folder = write_converted(Path(made))
        yield (folder / "conversion.json").read_bytes()
        tf2pt(folder, folder.parent / "back", check=False)
        yield (folder.parent / "back" / "conversion.json").read_bytes()
        for family in FAMILIES:
            yield (write_converted(Path(made, family), smallest(family)) / "conversion.json").read_bytes()


def modules() -> Iterator[bytes]:
    """modules.json as sentence-transformers has written it, for the folders that ``readers`` prepares."""
    kind = "sentence_transformers.models.CLIPModel"
    first = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": kind}
    yield json_bytes([first])
    yield json_bytes([{**first, "path": ""}, {**first, "idx": 1, "path": "1_Pooling"}, {**first, "idx": 2}])
    yield json_bytes([{**first, "path": path} for path in ("nothing", "link", "out", "file", "0_CLIPModel")])
    yield json_bytes([{**first, "path": "out"}])


def indices() -> Iterator[bytes]:
    """Indices of the two shards that ``readers.index_folder`` writes."""
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    yield json_bytes({"metadata": {"total_size": 40}, "weight_map": names})
    yield json_bytes({"weight_map": {"a": names["a"]}})
    yield json_bytes(
        {"weight_map": {"root/c:0": "tf_model-00001-of-00001.h5", "root/d/e:0": "tf_model-00001-of-00001.h5"}}
    )
    yield json_bytes(
        {"weight_map": {"a": "link.safetensors", "b": "folder", "c": "out.safetensors", "d": "x.index.json"}}
    )
    yield json_bytes({"weight_map": {"a": "archive.bin", "b": "archive.bin"}})


def golden_files() -> Iterator[bytes]:
    """Golden reference files of one and two batches, and of inputs alone."""
    some = {name: array[..., :2] if array.ndim else array for name, array in taps().items()}
    with tempfile.TemporaryDirectory() as made:
        path = Path(made, "golden.safetensors")
        for found in (recording({"loss": np.ones((), np.float32)}), recording(some, taps(1, "float64"))):
            write_recording(found, path)
            yield path.read_bytes()


def small_archive() -> bytes:
    """The first archive: tensors ``a`` and ``b``."""
    return next(archives())


def onnx_files() -> Iterator[bytes]:
    """Weights beside the file and inside it, a body, and operators of other domains."""
    held = onnx_bytes.tensor("w", 1, (2, 3), onnx_bytes.external("weights.safetensors", 8, 24))
    inside = onnx_bytes.tensor("c", 7, (2,), [(9, bytes(16))])
    loop = onnx_bytes.node("Loop", [(6, [(1, onnx_bytes.node("Add")), (5, inside)])])
    yield onnx_bytes.model([held, inside], (1, loop), (1, onnx_bytes.node("Gelu", domain="com.microsoft")))
    yield onnx_bytes.model([onnx_bytes.tensor("w", 10, (), onnx_bytes.external("weights.safetensors", 0, ""))])
    yield onnx_bytes.model([])
