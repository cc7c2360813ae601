"""What transformers 4 gave every TensorFlow model besides calling, loading and saving it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from converter.errors import ModelError
from converter.models.outputs import ModelOutput
from converter.models.vocabulary import resize_words

Tensor = Any
_SERVED_IDS = ("input_ids", "attention_mask", "token_type_ids")


class Transformers4:
    """Mixin of models and towers: attributes and methods of transformers 4's ``TFPreTrainedModel``.

    Attributes:
        framework: ``"tf"``, as transformers 4 has it.
        main_input_name: the input that comes first.
    """

    framework: ClassVar[str] = "tf"
    main_input_name: ClassVar[str] = "input_ids"

    build: Callable[..., None]
    config: Any
    trainable_variables: Any

    @property
    def name_or_path(self) -> str:
        """Where the model was loaded from; empty for a new one."""
        return str(getattr(self.config, "_name_or_path", "") or "")

    @classmethod
    def can_generate(cls) -> bool:
        """Whether the model generates text: it does not."""
        return False

    def build_in_name_scope(self) -> None:
        """Creates all variables, as ``build`` does."""
        self.build()

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Counts the parameters.

        Args:
            only_trainable: leave out frozen weights.
        """
        self.build()
        if not only_trainable:
            return int(self.count_params())  # type: ignore[attr-defined]
        return sum(math.prod(variable.shape) for variable in self.trainable_variables)

    def _words(self) -> Any:
        """The tower that has the table of words: the model's text tower, or this tower itself."""
        return getattr(self, "text_model", None) or self

    def get_input_embeddings(self) -> Any:
        """The embeddings layer, that of the text tower in a whole model. Its word embeddings are ``weight``."""
        self.build()
        return self._words().embeddings

    def get_output_embeddings(self) -> None:
        """None, because there is no head that generates words."""

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> Any:
        """Resizes the vocabulary of the text tower; ``config.vocab_size`` follows.

        Resize before ``compile`` and ``fit``, or they keep using the old embeddings.

        Args:
            new_num_tokens: usually ``len(tokenizer)``; None changes nothing.

        Returns:
            The variable ``(words, width)``.

        Raises:
            ModelError: the tower has no word embeddings, or the number is not positive.
        """
        tower = self._words()
        self.build()
        return resize_words(tower, int(tower.config.vocab_size if new_num_tokens is None else new_num_tokens))

    @property
    def input_signature(self) -> dict[str, Any]:
        """Name, shape and dtype of the inputs as ``tf.TensorSpec``; ids are int32, free sizes None."""
        import tensorflow as tf

        return {name: tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in self.inputs_served().items()}

    def inputs_served(self) -> dict[str, tuple[Sequence[int | None], str]]:
        """Shape and dtype of the inputs that a server gets, by name; free sizes are None."""
        fields = getattr(self, "fields", None) or self.input_fields  # type: ignore[attr-defined]
        found: dict[str, Any] = {name: ((None, None), "int32") for name in _SERVED_IDS if name in fields}
        return {**found, **getattr(getattr(self, "vision_model", self), "served", {})}

    def save_spec(self, dynamic_batch: bool = True) -> Any:
        """The inputs in the form that ``tf.lite.TFLiteConverter.from_keras_model`` needs.

        Args:
            dynamic_batch: ignored; the batch is free.
        """
        del dynamic_batch
        from tensorflow.python.util import keras_deps

        # The converter enters a context of Keras 2, which Keras 3 does not have. An existing one stays.
        if keras_deps.get_call_context_function() is None:
            keras_deps.register_call_context_function(_NoContext)
        return (self.input_signature,), {}

    @property
    def serving(self) -> Any:
        """A ``tf.function`` of one dictionary of inputs that returns ``serving_output``. Keep it: each access traces again."""
        import tensorflow as tf

        return tf.function(lambda inputs: self.serving_output(self(inputs)))  # type: ignore[operator]

    def serving_output(self, output: Any) -> Any:
        """An output without hidden states and attentions that the config does not ask for.

        Args:
            output: the result of a call; anything but a model's output stays as it is.
        """
        if not isinstance(output, ModelOutput):
            return output
        unasked = {
            field
            for field, option in (("hidden_states", "output_hidden_states"), ("attentions", "output_attentions"))
            if not getattr(self.config, option, False)
        }
        kept = ((name, self.serving_output(value)) for name, value in output.items() if name not in unasked)
        return type(output)(kept)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Prints the layers and their sizes; ``print_fn`` gets one line at a time.

        Args:
            *args: of Keras.
            **kwargs: of Keras.
        """
        self.build()
        tell = kwargs.pop("print_fn", None)

        def by_line(text: Any, *rest: Any, **more: Any) -> None:
            for line in str(text).splitlines():
                tell(line, *rest, **more)

        if tell is not None:
            kwargs["print_fn"] = by_line
        super().summary(*args, **kwargs)  # type: ignore[misc]

    def prepare_tf_dataset(
        self,
        dataset: Any,
        batch_size: int = 8,
        shuffle: bool = True,
        tokenizer: Any = None,
        collate_fn: Callable[..., Any] | None = None,
        collate_fn_args: dict[str, Any] | None = None,
        drop_remainder: bool | None = None,
        prefetch: bool = True,
    ) -> Any:
        """Wraps a ``datasets.Dataset`` as a ``tf.data.Dataset`` of batches for ``fit``.

        Args:
            dataset: the data; columns that are not inputs of the model are left out.
            batch_size: how many samples a batch has.
            shuffle: whether samples come in random order.
            tokenizer: pads the texts of a batch; not needed with ``collate_fn`` or texts of one length.
            collate_fn: makes a batch of samples.
            collate_fn_args: arguments of ``collate_fn``.
            drop_remainder: whether an incomplete last batch is left out; None: as ``shuffle``.
            prefetch: whether the next batch is prepared in parallel.

        Raises:
            ModelError: ``dataset`` is not a ``datasets.Dataset``, or none of its columns is an input.
        """
        from transformers import DataCollatorWithPadding, DefaultDataCollator

        if not hasattr(dataset, "to_tf_dataset"):
            raise ModelError(
                f"dataset is a {type(dataset).__name__}; expected a datasets.Dataset. "
                "Pass a tf.data.Dataset or arrays to fit as they are."
            )
        fields = getattr(self, "fields", None) or self.input_fields  # type: ignore[attr-defined]
        columns = [name for name in dataset.column_names if name in fields]
        if not columns:
            raise ModelError(f"the dataset has no column among {', '.join(fields)}. Tokenize its texts first.")
        if collate_fn is None and tokenizer is None:
            collate_fn = DefaultDataCollator(return_tensors="np")
        elif collate_fn is None:
            collate_fn = DataCollatorWithPadding(tokenizer=tokenizer, return_tensors="np")
        return dataset.to_tf_dataset(
            columns=columns,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_remainder=shuffle if drop_remainder is None else drop_remainder,
            collate_fn=collate_fn,
            collate_fn_args=collate_fn_args or {},
            prefetch=prefetch,
        )


class _NoContext:
    """Stands for the call context of Keras 2; no layer is being called."""

    layer = None

    def enter(self, *args: Any, **kwargs: Any) -> contextlib.AbstractContextManager[None]:
        """A context in which nothing is different."""
        del args, kwargs
        return contextlib.nullcontext()
