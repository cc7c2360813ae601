"""The scope rule of transformers 4's dual encoder: PyTorch names do not have the towers' main layers, TensorFlow's do.

``tf_to_pt_scope`` is its ``tf_to_pt_weight_rename``, but replaces the first match only: replacing all would take a
second level out of ``text_model.clip.text_model.x``.
"""

from __future__ import annotations

import re

from converter.errors import ModelError, printable


def tf_to_pt_scope(name: str) -> str:
    """Takes the main layer out of a dotted name.

    Args:
        name: such as ``vision_model.vit.embeddings.cls_token`` or ``vision_model.clip.vision_model.post_layernorm.bias``.

    Returns:
        ``vision_model.embeddings.cls_token`` or ``vision_model.vision_model.post_layernorm.bias``; a name without a
        tower as it is.

    Raises:
        ModelError: ``vision_model`` is in the name more than twice.
    """
    if "vision_model" in name:
        count = name.count("vision_model")
        if count == 1:
            return re.sub(r"vision_model\..*?\.", "vision_model.", name, count=1)
        if count == 2:
            return re.sub(r"vision_model\..*?\.vision_model", "vision_model.vision_model", name, count=1)
        raise ModelError(
            f"Unexpected weight name {printable(name)}: vision_model is in it {count} times; expected once or twice. "
            "Check where the checkpoint comes from."
        )
    if "text_model" in name:
        return re.sub(r"text_model\..*?\.", "text_model.", name, count=1)
    return name


def pt_to_tf_scope(name: str, vision_layer: str, text_layer: str) -> str:
    """Puts the main layer back into a dotted name.

    Args:
        name: such as ``vision_model.embeddings.cls_token``.
        vision_layer: main layer of the vision tower, ``vit`` for example.
        text_layer: main layer of the text tower.

    Returns:
        ``vision_model.vit.embeddings.cls_token``; a name without a tower as it is.
    """
    for side, main in (("vision_model", vision_layer), ("text_model", text_layer)):
        if name.startswith(f"{side}."):
            return f"{side}.{main}.{name.removeprefix(f'{side}.')}"
    return name
