// Usage: node run_onnx.cjs model.onnx < calls.json > results.json
// calls.json: [{"rows": [[12, 7, 1], …], "maxNewTokens": 64, "minNewTokens": 0}, …]
// `generate` is shown in docs/other-languages.md; a test keeps the two alike.
const fs = require("node:fs");
const ort = require("onnxruntime-node");

async function generate(model, rows, maxNewTokens, minNewTokens = 0) {
  const width = Math.max(...rows.map((row) => row.length));
  const ids = new BigInt64Array(rows.length * width); // filled with 0, the pad token of T5
  const mask = new BigInt64Array(rows.length * width);
  rows.forEach((row, r) =>
    row.forEach((id, c) => {
      ids[r * width + c] = BigInt(id);
      mask[r * width + c] = 1n;
    }),
  );
  const int64 = (data, dims) => new ort.Tensor("int64", data, dims);
  const { tokens, lengths, log_probs, finished } = await model.run({
    input_ids: int64(ids, [rows.length, width]),
    attention_mask: int64(mask, [rows.length, width]),
    max_new_tokens: int64(BigInt64Array.of(BigInt(maxNewTokens)), []),
    min_new_tokens: int64(BigInt64Array.of(BigInt(minNewTokens)), []),
  });
  const steps = tokens.dims[1];
  return rows.map((_, r) => ({
    tokens: Array.from(tokens.data.subarray(r * steps, (r + 1) * steps), Number),
    length: Number(lengths.data[r]),
    logProb: log_probs.data[r],
    finished: Boolean(finished.data[r]),
  }));
}

async function main() {
  const options = { executionProviders: ["cpu"], intraOpNumThreads: 1 };
  const model = await ort.InferenceSession.create(process.argv[2], options);
  const results = [];
  for (const call of JSON.parse(fs.readFileSync(0, "utf8"))) {
    results.push(await generate(model, call.rows, call.maxNewTokens, call.minNewTokens));
  }
  await model.release();
  console.log(JSON.stringify(results));
}

main();
