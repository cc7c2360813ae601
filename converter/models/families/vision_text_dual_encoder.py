"""The dual encoder: two towers, two projections without bias, and a learned temperature.

The interface is that of transformers 4's ``TFVisionTextDualEncoderModel``; the towers and everything below are ours,
on Keras 3, so that it runs wherever Keras does. LiT (https://arxiv.org/abs/2111.07991) is trained with
``model.vision_model.trainable = False`` and ``fit``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import keras
import numpy as np
from keras import ops
from transformers import VisionTextDualEncoderConfig

from converter.errors import ConfigError, ModelError, listed
from converter.exporting.savedmodel import export_saved_model
from converter.models.embeddings import pair
from converter.models.inputs import unpacked
from converter.models.losses import clip_loss
from converter.models.outputs import DualEncoderOutput
from converter.models.parts import Composite, Dense, Raw, unit, widened
from converter.models.registry import tower_class, tower_config
from converter.models.tower import Tower
from converter.names import scopes
from converter.names.configs import check_config

if TYPE_CHECKING:
    from converter.conversion.engine import Conversion
    from converter.specs import Framework

Tensor = Any

FIELDS = ("input_ids", "pixel_values", "attention_mask", "position_ids", "return_loss", "token_type_ids")
FLAGS = ("output_attentions", "output_hidden_states", "return_dict", "training")
DUMMY_IDS = ((7, 6, 0, 0, 1), (1, 2, 3, 0, 0), (0, 0, 0, 4, 5))


@keras.saving.register_keras_serializable(package="converter")
class TFVisionTextDualEncoderModel(Composite, keras.Model):
    """Embeds images and texts into one space and scores every pair.

    Args:
        config: of transformers; its towers' configs are used where no tower is given.
        vision_model: a vision tower of this package, built or not.
        text_model: a text tower of this package, built or not.
        initial: ``"random"``, ``"zeros"``, or ``"empty"`` for a model that is about to be loaded.
        **kwargs: ``name``, ``dtype`` and ``trainable``, as for every Keras model.

    Raises:
        ModelError: neither a config nor both towers were given, or a tower is not one of ours or has no pooled output.
        ConfigError: the config is of another kind.
        UnsupportedTower: there is no tower for a model type in the config.
        UnsupportedOption: a config field has a value that changes the graph in a way that is not supported.
    """

    config_class: ClassVar[Any] = VisionTextDualEncoderConfig
    base_model_prefix: ClassVar[str] = "vision_text_dual_encoder"
    load_weight_prefix: ClassVar[str] = "tf_vision_text_dual_encoder_model"

    def __init__(
        self,
        config: VisionTextDualEncoderConfig | None = None,
        vision_model: Any = None,
        text_model: Any = None,
        *,
        initial: str = "random",
        **kwargs: Any,
    ) -> None:
        config = _joint_config(config, vision_model, text_model)
        super().__init__(name=kwargs.pop("name", None) or self.load_weight_prefix, **kwargs)
        self.initial = initial
        self.config = config
        self.vision_model = self.part("vision_model", self._tower("vision", vision_model))
        self.text_model = self.part("text_model", self._tower("text", text_model))
        self.vision_model.config, self.text_model.config = config.vision_config, config.text_config
        self.vision_embed_dim = config.vision_config.hidden_size
        self.text_embed_dim = config.text_config.hidden_size
        self.projection_dim = config.projection_dim
        self.visual_projection = self._projection("visual_projection", self.vision_embed_dim)
        self.text_projection = self._projection("text_projection", self.text_embed_dim)
        self._logit_scale = self.part("logit_scale", Raw((1,), value=config.logit_scale_init_value))
        self.logit_scale: Any = None

    def _tower(self, side: str, given: Any) -> Any:
        if given is None:
            config = getattr(self.config, f"{side}_config")
            kind = tower_class(config, side)
            return kind(config, initial=self.initial, name=f"{side}_model", dtype=self.dtype_policy)
        if not isinstance(given, Tower):
            raise ModelError(
                f"{side}_model is a {type(given).__name__}; expected a {side} tower of converter.models. "
                "Make one with converter.models.build_tower(config), or give a config only."
            )
        tower_class(given.config, side)
        if not given.add_pooling_layer:
            raise ModelError(
                f"{side}_model was made with add_pooling_layer=False and has no pooled output to project. "
                "Make it with its pooling layer."
            )
        return given

    def _projection(self, name: str, width: int) -> Any:
        std = getattr(self.config, "initializer_range", None) or 0.02
        return self.part(name, Dense(width, self.projection_dim, bias=False, std=std))

    def build(self, input_shape: Any = None) -> None:
        """Creates all variables under their checkpoint names; does nothing when that is done."""
        if not self.built:
            super().build(input_shape)
            self.logit_scale = self._logit_scale.value

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keras' ``compile``; the loss is the contrastive one, unless another is given."""
        self.build()
        super().compile(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """What ``from_config`` needs, as JSON."""
        return {
            "config": self.config.to_dict(),
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None, **kwargs: Any) -> TFVisionTextDualEncoderModel:
        """A model with fresh weights, from ``get_config``'s dictionary or from a config of transformers."""
        del custom_objects
        if not isinstance(config, Mapping):
            return cls(config, **kwargs)
        options = {**config, **kwargs}
        return cls(VisionTextDualEncoderConfig.from_dict(dict(options.pop("config"))), **options)

    def get_build_config(self) -> dict[str, Any]:
        """Nothing is needed: all shapes come from the config."""
        return {"input_shape": None}

    def build_from_config(self, config: Any) -> None:
        """Builds; the saved shapes do not matter."""
        del config
        self.build()

    def get_text_features(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        token_type_ids: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Tensor:
        """Projects texts into the common space, without normalising.

        Args:
            input_ids: ``(texts, length)``, or a dictionary of inputs.
            attention_mask: ``(texts, length)``; None: all are tokens.
            position_ids: ``(texts, length)``; None: counted as the tower counts.
            token_type_ids: ``(texts, length)``; None: all 0.
            output_attentions: taken for the interface's sake; only the features are returned.
            output_hidden_states: the same.
            return_dict: the same.
            training: whether dropout is on.

        Returns:
            Features ``(texts, projection_dim)``.

        Raises:
            ModelError: an input does not fit the config.
        """
        del output_attentions, output_hidden_states, return_dict
        self.build()
        given = {"attention_mask": attention_mask, "position_ids": position_ids, "token_type_ids": token_type_ids}
        inputs = unpacked(input_ids, given, ("input_ids", *given))
        return self.text_projection(self.text_model(**inputs, return_dict=False, training=training)[1])

    def get_image_features(
        self,
        pixel_values: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Tensor:
        """Projects images into the common space, without normalising.

        Args:
            pixel_values: ``(images, channels, height, width)``, or a dictionary of inputs.
            output_attentions: taken for the interface's sake; only the features are returned.
            output_hidden_states: the same.
            return_dict: the same.
            training: whether dropout is on.

        Returns:
            Features ``(images, projection_dim)``.

        Raises:
            ModelError: the images do not fit the config.
        """
        del output_attentions, output_hidden_states, return_dict
        self.build()
        inputs = unpacked(pixel_values, {}, ("pixel_values",))
        return self.visual_projection(self.vision_model(**inputs, return_dict=False, training=training)[1])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model on inputs of any accepted kind; see ``call``."""
        self.build()
        kwargs |= dict(zip((*FIELDS, *FLAGS)[1:], args[1:], strict=False))
        given = {field: kwargs.pop(field, None) for field in FIELDS}
        inputs = unpacked(args[0] if args else None, given, FIELDS)
        return super().__call__(**self._tensors(inputs), **kwargs)

    def _tensors(self, inputs: dict[str, Any]) -> dict[str, Any]:
        missing = [field for field in ("input_ids", "pixel_values") if field not in inputs]
        if missing:
            raise ModelError(
                f"{' and '.join(missing)} missing; the dual encoder needs texts and images. "
                "Use get_text_features or get_image_features for one of them alone."
            )
        pixels = self.vision_model.checked({"pixel_values": inputs["pixel_values"]})["pixel_values"]
        ids = self.text_model.checked({f: v for f, v in inputs.items() if f not in ("pixel_values", "return_loss")})
        images, texts = pixels.shape[0], ids["input_ids"].shape[0]
        loss = bool(inputs.get("return_loss", False))
        if loss and images is not None and texts is not None and images != texts:
            raise ModelError(
                f"return_loss with {images} images and {texts} texts: the loss pairs text i with image i. "
                "Give as many texts as images, or leave return_loss out."
            )
        return {**ids, "pixel_values": pixels, "return_loss": loss}

    def call(
        self,
        input_ids: Tensor = None,
        pixel_values: Tensor = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_loss: bool | None = None,
        token_type_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """Scores every text against every image.

        Args:
            input_ids: ``(texts, length)``, or one dictionary of all inputs.
            pixel_values: ``(images, channels, height, width)``.
            attention_mask: ``(texts, length)``, 1 where a token is; None: all are tokens.
            position_ids: ``(texts, length)``; None: counted as the tower counts.
            return_loss: whether to return the contrastive loss; needs as many images as texts.
            token_type_ids: ``(texts, length)``; None: all 0.
            output_attentions: whether the towers return attention weights; None: as their configs say.
            output_hidden_states: whether the towers return hidden states; None: as their configs say.
            return_dict: whether to return a ``DualEncoderOutput`` or a plain tuple; None: as the config says.
            training: whether dropout is on.

        Returns:
            The fields of ``DualEncoderOutput``; ``loss`` has shape ``(1,)`` and is there with ``return_loss`` only.

        Raises:
            ModelError: an input is missing or does not fit the config.
        """
        if isinstance(input_ids, Mapping):
            return self(input_ids, training=training)
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        as_dict = getattr(self.config, "return_dict", True) if return_dict is None else return_dict
        given = {"attention_mask": attention_mask, "position_ids": position_ids, "token_type_ids": token_type_ids}
        images = self.vision_model.run(pixel_values=pixel_values, **asked, return_dict=True, training=training)
        texts = self.text_model.run(input_ids=input_ids, **given, **asked, return_dict=True, training=training)
        # Half precision is rounded at the end only: scores are differences of numbers near each other.
        image_units = unit(widened(self.visual_projection(images.pooler_output)))
        text_units = unit(widened(self.text_projection(texts.pooler_output)))
        scale = ops.cast(ops.convert_to_tensor(self.logit_scale), text_units.dtype)
        scores = ops.matmul(text_units, ops.transpose(image_units)) * ops.exp(scale)
        image_embeds, text_embeds, logits_per_text = (
            ops.cast(made, self.compute_dtype) for made in (image_units, text_units, scores)
        )
        made = DualEncoderOutput.of(
            loss=ops.reshape(clip_loss(logits_per_text), (1,)) if return_loss else None,
            logits_per_image=ops.transpose(logits_per_text),
            logits_per_text=logits_per_text,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=texts,
            vision_model_output=images,
        )
        return made if as_dict else made.to_tuple()

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """The call as it is: inside a ``keras.RematScope`` the layers run again, not the whole model."""
        del args, kwargs
        return layer_call

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """The contrastive loss, so that ``fit`` works on pairs of images and texts without labels.

        Args:
            x: the inputs.
            y: labels; only looked at where ``compile`` was given a loss.
            y_pred: what ``call`` returned.
            sample_weight: for a loss given to ``compile``.
            training: passed on.

        Returns:
            A scalar.
        """
        if getattr(self, "_compile_loss", None) is not None and y is not None:
            return super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        loss = clip_loss(y_pred["logits_per_text"])
        return ops.sum(ops.stack([loss, *(ops.cast(extra, loss.dtype) for extra in self.losses)]))

    def tf_to_pt_weight_rename(self, tf_weight: str) -> tuple[str]:
        """Takes the main layer out of a dotted name: ``text_model.bert.x`` to ``text_model.x``."""
        return scopes.tf_to_pt_weight_rename(tf_weight)

    def pt_to_tf_weight_rename(self, pt_weight: str) -> tuple[str]:
        """Puts the main layer back into a nested (4.x) PyTorch name: the inverse of ``tf_to_pt_weight_rename``."""
        return (scopes.restore_main_layer(pt_weight, check_config(self.config.to_dict())),)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Three short texts and three random images that the model accepts."""
        vision = self.config.vision_config
        ids = np.array(DUMMY_IDS, "int32") % self.config.text_config.vocab_size
        shape = (len(DUMMY_IDS), vision.num_channels, *pair(vision.image_size))
        return {
            "pixel_values": keras.random.uniform(shape, dtype=self.compute_dtype),
            "input_ids": ops.convert_to_tensor(ids),
        }

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        config: Any = None,
        from_pt: bool = False,
        **kwargs: Any,
    ) -> TFVisionTextDualEncoderModel:
        """Loads a checkpoint of either framework, in any container that the converter reads.

        Args:
            source: a folder as ``save_pretrained`` writes it, a weights file in one, or the id of a model on the Hub
                (``id@revision`` too).
            revision: branch, tag or commit, where ``source`` is an id.
            config: of transformers, instead of the checkpoint's.
            from_pt: taken for the interface's sake: what kind of checkpoint it is, is seen.
            **kwargs: ``name`` and ``dtype`` of the model, any Keras dtype policy; fields of the config to change.

        Returns:
            The model, built.

        Raises:
            ConverterError: the checkpoint is not complete or not sound, or the Hub refuses.
        """
        from converter.models.loading import load_dual_encoder

        loaded: TFVisionTextDualEncoderModel = load_dual_encoder(
            cls, source, revision=revision, config=config, from_pt=from_pt, **kwargs
        )
        return loaded

    def save_pretrained(
        self,
        out: str | os.PathLike[str],
        *,
        format: Literal["h5", "safetensors"] | None = None,
        framework: Framework = "tf",
        safe_serialization: bool = False,
        overwrite: bool = False,
    ) -> Conversion:
        """Saves the model as a checkpoint folder, of either framework.

        Args:
            out: folder to make.
            format: container; None: ``tf_model.h5`` for TensorFlow, safetensors for PyTorch.
            framework: whose checkpoint to write, ``"tf"`` or ``"pt"``.
            safe_serialization: safetensors for TensorFlow too, as in transformers 4; PyTorch's are always.
            overwrite: replace ``out`` if it exists.

        Returns:
            What was written.

        Raises:
            TargetError: ``out`` exists, or cannot be written.
        """
        from converter.models.loading import save_dual_encoder

        container = format or ("safetensors" if safe_serialization or framework == "pt" else "h5")
        return save_dual_encoder(self, out, framework, container, overwrite)

    def export(self, filepath: str | os.PathLike[str], format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Writes a SavedModel with the signatures ``similarity`` (the default), ``encode_image`` and ``encode_text``.

        Ids are int64, as tokenizers give them, and pixel values float32; the number of images, of texts and of tokens is
        free, and images and texts may differ in number.

        Args:
            filepath: folder to make.
            format: ``"tf_saved_model"``; there is no other.
            **kwargs: ``verbose`` is taken for Keras' sake; the signatures are what they are.

        Raises:
            ModelError: another format, a backend other than TensorFlow, or an argument that means nothing here.
        """
        kwargs.pop("verbose", None)
        if kwargs:
            raise ModelError(
                f"export has no {listed(sorted(kwargs))}: its signatures are similarity, encode_image and encode_text. "
                "Leave it out, or use keras.export.ExportArchive for signatures of your own."
            )
        export_saved_model(self, filepath, format)

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision_model_name_or_path: str | os.PathLike[str] | None = None,
        text_model_name_or_path: str | os.PathLike[str] | None = None,
        *model_args: Any,
        **kwargs: Any,
    ) -> TFVisionTextDualEncoderModel:
        """Joins two tower checkpoints, of either framework; the projections are new: train them before use.

        Args:
            vision_model_name_or_path: checkpoint of the vision tower, of a model with a head on it, or of a full CLIP: a
                folder, a weights file, or the id of a model on the Hub; not needed with ``vision_model=``.
            text_model_name_or_path: checkpoint of the text tower, likewise; not needed with ``text_model=``.
            *model_args: of both towers: ``add_pooling_layer``.
            **kwargs: ``vision_model`` and ``text_model``, towers themselves; with ``vision_`` or ``text_`` in front
                ``revision``, ``config``, ``dtype`` or a field of that tower's config; the others are fields of the dual
                encoder's config, such as ``projection_dim``.

        Returns:
            The model, built.

        Raises:
            ModelError: a tower has neither a checkpoint nor a model.
            ConverterError: a checkpoint does not hold the tower, or is not sound.
        """
        from converter.models.loading import join_towers

        joined: TFVisionTextDualEncoderModel = join_towers(
            cls, vision_model_name_or_path, text_model_name_or_path, *model_args, **kwargs
        )
        return joined


def _joint_config(config: Any, vision_model: Any, text_model: Any) -> Any:
    if config is None:
        if vision_model is None or text_model is None:
            given = [side for side, tower in (("vision", vision_model), ("text", text_model)) if tower is not None]
            raise ModelError(
                "Either a configuration or a vision and a text model has to be provided"
                f"{f'; only {given[0]}_model was given' if given else ''}. "
                "Pass config=, or vision_model= and text_model=."
            )
        return VisionTextDualEncoderConfig.from_vision_text_configs(vision_model.config, text_model.config)
    if not isinstance(config, VisionTextDualEncoderConfig):
        raise ConfigError(
            f"config is a {type(config).__name__}; it has to be of type VisionTextDualEncoderConfig. "
            "Make one with VisionTextDualEncoderConfig.from_vision_text_configs(vision_config, text_config)."
        )
    for side in ("vision", "text"):
        setattr(config, f"{side}_config", tower_config(getattr(config, f"{side}_config"), side))
    return config
