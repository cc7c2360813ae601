"""Tokenizers and image processors of checkpoints from anywhere."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from converter.errors import ParityError
from converter.parity.inputs import image_shape
from converter.parity.runners import processing
from tests.towers import VISION, config_of_tower

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("kind", "file"), [("AutoTokenizer", "tokenizer_config.json"), ("AutoImageProcessor", "preprocessor_config.json")]
)
def test_code_of_a_processor_does_not_run(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, file: str
) -> None:
    """Nor is anybody asked whether it may, which would wait for an answer."""
    transformers = pytest.importorskip("transformers")
    asked: list[object] = []
    monkeypatch.setattr(builtins, "input", asked.append)
    folder = tmp_path / "hostile"
    shutil.copytree(tiny_folder, folder)
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    code = "evil.Evil" if kind == "AutoImageProcessor" else ["evil.Evil", "evil.Evil"]
    types = {"tokenizer_class": "Evil", "image_processor_type": "Evil", "auto_map": {kind: code}}
    (folder / file).write_text(json.dumps(types))
    with pytest.raises(ParityError) as caught:
        processing._load(getattr(transformers, kind), "processor", folder)
    assert str(caught.value).startswith(f"the processor of {folder} cannot be loaded: ValueError: ")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "ran").exists()
    assert asked == []


@pytest.mark.by_turns
@pytest.mark.parametrize("model_type", VISION)
def test_image_processors_make_what_their_towers_take(model_type: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    known = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or {}
    if "pil" not in known:
        pytest.skip("transformers has no image processor for it that needs no torchvision")
    kind = getattr(transformers, known["pil"])
    channels, height, width = image_shape({"vision_config": {"model_type": model_type, **config_of_tower(model_type)}})
    sides = {"height": height, "width": width}
    size = kind().size
    edge = "shortest_edge" in size and "longest_edge" not in size
    kind(size={"shortest_edge": height} if edge else sides, crop_size=sides).save_pretrained(tmp_path)
    processor = processing._load(transformers.AutoImageProcessor, "image processor", tmp_path)
    pictures = sorted((Path(__file__).parents[2] / "fixtures" / "pictures").glob("*.png"))
    made = processing._processed(processor, pictures)["pixel_values"]
    assert made.shape == (len(pictures), channels, height, width)
    assert len(np.unique(made.round(4), axis=0)) == len(pictures) > 1


def test_an_image_processor_that_cuts_pictures_up(tmp_path: Path) -> None:
    """Pictures of any aspect ratio become patches, with a mask and the rows and columns of each."""
    transformers = pytest.importorskip("transformers")
    from PIL import Image

    size = {"patch_size": 6, "max_num_patches": 30}
    transformers.models.siglip2.image_processing_pil_siglip2.Siglip2ImageProcessorPil(**size).save_pretrained(tmp_path)
    processor = processing._load(transformers.AutoImageProcessor, "image processor", tmp_path)
    for number, picture in enumerate(((40, 40), (90, 20), (20, 70))):
        Image.new("RGB", picture, (50 * number, 90, 7)).save(tmp_path / f"{number}.png")
    made = processing._processed(processor, sorted(tmp_path.glob("*.png")))
    assert {name: (array.dtype.name, array.shape) for name, array in made.items()} == {
        "pixel_values": ("float32", (3, 30, 108)),
        "pixel_attention_mask": ("int64", (3, 30)),
        "spatial_shapes": ("int64", (3, 2)),
    }
    assert [int(rows > columns) - int(rows < columns) for rows, columns in made["spatial_shapes"]] == [0, -1, 1]
    assert made["pixel_attention_mask"].sum(axis=1).tolist() == made["spatial_shapes"].prod(axis=1).tolist()
