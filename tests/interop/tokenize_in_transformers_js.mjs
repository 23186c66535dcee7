// Ids and texts of transformers.js with the tokenizers of some folders.
// Usage: node tokenize_in_transformers_js.mjs calls.json > results.json, with NODE_PATH's packages:
// {"folders": […], "texts": […]} → for each folder {"ids": […], "texts": […], "starts": […]}, where
// "starts" has the text of each id and those before it, as a stream of the answer shows them.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.NODE_PATH + "/");
const library = pathToFileURL(require.resolve("@huggingface/transformers"));
const { AutoTokenizer, env } = (await import(library)).default;
env.allowRemoteModels = false;

const call = JSON.parse(readFileSync(process.argv[2], "utf8"));
const results = [];
for (const folder of call.folders) {
  const tokenizer = await AutoTokenizer.from_pretrained(folder);
  const found = { ids: [], texts: [], starts: [] };
  const decode = (ids) => (ids.length ? tokenizer.decode(ids, { skip_special_tokens: true }) : "");
  for (const text of call.texts) {
    const ids = tokenizer(text).input_ids.tolist()[0].map(Number);
    found.ids.push(ids);
    found.texts.push(decode(ids));
    found.starts.push(ids.map((_, end) => decode(ids.slice(0, end))));
  }
  results.push(found);
}
console.log(JSON.stringify(results));
