"""The README.md of an artifact: a model card with the hub's metadata block."""

from __future__ import annotations

import json

from edge.export.shortlist import shortlist_line
from edge.runtime.artifact.manifest import Manifest

_LIBRARIES = {
    "onnx": "onnx",
    "ctranslate2": "ctranslate2",
    "gguf": "gguf",
    "torchscript": "pytorch",
}


def _shortlist_row(manifest: Manifest) -> str:
    return f"| shortlist | {shortlist_line(facts)} |\n" if (facts := manifest.shortlist) else ""


_RUNTIME_USE = """```python
from edge.runtime import load

with load("path/to/this/folder") as model:
    print(model.generate("your text").text)
```

Install with `pip install 'edge-t5[{format}]'`."""
_HUB_USE = """With Optimum (`pip install optimum-onnx onnxruntime`):

```python
from optimum.onnxruntime import ORTModelForSeq2SeqLM
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = ORTModelForSeq2SeqLM.from_pretrained("path/to/this/folder")
found = model.generate(**tokenizer("{example}", return_tensors="pt"))
print(tokenizer.decode(found[0], skip_special_tokens=True))
```

With transformers.js (`npm install @huggingface/transformers`), which looks in `onnx/` unless it is
told otherwise:

```js
import {{ pipeline }} from "@huggingface/transformers";

const rewrite = await pipeline("text2text-generation", "path/to/this/folder", {{ subfolder: "" }});
console.log((await rewrite("{example}"))[0].generated_text);
```"""


def model_card(manifest: Manifest) -> str:
    """The README.md of an artifact."""
    library = _LIBRARIES.get(manifest.format, manifest.format)
    return _card(manifest, library, _RUNTIME_USE.format(format=manifest.format))


def hub_card(manifest: Manifest) -> str:
    """The README.md of a folder in the hub's layout, which has no manifest of its own."""
    text = manifest.prompt_template.replace("{input}", "your text").replace("`", "'")
    example = json.dumps(text, ensure_ascii=False)[1:-1]
    return _card(manifest, "transformers.js", _HUB_USE.format(example=example))


def _card(manifest: Manifest, library: str, use: str) -> str:
    """The card: front matter that the hub reads (https://hf.co/docs/hub/model-cards), and `use`."""
    shape = manifest.architecture
    parity = manifest.parity
    # JSON strings are valid YAML scalars, and keep a stranger's model name from becoming markup.
    base = json.dumps(manifest.source.model, ensure_ascii=False)
    name = manifest.source.model.replace("`", "'").replace("\n", " ")
    return f"""---
library_name: {library}
pipeline_tag: text2text-generation
base_model: {base}
tags:
- {shape.model_type}
- {manifest.format}
- {manifest.quantization}
- edge-t5
---

# {name}, compiled to {manifest.format} ({manifest.quantization})

Made with edge-t5 {manifest.edge_version} on {manifest.created}.

| | |
|---|---|
| source | {name} |
| source weights (sha256) | `{manifest.source.weights_sha256}` |
| shape | {shape.num_layers} encoder and {shape.num_decoder_layers} decoder layers, width \
{shape.d_model}, {shape.num_heads} heads × {shape.d_kv}, vocabulary {shape.vocab_size} |
| size | {manifest.size / 1e6:.1f} MB |
| longest input | {manifest.limits.max_input_tokens} tokens |
| greedy answers identical to the source's | {parity["greedy_identical"]} of {parity["inputs"]} |
{_shortlist_row(manifest)}| log-probability error per token | mean {parity["mean_error"]:.2g}, \
largest {parity["max_error"]:.2g} nats |

## Use

{use}
"""
