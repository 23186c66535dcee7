"""Model cards: the README.md of an artifact and of a trained model, with the hub's metadata block.

Format: https://hf.co/docs/hub/model-cards. Measured values are its `model-index`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from edge.export.shortlist import shortlist_line
from edge.runtime.artifact.manifest import Manifest

CARD_NAME = "README.md"
_TASK = "text2text-generation"
_FOLDER = "path/to/this/folder"
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

Install with `pip install 'edge-t5[{extras}]'`."""
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
_MODEL_USE = """Compile it for the CPU with `pip install 'edge-t5[export]'`:

```sh
edge export {place} --format onnx --output my-artifact
```"""


# Field of an evaluation or a benchmark report → the hub's metric, and the name that is shown.
SCORES = {
    "exact_match": ("exact_match", "Exact match"),
    "rouge_l": ("rouge", "ROUGE-L"),
    "bleu": ("bleu", "BLEU"),
    "chrf": ("chrf", "chrF"),
    "eval_loss": ("loss", "Loss (nats per token)"),
}


@dataclass(frozen=True)
class Measurement:
    """A measured value for the results of a card.

    Attributes:
        metric: type of the metric under the hub's name, such as "rouge" or "latency".
        name: what is shown, with the unit.
        value: the value.
        data: name of the data.
        data_type: hub id of the data set, or "custom".
        split: the split of the data, or None.
    """

    metric: str
    name: str
    value: float
    data: str
    data_type: str = "custom"
    split: str | None = None


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
        place=repository or _FOLDER,
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


def trained_card(
    record: Mapping[str, Any], repository: str, measurements: Sequence[Measurement] = ()
) -> ModelCard:
    """The card of a model folder that is uploaded to the hub.

    Args:
        record: the content of training.json, or {}.
        repository: hub id that it is uploaded to.
        measurements: values for the results.
    """
    known = isinstance(record.get("revision"), str)  # a hub model
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag=_TASK,
        base_model=record.get("model") if known else None,
        tags=["t5", "edge-t5"],
        **_results(repository, measurements),
    )
    rows = {}
    if known:
        rows["trained from"] = f"{record['model']} @ {record['revision']}"
    if isinstance(template := record.get("prompt_template"), str):
        rows["prompt"] = f"`{_plain(template)}`"
    table = f"\n| | |\n|---|---|\n{_rows(rows)}\n" if rows else ""
    body = (
        f"# {repository.rpartition('/')[2]}\n\nA T5 model for text to text.\n{table}"
        f"{_results_section(measurements)}\n## Use\n\n{_MODEL_USE.format(place=repository)}\n"
    )
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}")


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
        pipeline_tag=_TASK,
        base_model=source.base_model or local_name,
        tags=[
            manifest.architecture.model_type,
            manifest.format,
            manifest.quantization,
            "edge-t5",
        ],
        **_results(repository or source.model, measurements),
    )
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{_body(manifest, use, measurements)}")


def _results(name: str, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """The arguments of ModelCardData that become `model-index`."""
    if not measurements:
        return {}
    results = [
        EvalResult(
            task_type=_TASK,
            dataset_type=one.data_type,
            dataset_name=one.data,
            dataset_split=one.split,
            metric_type=one.metric,
            metric_name=one.name,
            metric_value=one.value,
        )
        for one in measurements
    ]
    return {"model_name": name.rpartition("/")[2], "eval_results": results}


def _results_section(measurements: Sequence[Measurement]) -> str:
    if not measurements:
        return ""
    data = measurements[0].data + (f", {s}" if (s := measurements[0].split) else "")
    rows = {one.name: f"{one.value:g}" for one in measurements}
    return f"\n## Results\n\n| {_plain(data)} | |\n|---|---|\n{_rows(rows)}\n"


def _rows(values: Mapping[str, str]) -> str:
    return "\n".join(f"| {key} | {value} |" for key, value in values.items())


def _plain(text: str) -> str:
    """Text in one line without backticks and bars, so that it can't become markup."""
    return " ".join(text.replace("`", "'").replace("|", "/").split())


def _body(manifest: Manifest, use: str, measurements: Sequence[Measurement]) -> str:
    shape, parity = manifest.architecture, manifest.parity
    name = _plain(manifest.source.model)
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
    return f"""# {name}, compiled to {manifest.format} ({manifest.quantization})

Made with edge-t5 {manifest.edge_version} on {manifest.created}.

| | |
|---|---|
{_rows(rows)}
{_results_section(measurements)}
## Use

{use}
"""
