"""Checkpoints of a model with two towers, in and out, and what a server gets: each is one call to whoever does it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from converter.arguments import checked
from converter.errors import ModelError, listed
from converter.models import ports
from converter.specs import Framework

if TYPE_CHECKING:
    from converter.conversion.result import Conversion

_OF_KERAS = (".weights.h5", ".keras", ".weights.json")


class Pretrained:
    """Mixin of models with two towers."""

    @classmethod
    @checked()
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        config: Any = None,
        from_pt: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Loads a checkpoint of either framework, in any container that the converter reads.

        Args:
            source: a folder as ``save_pretrained`` writes it, a weights file in one, or the id of a model on the Hub
                (``id@revision`` too).
            revision: branch, tag or commit, where ``source`` is an id; of a path it has no meaning.
            config: of transformers, instead of the checkpoint's.
            from_pt: accepted for compatibility, ignored: the framework is detected.
            **kwargs: ``name`` of the model; ``dtype`` or ``torch_dtype``, as a Keras policy or the dtype of any framework,
                or ``"auto"`` for what the checkpoint was saved in (float32 if neither is given); fields of the config to
                change; ``positions="flax"`` of a Flax checkpoint whose text tower counts positions otherwise, for Flax's
                outputs. Of the Hub: ``subfolder`` (of a folder, too), ``token``, ``cache_dir``, ``local_files_only``,
                ``force_download``.

        Returns:
            The model, built.

        Raises:
            ConverterError: the checkpoint is of another family, not complete or not sound, or the Hub refuses.
        """
        from converter.models.loading import load_two_towers

        loaded: Self = load_two_towers(cls, source, revision=revision, config=config, from_pt=from_pt, **kwargs)
        return loaded

    @checked()
    def save_pretrained(
        self,
        out: str | os.PathLike[str],
        *,
        format: Literal["h5", "safetensors"] | None = None,
        framework: Framework = "tf",
        safe_serialization: bool = False,
        overwrite: bool = True,
    ) -> Conversion:
        """Saves the model as a checkpoint folder, of either framework.

        Args:
            out: folder to make. Of one that is there the checkpoint is replaced, all of it or none; whatever else is in
                it, a tokenizer say, stays.
            format: container; None: ``tf_model.h5`` for TensorFlow, safetensors for PyTorch.
            framework: whose checkpoint to write, ``"tf"`` or ``"pt"``.
            safe_serialization: safetensors for TensorFlow too, as in transformers 4; PyTorch's are always.
            overwrite: False refuses a folder that is there.

        Returns:
            What was written.

        Raises:
            TargetError: ``out`` must not be replaced, or cannot be written.
        """
        from converter.models.loading import save_two_towers

        container = format or ("safetensors" if safe_serialization or framework == "pt" else "h5")
        return save_two_towers(self, out, framework, container, overwrite)

    def load_weights(self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Loads what ``save_weights`` wrote: a ``.weights.h5``, whose variables Keras knows by their place.

        Args:
            filepath: the file.
            *args: of Keras.
            **kwargs: of Keras.

        Raises:
            ModelError: a checkpoint, whose variables have names; ``from_pretrained`` reads those.
        """
        folder = Path(filepath).is_dir() and not (Path(filepath) / "config.json").exists()  # Orbax, say
        if not str(filepath).endswith(_OF_KERAS) and not folder:
            raise ModelError(
                f"{filepath}: load_weights reads what save_weights wrote, a .weights.h5. "
                f"Use {type(self).__name__}.from_pretrained({str(filepath)!r}), which reads every checkpoint."
            )
        super().load_weights(filepath, *args, **kwargs)  # type: ignore[misc]

    def save(self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Saves the whole model as Keras does, to a ``.keras`` file.

        Args:
            filepath: the file.
            *args: of Keras.
            **kwargs: of Keras.

        Raises:
            ModelError: a name with another ending: Keras' HDF5 format holds models of its own layers only.
        """
        if not str(filepath).endswith(".keras") and kwargs.get("zipped") is not False:
            raise ModelError(
                f"{filepath}: save writes a .keras file. Name one, or use save_pretrained(FOLDER) for a checkpoint, "
                "export(FOLDER) for a SavedModel."
            )
        super().save(filepath, *args, **kwargs)  # type: ignore[misc]

    @checked()
    def export(self, filepath: str | os.PathLike[str], format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Writes ``similarity``, ``encode_image`` and ``encode_text`` as a SavedModel, or for LiteRT or ONNX.

        Ids are int64, as tokenizers give them, and pixel values float32; the number of images, of texts and of tokens is
        free, and images and texts may differ in number. Nothing is verified: ``converter.export`` does that.

        Args:
            filepath: folder to make; of LiteRT a file that ends in ``.tflite``.
            format: ``"tf_saved_model"`` (or ``"savedmodel"``), whose default signature is ``similarity``; ``"litert"`` or
                ``"onnx"``.
            **kwargs: ``verbose`` is accepted for compatibility, ignored; the signatures are what they are.

        Raises:
            ModelError: another format, a backend other than TensorFlow, or an argument that means nothing here.
        """
        kwargs.pop("verbose", None)
        if kwargs:
            raise ModelError(
                f"export has no {listed(sorted(kwargs))}: its signatures are similarity, encode_image and encode_text. "
                "Leave it out, or use keras.export.ExportArchive for signatures of your own."
            )
        ports.provided("export")(self, filepath, format)
