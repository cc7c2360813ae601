// Runs an export in transformers.js: node transformers_js.mjs REQUEST.json, with the folder of the model, the class that loads
// it, the dtype, and inputs by name as {dtype, dims, data}. Prints the outputs likewise.
import { readFileSync } from "node:fs";
import * as transformers from "@huggingface/transformers";

const request = JSON.parse(readFileSync(process.argv[2], "utf8"));
transformers.env.allowRemoteModels = false;
transformers.env.localModelPath = request.home;
const model = await transformers[request.class].from_pretrained(request.name, { dtype: request.dtype, device: "cpu" });
const inputs = {};
for (const [name, { dtype, dims, data }] of Object.entries(request.inputs)) {
  const values = dtype === "int64" ? BigInt64Array.from(data.map(BigInt)) : Float32Array.from(data);
  inputs[name] = new transformers.Tensor(dtype, values, dims);
}
const outputs = {};
for (const [name, tensor] of Object.entries(await model(inputs))) {
  if (tensor?.dims) outputs[name] = { dims: tensor.dims, data: Array.from(tensor.data) };
}
process.stdout.write(JSON.stringify(outputs));
