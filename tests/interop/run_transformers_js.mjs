// Answers of transformers.js with a folder in the hub layout.
// Usage: node run_transformers_js.mjs calls.json > results.json, with NODE_PATH's packages:
// {"hub": folder, "subfolder": "", "texts": […], "options": {…}} → {"ids": […], "tokens": […],
// "texts": […]}. One text a call: of a batch, transformers.js goes on with rows that have ended.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.NODE_PATH + "/");
const library = pathToFileURL(require.resolve("@huggingface/transformers"));
const { AutoModelForSeq2SeqLM, AutoTokenizer, env, pipeline } = (await import(library)).default;
env.allowRemoteModels = false;

const call = JSON.parse(readFileSync(process.argv[2], "utf8"));
const where = { subfolder: call.subfolder };
const tokenizer = await AutoTokenizer.from_pretrained(call.hub);
const model = await AutoModelForSeq2SeqLM.from_pretrained(call.hub, where);
const generator = await pipeline("text2text-generation", call.hub, where);
const results = { ids: [], tokens: [], texts: [] };
for (const text of call.texts) {
  const inputs = tokenizer(text);
  const found = await model.generate({ ...inputs, ...call.options });
  results.ids.push(inputs.input_ids.tolist()[0].map(Number));
  results.tokens.push(found.tolist()[0].map(Number));
  results.texts.push((await generator(text, call.options))[0].generated_text);
}
console.log(JSON.stringify(results));
