"""What people's TensorFlow code for transformers 4 does with a model, one snippet each, with the outcome to expect.

``EXPECTED`` holds what transformers 4.57.6 gives. ``OURS`` says where this package gives something else, and why.
``FAILS_THERE`` are snippets that fail in 4.57.6, with what they give here. An ``Exception`` class is an outcome, too.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from transformers import VisionTextDualEncoderConfig

from converter import ConverterError, TFVisionTextDualEncoderModel

Kind = TFVisionTextDualEncoderModel
CASES: dict[str, Callable[[Any], Any]] = {}


def case(snippet: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Registers a snippet; it gets a ``Bench``."""
    CASES[snippet.__name__] = snippet
    return snippet


class Bench:
    """A checkpoint, inputs for it, a model that no snippet may change, and fresh ones."""

    def __init__(self, source: Path, shared: Any, folder: Path) -> None:
        generator = np.random.default_rng(3)
        self.source, self.m, self.folder = source, shared, folder
        self.ids = generator.integers(5, 137, (3, 9)).astype("int32")
        self.pixels = generator.normal(size=(3, 3, 40, 40)).astype("float32")
        self.mask = np.ones((3, 9), "int32")
        self.mask[1, 6:] = 0

    @property
    def inputs(self) -> dict[str, Any]:
        """What a tokenizer and an image processor give with ``return_tensors="np"``."""
        return {"input_ids": self.ids, "attention_mask": self.mask, "pixel_values": self.pixels}

    @property
    def scores(self) -> Any:
        """Logits of the model that nobody changes."""
        return np.asarray(self.m(**self.inputs).logits_per_image)

    def load(self, **options: Any) -> Any:
        """A model of the snippet's own."""
        return Kind.from_pretrained(self.source, from_pt=True, **options)

    def same(self, model: Any) -> bool:
        """Whether a model gives the same as the shared one."""
        return bool(np.array_equal(self.scores, np.asarray(model(**self.inputs).logits_per_image)))


def names_in(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def fitted(b: Bench, data: Any = None, **options: Any) -> Any:
    """A model after one epoch, and what ``fit`` returned; XLA would take longer than all the rest."""
    m = b.load()
    m.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    return m, m.fit(b.inputs if data is None else data, epochs=1, batch_size=3, verbose=0, **options)


def dataset(b: Bench, **more: Any) -> Any:
    """Batches of the inputs, with more of them."""
    batches = tf.data.Dataset.from_tensor_slices(b.inputs).batch(3, drop_remainder=True)
    return batches.map(lambda x: {**x, **more}) if more else batches


@case
def from_pt(b: Bench) -> Any:
    return type(b.m).__name__


@case
def softmax(b: Bench) -> Any:
    return tuple(tf.nn.softmax(b.m(**b.inputs).logits_per_image, axis=1).numpy().shape)


@case
def dictionary_list_and_positions(b: Bench) -> Any:
    given = (b.m(b.inputs), b.m(b.ids, b.pixels, b.mask), b.m([b.ids, b.pixels, b.mask]), b.m.call(b.inputs))
    return [bool(np.array_equal(np.asarray(one.logits_per_image), b.scores)) for one in given]


@case
def keys(b: Bench) -> Any:
    return list(b.m(**b.inputs).keys()), len(b.m(**b.inputs, return_dict=False))


@case
def loss(b: Bench) -> Any:
    of_bool, of_array = (b.m(**b.inputs, return_loss=asked).loss for asked in (True, np.array([True] * 3)))
    return tuple(of_bool.shape), bool(of_bool[0] == of_array[0]), b.m(**b.inputs, return_loss=np.array(False)).loss


@case
def predict(b: Bench) -> Any:
    return b.m.predict(b.inputs, verbose=0)["logits_per_image"].shape


@case
def in_a_function(b: Bench) -> Any:
    return tuple(tf.function(lambda **k: b.m(**k).logits_per_image)(**b.inputs).shape)


@case
def arguments_of_the_hub(b: Bench) -> Any:
    hub = {"cache_dir": b.folder, "local_files_only": True, "force_download": False, "token": None, "subfolder": ""}
    m = b.load(**hub, use_auth_token=False, trust_remote_code=False, use_safetensors=True, revision="main")
    return b.same(m), m.name_or_path == m.config._name_or_path == str(b.source)


@case
def subfolder(b: Bench) -> Any:
    return b.same(Kind.from_pretrained(b.source.parent, subfolder=b.source.name))


@case
def loading_info(b: Bench) -> Any:
    m, info = b.load(output_loading_info=True)
    return b.same(m), {name: list(found) for name, found in sorted(info.items())}


@case
def mismatched_sizes(b: Bench) -> Any:
    m, info = b.load(projection_dim=12, ignore_mismatched_sizes=True, output_loading_info=True)
    return [(name, *shapes) for name, *shapes in info["mismatched_keys"]], tuple(m(**b.inputs).text_embeds.shape)


@case
def a_variant(b: Bench) -> Any:
    b.m.save_pretrained(b.folder / "v", safe_serialization=True)
    (b.folder / "v" / "model.safetensors").rename(b.folder / "v" / "model.fp16.safetensors")
    return b.same(Kind.from_pretrained(b.folder / "v", variant="fp16"))


@case
def a_variant_that_is_not_there(b: Bench) -> Any:
    return b.load(variant="fp16")


@case
def a_field_of_the_config(b: Bench) -> Any:
    return np.asarray(b.load(logit_scale_init_value=1.0).logit_scale).tolist()


@case
def lines_of_the_summary(b: Bench) -> Any:
    lines: list[str] = []
    b.m.summary(print_fn=lines.append)
    return len(lines) > 10, sum("vision_model" in line for line in lines)


@case
def counts(b: Bench) -> Any:
    m = b.load()
    m.vision_model.trainable = False
    return m.count_params(), m.num_parameters(), len(m.weights), len(m.trainable_variables), m.num_parameters(True)


@case
def save_and_load(b: Bench) -> Any:
    b.m.save_pretrained(b.folder / "s")
    return names_in(b.folder / "s"), b.same(Kind.from_pretrained(b.folder / "s"))


@case
def save_in_shards(b: Bench) -> Any:
    b.m.save_pretrained(save_directory=b.folder / "s", max_shard_size="200KB")
    return sorted(path.name for path in (b.folder / "s").glob("*.h5")), b.same(Kind.from_pretrained(b.folder / "s"))


@case
def save_weights_and_load_them(b: Bench) -> Any:
    equal = []
    for name in ("w.weights.h5", "w.h5", "w"):
        b.m.save_weights(b.folder / name)
        m = Kind(b.m.config)
        m.build()
        m.load_weights(b.folder / name)
        equal.append(b.same(m))
    return equal


@case
def load_weights_of_save_pretrained(b: Bench) -> Any:
    b.m.save_pretrained(b.folder / "s")
    m = Kind(b.m.config)
    m.load_weights(b.folder / "s" / "tf_model.h5")
    return b.same(m)


@case
def saved_model(b: Bench) -> Any:
    b.m.save_pretrained(b.folder / "s", saved_model=True)
    served = tf.saved_model.load(str(b.folder / "s" / "saved_model" / "1")).signatures["serving_default"]
    given = {name: tf.constant(b.inputs[name], served.structured_input_signature[1][name].dtype) for name in b.inputs}
    return float(np.abs(served(**given)["logits_per_image"].numpy() - b.scores).max()) < 1e-4


@case
def saved_model_of_my_signature(b: Bench) -> Any:
    m = b.load()
    spec = [m.input_signature[name] for name in ("input_ids", "pixel_values", "attention_mask")]
    f = tf.function(lambda i, p, a: {"scores": m(i, p, a).logits_per_image}, input_signature=spec)
    m.save_pretrained(b.folder / "s", saved_model=True, signatures={"serving_default": f})
    return names_in(b.folder / "s" / "saved_model" / "1")


@case
def fit_with_return_loss(b: Bench) -> Any:
    data = {**b.inputs, "return_loss": np.array([True] * 3)}
    m, history = fitted(b, data)
    losses = [m.evaluate(given, batch_size=3, verbose=0) for given in (data, b.inputs)]
    return list(history.history), type(losses[0]).__name__, losses[0] == losses[1], b.same(m)


@case
def fit_as_the_example_script(b: Bench) -> Any:
    data = dataset(b, return_loss=True)
    return sorted(fitted(b, data, validation_data=data)[1].history)


@case
def fit_and_keep_checkpoints(b: Bench) -> Any:
    keep = [
        keras.callbacks.ModelCheckpoint(b.folder / "{epoch}.weights.h5", save_weights_only=True),
        keras.callbacks.ModelCheckpoint(b.folder / "whole.keras"),
        keras.callbacks.BackupAndRestore(b.folder / "backup"),
        keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True),
    ]
    m, _ = fitted(b, dataset(b), callbacks=keep)
    again = b.load()
    again.load_weights(b.folder / "1.weights.h5")
    whole = keras.models.load_model(b.folder / "whole.keras")
    scores = [np.asarray(one(**b.inputs).logits_per_image) for one in (m, again, whole)]
    return [bool(np.array_equal(scores[0], one)) for one in scores[1:]]


@case
def my_own_loop(b: Bench) -> Any:
    m, optimizer = b.load(), keras.optimizers.Adam(1e-3)
    with tf.GradientTape() as tape:
        loss = m(**b.inputs, return_loss=True, training=True).loss
    gradients = tape.gradient(loss, m.trainable_variables)
    optimizer.apply_gradients(zip(gradients, m.trainable_variables, strict=True))
    return tuple(loss.shape), sum(one is None for one in gradients), b.same(m)


@case
def freeze(b: Bench) -> Any:
    m = b.load()
    whole = len(m.trainable_variables)
    m.vision_model.clip.vision_model.encoder.trainable = False
    encoder = whole - len(m.trainable_variables)
    m.text_model.bert.encoder.layer[0].attention.self_attention.trainable = False
    attention = whole - encoder - len(m.trainable_variables)
    m.vision_model.vision_model.encoder.layers[0].trainable = True
    released = len(m.trainable_variables)
    m.text_model.bert.trainable = False
    return encoder, attention, released - whole + encoder + attention, len(m.text_model.trainable_variables)


@case
def inner_weights(b: Bench) -> Any:
    bert = b.m.text_model.bert
    query = bert.encoder.layer[0].attention.self_attention.query.kernel
    return tuple(query.shape), tuple(bert.embeddings.weight.shape), tuple(bert(b.ids)[0].shape)


@case
def towers_alone(b: Bench) -> Any:
    pooled = b.m.vision_model(pixel_values=b.pixels)[1]
    last = b.m.text_model(b.ids, attention_mask=b.mask).last_hidden_state
    return tuple(pooled.shape), tuple(last.shape), tuple(b.m.visual_projection(pooled).shape)


@case
def embeddings_of_a_tower(b: Bench) -> Any:
    return tuple(b.m.text_model.get_input_embeddings().weight.shape)


@case
def more_words(b: Bench) -> Any:
    m = b.load()
    table = m.text_model.resize_token_embeddings(200)
    m.save_pretrained(b.folder / "s")
    again = Kind.from_pretrained(b.folder / "s")
    sizes = m.text_model.config.vocab_size, m.config.text_config.vocab_size, again.config.text_config.vocab_size
    more = again(**{**b.inputs, "input_ids": b.ids + 60}).logits_per_image
    return (
        sizes,
        tuple(table.shape),
        b.same(m),
        b.same(again),
        bool(np.isfinite(more).all()),
        len(m.trainable_variables),
    )


@case
def subclass_with_a_layer(b: Bench) -> Any:
    class Mine(Kind):
        def __init__(self, config: Any, *inputs: Any, **kwargs: Any) -> None:
            super().__init__(config, *inputs, **kwargs)
            self.extra = keras.layers.Dense(3, name="extra")

    return b.same(Mine.from_pretrained(b.source, from_pt=True))


@case
def functional_model(b: Bench) -> Any:
    images = keras.Input((3, 40, 40), name="pixel_values")
    pooled = b.m.vision_model(pixel_values=images)[1]
    features = b.m.get_image_features(images)
    k = keras.Model(images, [pooled, features, keras.layers.Dense(4)(pooled)])
    first, second, third = k(b.pixels)
    expected = b.m.vision_model(b.pixels)[1], b.m.get_image_features(b.pixels)
    equal = [float(np.abs(x - y).max()) < 1e-5 for x, y in zip((first, second), expected, strict=True)]
    return equal, tuple(third.shape), len(k.trainable_variables) - len(b.m.vision_model.trainable_variables)


@case
def in_my_own_model(b: Bench) -> Any:
    class Mine(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.m, self.d = b.load(), keras.layers.Dense(2)

        def call(self, x: Any, training: bool = False) -> Any:
            return self.d(self.m.get_image_features(x["pixel_values"], training=training))

    k = Mine()
    k.compile("adam", "mse", jit_compile=False)
    return list(k.fit({"pixel_values": b.pixels}, np.zeros((3, 2)), verbose=0).history)


@case
def of_a_config(b: Bench) -> Any:
    config = VisionTextDualEncoderConfig.from_pretrained(b.source)
    return tuple(Kind(config)(**b.inputs).logits_per_image.shape), type(Kind.from_config(config)).__name__


@case
def copies(b: Bench) -> Any:
    cloned = keras.models.clone_model(b.m)
    cloned.set_weights(b.m.get_weights())
    return [b.same(one) for one in (pickle.loads(pickle.dumps(b.m)), copy.deepcopy(b.m), cloned)]


@case
def served(b: Bench) -> Any:
    f = b.m.serving.get_concrete_function(b.m.input_signature)
    return sorted(b.m.input_signature), sorted(f.structured_outputs), type(b.m.serving).__name__


@case
def serving_output(b: Bench) -> Any:
    made = b.m.serving_output(b.m(**b.inputs, output_hidden_states=True))
    return made.vision_model_output.hidden_states, tuple(made.vision_model_output.pooler_output.shape)


@case
def attributes(b: Bench) -> Any:
    return b.m.framework, b.m.base_model_prefix, b.m.dtype, b.m.can_generate(), callable(b.m.prepare_tf_dataset)


@case
def dummies(b: Bench) -> Any:
    return tuple(b.m(b.m.dummy_inputs).logits_per_image.shape)


@case
def tflite(b: Bench) -> Any:
    return tf.lite.TFLiteConverter.from_keras_model(b.load()).convert()[4:8]


# Of these 4.57.6 has no such outcome: it fails.


@case
def a_name(b: Bench) -> Any:
    return b.load(name="my_model").name


@case
def a_dtype(b: Bench) -> Any:
    return b.load(torch_dtype="float16").dtype


@case
def embeddings_of_the_model(b: Bench) -> Any:
    return b.m.get_input_embeddings() is b.m.text_model.embeddings


@case
def subclass_with_a_call(b: Bench) -> Any:
    class Plain(Kind):
        def call(self, *args: Any, **kwargs: Any) -> Any:
            return super().call(*args, **kwargs)

    class Dict(Kind):
        def call(self, inputs: Any, training: bool = False) -> Any:
            return super().call(inputs, training=training)

    loss = Plain.from_pretrained(b.source)(**b.inputs, return_loss=True).loss
    return b.same(Plain.from_pretrained(b.source)), b.same(Dict.from_pretrained(b.source)), tuple(loss.shape)


@case
def labels(b: Bench) -> Any:
    return b.m(**b.inputs, labels=np.arange(3))


@case
def ids_as_floats(b: Bench) -> Any:
    return b.same(lambda **k: b.m(**{**k, "input_ids": b.ids.astype("float32")}))


@case
def channels_last(b: Bench) -> Any:
    return b.m(**{**b.inputs, "pixel_values": b.pixels.transpose(0, 2, 3, 1)})


EXPECTED: dict[str, Any] = {
    "from_pt": "TFVisionTextDualEncoderModel",
    "softmax": (3, 3),
    "dictionary_list_and_positions": [True] * 4,
    "keys": (
        [
            "logits_per_image",
            "logits_per_text",
            "text_embeds",
            "image_embeds",
            "text_model_output",
            "vision_model_output",
        ],
        6,
    ),
    "loss": ((1,), True, None),
    "predict": (3, 3),
    "in_a_function": (3, 3),
    "arguments_of_the_hub": (True, True),
    "subfolder": True,
    "loading_info": (True, {"mismatched_keys": [], "missing_keys": [], "unexpected_keys": []}),
    "a_variant": True,
    "a_variant_that_is_not_there": ConverterError,
    "a_field_of_the_config": [3.309999942779541],
    "lines_of_the_summary": (True, 1),
    "counts": (113617, 113617, 97, 42, 41377),
    "save_in_shards": ([f"tf_model-0000{n}-of-00003.h5" for n in (1, 2, 3)], True),
    "save_weights_and_load_them": [True] * 3,
    "load_weights_of_save_pretrained": True,
    "saved_model_of_my_signature": ["assets", "fingerprint.pb", "saved_model.pb", "variables"],
    "fit_and_keep_checkpoints": [True, True],
    "my_own_loop": ((1,), 0, False),
    "inner_weights": ((40, 40), (137, 40), (3, 9, 40)),
    "towers_alone": ((3, 48), (3, 9, 40), (3, 28)),
    "embeddings_of_a_tower": (137, 40),
    "more_words": ((200, 200, 200), (200, 40), True, True, True, 97),
    "subclass_with_a_layer": True,
    "functional_model": ([True, True], (3, 4), 3),
    "of_a_config": ((3, 3), "TFVisionTextDualEncoderModel"),
    "copies": [True] * 3,
    "served": (
        ["attention_mask", "input_ids", "pixel_values", "token_type_ids"],
        [
            "image_embeds",
            "logits_per_image",
            "logits_per_text",
            "text_embeds",
            "text_model_output",
            "vision_model_output",
        ],
        "Function",
    ),
    "serving_output": (None, (3, 48)),
    "attributes": ("tf", "vision_text_dual_encoder", "float32", False, True),
    "dummies": (3, 3),
    "tflite": b"TFL3",
}
# A manifest lies beside the weights, and both files are read back as they were written, which 4.57.6 does not do.
OURS: dict[str, Any] = {"save_and_load": (["config.json", "conversion.json", "tf_model.h5"], True)}
FAILS_THERE: dict[str, Any] = {
    "mismatched_sizes": (
        [
            ("visual_projection/kernel", (48, 28), (48, 12)),
            ("text_projection/kernel", (40, 28), (40, 12)),
        ],
        (3, 12),
    ),
    "saved_model": True,
    "fit_with_return_loss": (["loss"], "float", True, False),
    "fit_as_the_example_script": ["loss", "val_loss"],
    "freeze": (48, 6, 16, 0),
    "in_my_own_model": ["loss"],
    "a_name": "my_model",
    "a_dtype": "float16",
    "embeddings_of_the_model": True,
    "subclass_with_a_call": (True, True, (1,)),
    "labels": TypeError,
    "ids_as_floats": True,
    "channels_last": ConverterError,
}
