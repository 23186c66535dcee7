"""Model card of a trained model, with the hub's metadata block and the measured values.

Format: https://hf.co/docs/hub/model-cards. Measured values are its `model-index`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from edge.runtime.hub import is_hub_id

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

CARD_NAME = "README.md"
TASK = "text2text-generation"
FOLDER = "path/to/this/folder"
_TOO_LARGE = 1e300  # or not finite, as the loss of a model with NaN weights
_USE = """Compile it for the CPU with edge-t5 (extra `export-onnx`):

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
        metric: Type of the metric under the hub's name, such as "rouge" or "latency".
        name: What is shown, with the unit.
        value: The value.
        data: Name of the data.
        data_type: Hub id of the data set, or "custom".
        split: The split of the data, or None.
    """

    metric: str
    name: str
    value: float
    data: str
    data_type: str = "custom"
    split: str | None = None


def trained_card(record: Mapping[str, Any], repository: str | None = None) -> ModelCard:
    """The card of a trained model, with the evaluation of its training.

    Args:
        record: The content of training.json, or {}.
        repository: Hub id that it is uploaded to, or None for a local folder.
    """
    from huggingface_hub import ModelCard, ModelCardData

    measurements = evaluation_of(record)
    known = isinstance(record.get("revision"), str)  # a hub model
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag=TASK,
        base_model=record.get("model") if known else None,
        tags=["t5", "edge-t5"],
        **results(repository or "model", measurements),
    )
    rows = {}
    if known:
        rows["trained from"] = f"{record['model']} @ {record['revision']}"
    if isinstance(template := record.get("prompt_template"), str):
        rows["prompt"] = f"`{plain(template)}`"
    table = f"\n| | |\n|---|---|\n{table_rows(rows)}\n" if rows else ""
    title = repository.rpartition("/")[2] if repository else "T5 model"
    body = (
        f"# {title}\n\nA T5 model for text to text.\n{table}{results_section(measurements)}\n"
        f"## Use\n\n{_USE.format(place=repository or FOLDER)}\n"
    )
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}")


def evaluation_of(record: Mapping[str, Any]) -> list[Measurement]:
    """The evaluation at the end of a training, from its record."""
    found, data = record.get("eval"), record.get("data")
    if not isinstance(found, Mapping) or not isinstance(data, Mapping):
        return []
    name = last_part(str(data.get("path", "rows")))
    return [
        Measurement(metric, shown, round(found[field], 4), name, split="dev")
        for field, (metric, shown) in SCORES.items()
        if isinstance(found.get(field), int | float) and abs(found[field]) < _TOO_LARGE
    ]


def last_part(path: str) -> str:
    """The last part of a path, which reveals no folders; an id of the hub as it is."""
    is_id = path.startswith("hub:") or (is_hub_id(path) and not Path(path).exists())
    return path if is_id else PurePath(path).name


def results(name: str, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """The arguments of ModelCardData that become `model-index`."""
    from huggingface_hub import EvalResult

    if not measurements:
        return {}
    found = [
        EvalResult(
            task_type=TASK,
            dataset_type=one.data_type,
            dataset_name=one.data,
            dataset_split=one.split,
            metric_type=one.metric,
            metric_name=one.name,
            metric_value=one.value,
        )
        for one in measurements
    ]
    return {"model_name": name.rpartition("/")[2], "eval_results": found}


def results_section(measurements: Sequence[Measurement]) -> str:
    """The values as a section of the card; empty without values."""
    if not measurements:
        return ""
    data = measurements[0].data + (f", {s}" if (s := measurements[0].split) else "")
    rows = {one.name: f"{one.value:g}" for one in measurements}
    return f"\n## Results\n\n| {plain(data)} | |\n|---|---|\n{table_rows(rows)}\n"


def table_rows(values: Mapping[str, str]) -> str:
    """Lines of a Markdown table with two columns."""
    return "\n".join(f"| {key} | {value} |" for key, value in values.items())


def plain(text: str) -> str:
    """Text in one line without backticks and bars, so that it can't become markup."""
    return " ".join(text.replace("`", "'").replace("|", "/").split())
