"""Checkpoints of a model with two towers, in and out, and what a server gets; each is one call to the module for it."""

from __future__ import annotations

import os
from collections.abc import Callable
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

    build: Callable[..., None]

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
        """Loads a checkpoint of any framework, in any container that the converter reads.

        Args:
            source: a folder that ``save_pretrained`` wrote, a weights file in one, or the id of a model on the Hub
                (``id@revision`` too).
            revision: branch, tag or commit, if ``source`` is an id; ignored for a path.
            config: a transformers config to use instead of the checkpoint's.
            from_pt: accepted for compatibility, ignored: the framework is detected.
            **kwargs: ``name`` of the model; ``dtype`` or ``torch_dtype``; fields of the config to change. A dtype is a Keras
                policy, the dtype of any framework, or ``"auto"`` for the one that the checkpoint was saved in. The
                default is float32. ``positions="flax"`` gives Flax's outputs for a Flax checkpoint whose text tower
                counts positions differently. For the Hub: ``subfolder`` (of a folder, too), ``token``, ``cache_dir``,
                ``local_files_only``, ``force_download``. ``variant="fp16"`` reads ``model.fp16.safetensors`` of a folder.
                ``ignore_mismatched_sizes=True`` gives new random values to weights of another shape, and warns.
                ``output_loading_info=True`` returns the model and a dictionary of what was missing, unexpected or
                mismatched.

        Returns:
            The model, built.

        Raises:
            ConverterError: the checkpoint is of another family, is incomplete or invalid, or the Hub refuses.
        """
        from converter.models.loading import load_two_towers

        loaded: Self = load_two_towers(cls, source, revision=revision, config=config, from_pt=from_pt, **kwargs)
        return loaded

    @checked()
    def save_pretrained(
        self,
        out: str | os.PathLike[str] | None = None,
        saved_model: bool = False,
        version: int = 1,
        push_to_hub: bool = False,
        *,
        format: Literal["h5", "safetensors"] | None = None,
        framework: Framework = "tf",
        safe_serialization: bool = False,
        overwrite: bool = True,
        max_shard_size: str | int | None = None,
        signatures: Any = None,
        save_directory: str | os.PathLike[str] | None = None,
        repo_id: str | None = None,
        **kwargs: Any,
    ) -> Conversion:
        """Saves the model as a checkpoint folder for TensorFlow or PyTorch.

        Args:
            out: the folder to create. In an existing one the checkpoint is replaced, all or nothing. Other files in
                it, such as a tokenizer, stay.
            saved_model: write ``saved_model/1`` into the folder, too.
            version: the name of that folder instead of 1.
            push_to_hub: publish the folder afterwards, as the method ``push_to_hub`` does.
            format: container; None: ``tf_model.h5`` for TensorFlow, safetensors for PyTorch.
            framework: the framework to write for, ``"tf"`` or ``"pt"``.
            safe_serialization: safetensors for TensorFlow too, as in transformers 4; PyTorch's are always.
            overwrite: False refuses an existing folder.
            max_shard_size: split the weights into files of at most this size, for example ``"5GB"``; None for one file.
            signatures: of the SavedModel; None: those of ``export``.
            save_directory: another name of ``out``.
            repo_id: where to publish; None: the folder's name.
            **kwargs: of ``push_to_hub``.

        Returns:
            What was written.

        Raises:
            TargetError: ``out`` must not be replaced, or cannot be written.
            ModelError: no folder is named, or an argument is meaningless here.
        """
        from converter.models.saving import push_model, save_graph, save_two_towers

        folder = save_directory if out is None else out
        if folder is None:
            raise ModelError("save_pretrained needs a folder. Pass its path.")
        options = publishing_options(kwargs)
        container = format or ("safetensors" if safe_serialization or framework == "pt" else "h5")
        self.build()
        written = save_two_towers(self, folder, framework, container, overwrite, max_shard_size)
        if saved_model:
            save_graph(self, folder, version, signatures)
        if push_to_hub:
            push_model(self, repo_id or Path(folder).name, folder, {}, options)
        return written

    @checked()
    def push_to_hub(
        self,
        repo_id: str,
        use_temp_dir: bool | None = None,
        *,
        max_shard_size: str | int | None = None,
        safe_serialization: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Publishes the model in a Hub repository with ``converter.push``. The card says that it was not verified.

        Args:
            repo_id: id of the repository; created if it does not exist. One that holds something gets a pull request, unless
                ``create_pr=False`` requests a commit.
            use_temp_dir: accepted for compatibility, ignored: the folder is always temporary.
            max_shard_size: as of ``save_pretrained``.
            safe_serialization: as of ``save_pretrained``.
            **kwargs: ``commit_message``, ``private``, ``create_pr``, ``revision`` and ``token``.

        Returns:
            A ``Publication``, whose ``url`` is that of the commit or pull request.

        Raises:
            ModelError: an argument has no meaning here.
            HubError: the Hub refuses, or cannot be reached.
        """
        del use_temp_dir
        from converter.models.saving import push_model

        saving = {"max_shard_size": max_shard_size, "safe_serialization": safe_serialization}
        return push_model(self, repo_id, None, saving, publishing_options(kwargs))

    def save_weights(self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Saves the weights: ``.weights.h5`` as Keras 3 does; ``.h5`` and names without ending under checkpoint names.

        Args:
            filepath: the file. A name without ending is the prefix of a TensorFlow checkpoint.
            *args: of Keras.
            **kwargs: of Keras; ``save_format`` of Keras 2 is ignored.
        """
        from converter.models.saving import HDF5, save_named

        kwargs.pop("save_format", None)
        path = str(filepath)
        if not path.endswith(_OF_KERAS) and (path.endswith(HDF5) or not Path(path).suffix):
            save_named(self, filepath, *args, **kwargs)
            return
        super().save_weights(filepath, *args, **kwargs)  # type: ignore[misc]

    def load_weights(self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Loads weights: a ``.weights.h5`` of Keras 3, or by name the ``.h5`` or TensorFlow checkpoint of transformers 4.

        Args:
            filepath: the file, or the prefix of a TensorFlow checkpoint.
            *args: of Keras.
            **kwargs: of Keras; ``by_name`` of Keras 2 is ignored, because names are always used if there are any.

        Raises:
            ModelError: another kind of checkpoint; ``from_pretrained`` reads those.
            ConverterError: the file does not hold this model's weights.
        """
        from converter.models.saving import is_named, load_named

        if is_named(filepath):
            load_named(self, filepath, skip_mismatch=bool(kwargs.get("skip_mismatch", False)))
            return
        folder = Path(filepath).is_dir() and not (Path(filepath) / "config.json").exists()  # such as Orbax
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
            ModelError: a name with another ending: Keras' HDF5 format supports only models of its own layers.
        """
        if not str(filepath).endswith(".keras") and kwargs.get("zipped") is not False:
            raise ModelError(
                f"{filepath}: save writes a .keras file. Name one, or use save_pretrained(FOLDER) for a checkpoint, "
                "export(FOLDER) for a SavedModel."
            )
        super().save(filepath, *args, **kwargs)  # type: ignore[misc]

    @checked()
    def export(self, filepath: str | os.PathLike[str], format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Writes ``similarity``, ``encode_image`` and ``encode_text`` as a SavedModel, LiteRT file or ONNX graphs.

        Ids are int64, as tokenizers give them, and pixel values float32; the number of images, of texts and of tokens is
        free, and images and texts may differ in number. Nothing is verified: ``converter.export`` does that.

        Args:
            filepath: folder to make; of LiteRT a file that ends in ``.tflite``.
            format: ``"tf_saved_model"`` (or ``"savedmodel"``), whose default signature is ``similarity``; ``"litert"`` or
                ``"onnx"``.
            **kwargs: ``verbose`` is accepted for compatibility, ignored; the signatures are fixed.

        Raises:
            ModelError: another format, a backend other than TensorFlow, or an argument that is meaningless here.
        """
        kwargs.pop("verbose", None)
        if kwargs:
            raise ModelError(
                f"export has no {listed(sorted(kwargs))}: its signatures are similarity, encode_image and encode_text. "
                "Leave it out, or use keras.export.ExportArchive for signatures of your own."
            )
        ports.provided("export")(self, filepath, format)


def publishing_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``converter.push`` by those of transformers 4's ``push_to_hub``.

    Raises:
        ModelError: an argument has no meaning here.
    """
    rest = dict(kwargs)
    token = rest.pop("token", None) or rest.pop("use_auth_token", None)
    options = {
        "message": rest.pop("commit_message", None),
        "private": bool(rest.pop("private", None)),
        "create_pr": rest.pop("create_pr", None),
        "revision": rest.pop("revision", None),
        "token": token if isinstance(token, str) else None,
    }
    rest.pop("use_auth_token", None)
    if rest:
        raise ModelError(f"{listed(sorted(rest))}: no argument of save_pretrained or push_to_hub here. Leave it out.")
    return options
