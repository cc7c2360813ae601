"""Writes a TensorFlow checkpoint of a model, tensor by tensor, as `model.save_weights` of transformers 4 leaves one.

The few pieces of the format come from tests/bundles.py, which tests the reader with them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from converter.conversion.streams import open_tensors  # noqa: E402
from converter.names.frameworks import KERAS  # noqa: E402
from converter.tensors.crc32c import crc32c, masked  # noqa: E402
from tests import bundles  # noqa: E402
from tests.bundles import BEHIND, DTYPES, entry, header, plain_graph, table, text_entry  # noqa: E402

NAME = "tf_model"
CHUNK = 1 << 22


def write_bundle(source: Path, out: Path) -> None:
    """Writes config.json, the index and the data of a checkpoint into a new folder.

    Args:
        source: a folder that ``save_pretrained`` wrote, of a dual encoder.
        out: the folder.
    """
    out.mkdir(parents=True)
    shutil.copyfile(source / "config.json", out / "config.json")
    items, place = {b"": header()}, 0
    with open_tensors(source, KERAS) as tensors, (out / f"{NAME}.data-00000-of-00001").open("wb") as data:
        names = {f"v/{number}{BEHIND}": name for number, name in enumerate(tensors.names)}
        for key, name in names.items():
            array = tensors.read(name)
            so_far, held = 0, array.reshape(-1).view("u1")
            for start in range(0, len(held), CHUNK):
                so_far = crc32c(held[start : start + CHUNK], so_far)
            items[key.encode()] = entry(DTYPES[array.dtype.name], array.shape, 0, place, array.nbytes, masked(so_far))
            place += data.write(array.data)
        graph, said_of_graph = text_entry(
            plain_graph({key: f"{bundles.ROOT}/{name}" for key, name in names.items()}), place
        )
        items[b"_CHECKPOINTABLE_OBJECT_GRAPH"] = said_of_graph
        data.write(graph)
    (out / f"{NAME}.index").write_bytes(table(sorted(items.items())))
