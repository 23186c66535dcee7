"""The README.md of an artifact: a model card with the hub's metadata block."""

from __future__ import annotations

import json

from huggingface_hub import ModelCard, ModelCardData

from edge.export.shortlist import shortlist_line
from edge.runtime.artifact.manifest import Manifest

CARD_NAME = "README.md"
_LIBRARIES = {
    "onnx": "onnx",
    "ctranslate2": "ctranslate2",
    "gguf": "gguf",
    "torchscript": "pytorch",
}
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

With transformers.js (`npm install @huggingface/transformers`), which looks in `onnx/` unless
`subfolder` says otherwise:

```js
import {{ pipeline }} from "@huggingface/transformers";

const rewrite = await pipeline("text2text-generation", "path/to/this/folder", {{ subfolder: "" }});
console.log((await rewrite("{example}"))[0].generated_text);
```"""


def model_card(manifest: Manifest) -> ModelCard:
    """The card of an artifact; `save(path)` writes it.

    Format: https://hf.co/docs/hub/model-cards.
    """
    library = _LIBRARIES.get(manifest.format, manifest.format)
    return _card(manifest, library, _RUNTIME_USE.format(format=manifest.format))


def hub_card(manifest: Manifest) -> ModelCard:
    """The card of a folder in the hub layout, which has no manifest."""
    text = manifest.prompt_template.replace("{input}", "your text").replace("`", "'")
    example = json.dumps(text, ensure_ascii=False)[1:-1]
    return _card(manifest, "transformers.js", _HUB_USE.format(example=example))


def _card(manifest: Manifest, library: str, use: str) -> ModelCard:
    metadata = ModelCardData(
        library_name=library,
        pipeline_tag="text2text-generation",
        base_model=manifest.source.model,
        tags=[
            manifest.architecture.model_type,
            manifest.format,
            manifest.quantization,
            "edge-t5",
        ],
    )
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{_body(manifest, use)}")


def _body(manifest: Manifest, use: str) -> str:
    shape, parity = manifest.architecture, manifest.parity
    # One line without backticks, so that the name of an untrusted model can't become markup.
    name = " ".join(manifest.source.model.replace("`", "'").split())
    rows = {
        "source": name,
        "source weights (sha256)": f"`{manifest.source.weights_sha256}`",
        "shape": f"{shape.num_layers} encoder and {shape.num_decoder_layers} decoder layers,"
        f" width {shape.d_model}, {shape.num_heads} heads × {shape.d_kv},"
        f" vocabulary {shape.vocab_size}",
        "size": f"{manifest.size / 1e6:.1f} MB",
        "longest input": f"{manifest.limits.max_input_tokens} tokens",
        "greedy answers identical to the source's": f"{parity['greedy_identical']}"
        f" of {parity['inputs']}",
    }
    if manifest.shortlist:
        rows["shortlist"] = shortlist_line(manifest.shortlist)
    rows["log-probability error per token"] = (
        f"mean {parity['mean_error']:.2g}, largest {parity['max_error']:.2g} nats"
    )
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""# {name}, compiled to {manifest.format} ({manifest.quantization})

Made with edge-t5 {manifest.edge_version} on {manifest.created}.

| | |
|---|---|
{table}

## Use

{use}
"""
