"""Model cards: the README.md of an artifact, with the hub's metadata block.

Format: https://hf.co/docs/hub/model-cards. Measured values are its `model-index`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from huggingface_hub import ModelCard, ModelCardData

from edge.export.draft_head import draft_head_line
from edge.export.shortlist import shortlist_line
from edge.runtime.artifact.manifest import Manifest
from edge.train.output.model_card import CARD_NAME as CARD_NAME
from edge.train.output.model_card import (
    FOLDER,
    TASK,
    Measurement,
    plain,
    results,
    results_section,
    table_rows,
)

_LIBRARIES = {
    "onnx": "onnx",
    "ctranslate2": "ctranslate2",
    "gguf": "gguf",
    "torchscript": "pytorch",
}
_RUNTIME_USE = """```python
from edge.runtime import load

with load("{place}"{trust}) as model:
    print(model.generate("your text").text)
```

It needs edge-t5 with the extras `{extras}`."""
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


def model_card(
    manifest: Manifest,
    repository: str | None = None,
    measurements: Sequence[Measurement] = (),
) -> ModelCard:
    """The card of an artifact; `save(path)` writes it.

    Args:
        manifest: the artifact's manifest.
        repository: hub id that the artifact is uploaded to, or None for a local folder.
        measurements: values for the results.
    """
    use = _RUNTIME_USE.format(
        place=repository or FOLDER,
        trust=", trust_code=True" if repository and manifest.format == "torchscript" else "",
        extras=f"hub,{manifest.format}" if repository else manifest.format,
    )
    library = _LIBRARIES.get(manifest.format, manifest.format)
    return _card(manifest, library, use, repository, measurements)


def hub_card(manifest: Manifest) -> ModelCard:
    """The card of a folder in the hub layout, which has no manifest."""
    text = manifest.prompt_template.replace("{input}", "your text").replace("`", "'")
    example = json.dumps(text, ensure_ascii=False)[1:-1]
    return _card(manifest, "transformers.js", _HUB_USE.format(example=example))


def _card(
    manifest: Manifest,
    library: str,
    use: str,
    repository: str | None = None,
    measurements: Sequence[Measurement] = (),
) -> ModelCard:
    source = manifest.source
    # On the hub, the name of a local folder would be a link to somebody's model.
    local_name = None if repository and not source.revision else source.model
    metadata = ModelCardData(
        library_name=library,
        pipeline_tag=TASK,
        base_model=source.base_model or local_name,
        tags=[
            manifest.architecture.model_type,
            manifest.format,
            manifest.quantization,
            "edge-t5",
        ],
        **results(repository or source.model, measurements),
    )
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{_body(manifest, use, measurements)}")


def _body(manifest: Manifest, use: str, measurements: Sequence[Measurement]) -> str:
    shape, parity = manifest.architecture, manifest.parity
    name = plain(manifest.source.model)
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
    if manifest.draft_head:
        rows["draft head"] = plain(draft_head_line(manifest.draft_head))
    rows["log-probability error per token"] = (
        f"mean {parity['mean_error']:.2g}, largest {parity['max_error']:.2g} nats"
    )
    return f"""# {name}, compiled to {manifest.format} ({manifest.quantization})

Made with edge-t5 {manifest.edge_version} on {manifest.created}.

| | |
|---|---|
{table_rows(rows)}
{results_section(measurements)}
## Use

{use}
"""
