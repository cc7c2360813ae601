"""How each format is loaded, in the languages of its runtimes: short programs for a card. Those in Python are run in a test."""

from __future__ import annotations

import math
from string import Template

from converter.exporting.onnx_weights import SUFFIXES
from converter.exporting.results import Export, ExportedFile
from converter.exporting.targets import TARGETS

_SAVED_MODEL = {
    "python": """
import numpy as np
import tensorflow as tf

model = tf.saved_model.load("saved_model")
images = np.zeros($image_shape, "$image_dtype")
print(model.signatures["encode_image"]($image=tf.constant(images))["image_embeds"].numpy().shape)
""",
    "cpp": """
#include <tensorflow/cc/saved_model/loader.h>

tensorflow::SavedModelBundleLite bundle;
TF_CHECK_OK(tensorflow::LoadSavedModel({}, {}, "saved_model", {"serve"}, &bundle));
const auto& call = bundle.GetSignatures().at("encode_image");
std::vector<tensorflow::Tensor> outputs;
TF_CHECK_OK(bundle.GetSession()->Run({{call.inputs().at("$image").name(), images}},
                                     {call.outputs().at("image_embeds").name()}, {}, &outputs));
""",
}
_LITERT = {
    "python": """
import numpy as np
from ai_edge_litert.interpreter import Interpreter

model = Interpreter("$file")
images = np.zeros($image_shape, "$image_dtype")
print(model.get_signature_runner("encode_image")($image=images)["image_embeds"].shape)
""",
    "kotlin": """
import org.tensorflow.lite.Interpreter

val model = Interpreter(java.io.File("$file"))
val embeddings = arrayOf(FloatArray($width))
model.runSignature(mapOf("$image" to images), mapOf("image_embeds" to embeddings), "encode_image")
""",
    "cpp": """
#include "tensorflow/lite/core/interpreter_builder.h"
#include "tensorflow/lite/core/kernels/register.h"
#include "tensorflow/lite/core/model_builder.h"

auto file = tflite::FlatBufferModel::BuildFromFile("$file");
tflite::ops::builtin::BuiltinOpResolver operators;
std::unique_ptr<tflite::Interpreter> model;
tflite::InterpreterBuilder(*file, operators)(&model);
auto* call = model->GetSignatureRunner("encode_image");
call->ResizeInputTensor("$image", {$sizes});
call->AllocateTensors();
std::copy(images.begin(), images.end(), call->input_tensor("$image")->data.$member);
call->Invoke();
const float* embeddings = call->output_tensor("image_embeds")->data.f;
""",
}
_ONNX = {
    "python": """
import numpy as np
import onnxruntime

model = onnxruntime.InferenceSession("$file", providers=["CPUExecutionProvider"])
images = np.zeros($image_shape, "$image_dtype")
print(model.run(["image_embeds"], {"$image": images})[0].shape)
""",
    "javascript": """
// onnxruntime-node; in a browser onnxruntime-web, with the file of weights named:
// { externalData: [{ path: "$weights", data: "onnx/$weights" }] }
import { InferenceSession, Tensor } from "onnxruntime-node";

const model = await InferenceSession.create("$file");
const images = new Tensor("$image_dtype", new $array($numbers), [$sizes]);
console.log((await model.run({ $image: images })).image_embeds.dims);
""",
    "cpp": """
#include <onnxruntime_cxx_api.h>

Ort::Env environment;
Ort::Session model(environment, "$file", Ort::SessionOptions{});
const char* inputs[] = {"$image"};
const char* outputs[] = {"image_embeds"};
auto made = model.Run(Ort::RunOptions{}, inputs, &images, 1, outputs, 1);
const float* embeddings = made[0].GetTensorData<float>();
""",
}
SNIPPETS: dict[str, dict[str, str]] = {"savedmodel": _SAVED_MODEL, "litert": _LITERT, "onnx": _ONNX}


def snippets(found: Export, one: ExportedFile) -> dict[str, str]:
    """Programs by language; empty for a format without one.

    Those in Python run unchanged in the export's folder. They encode one picture, or as many as a static shape has.
    """
    image = one.signatures["encode_image"]["inputs"][0]
    shape = tuple(1 if size is None else size for size in image["shape"])
    precision = found.options.precision
    words = {
        "image": image["name"],
        "image_shape": str(shape),
        "image_dtype": image["dtype"],
        "sizes": ", ".join(map(str, shape)),
        "member": "uint8" if image["dtype"] == "uint8" else "f",
        "file": TARGETS[one.format].places(precision)[0],
        "weights": f"weights{SUFFIXES[precision]}.safetensors",
        "array": "Uint8Array" if image["dtype"] == "uint8" else "Float32Array",
        "numbers": str(math.prod(shape)),
        "width": str(one.signatures["encode_image"]["outputs"][0]["axes"][-1]),
    }
    return {name: Template(text).substitute(words) for name, text in SNIPPETS.get(one.format, {}).items()}
