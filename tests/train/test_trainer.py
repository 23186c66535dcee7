"""Whole runs of a few seconds: the model learns, the folder is complete, failures are safe."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from edge.runtime.errors import DataError, EdgeError, OutputExistsError, UsageError
from edge.train.config import TrainConfig
from edge.train.events import Event
from edge.train.metrics import fit_band_eval_loss, fit_band_rouge_l
from edge.train.synthetic import write_dataset
from edge.train.trainer import TrainResult, train

WriteRows = Callable[[str, Iterable[object]], Path]
ModelFactory = Callable[..., Path]


@dataclass(frozen=True)
class Run:
    config: TrainConfig
    result: TrainResult
    events: list[Event]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    write_dataset(folder, seed=4, sizes={"train": 960, "dev": 24})
    return folder


@pytest.fixture(scope="module")
def run(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = TrainConfig(
        data=questions,
        output=tmp_path_factory.mktemp("out") / "model",
        from_scratch="tiny",
        prefix="fix: ",
        epochs=2,
        max_target_length=40,
        max_source_length=64,
        dropout=0.0,
        threads=1,
    )
    events: list[Event] = []
    return Run(config, train(config, on_event=events.append), events)


def test_the_loss_falls(run: Run) -> None:
    losses = [e.loss for e in run.events if e.message == "training" and e.loss is not None]
    assert losses[-1] < 0.6 * losses[0]
    assert run.result.metrics["eval_loss"] < losses[0]
    fractions = [e.fraction for e in run.events if e.message == "training" and e.kind == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_all_hyperparameters_are_reported_before_training(run: Run) -> None:
    kinds = [event.kind for event in run.events]
    start = run.events[kinds.index("start")]
    assert kinds.index("start") < kinds.index("progress")
    assert set(run.config.hyperparameters()) <= set(start.details)
    assert start.details["learning_rate"] == 2e-3
    assert start.details["device"] in ("cpu", "cuda", "mps")
    assert start.details["precision"] in ("bf16", "fp32")


def test_transformers_loads_the_folder(run: Run) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = str(run.result.folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.generation_config.max_new_tokens == 40
    inputs = tokenizer("fix: Who uh was the mayor of Berlin?", return_tensors="pt")
    answer = tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True)
    assert answer.strip()
    files = {path.name for path in run.result.folder.iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json"} <= files
    assert {"tokenizer.json", "tokenizer_config.json", "training.json", "training.md"} <= files
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)
    assert [path.name for path in run.result.folder.parent.iterdir()] == ["model"]


def test_the_record_is_complete(run: Run, questions: Path) -> None:
    record = json.loads((run.result.folder / "training.json").read_text())
    assert record == json.loads(json.dumps(run.result.record))
    assert record["prompt_template"] == "fix: {input}"
    assert (record["max_source_length"], record["max_target_length"]) == (64, 40)
    assert record["model"] == "from scratch (tiny)"
    sizes = sum((questions / name).stat().st_size for name in ("train.jsonl", "dev.jsonl"))
    assert record["data"] == {
        "path": str(questions),
        "bytes": sizes,
        "train_rows": 960,
        "dev_rows": 24,
        "evaluated_rows": 24,
    }
    figures = record["run"]
    assert (figures["epochs"], figures["steps"]) == (2.0, 60)
    rate = figures["samples_per_second"]
    assert rate == pytest.approx(1920 / figures["train_runtime"], rel=0.01)
    assert set(record["eval"]) == {
        *("eval_loss", "rouge_l", "exact_match", "verbatim_match", "bleu")
    }
    assert record["fit_bands"] == {
        "eval_loss": fit_band_eval_loss(record["eval"]["eval_loss"]),
        "rouge_l": fit_band_rouge_l(record["eval"]["rouge_l"]),
    }
    assert set(run.config.hyperparameters()) <= set(record["hyperparameters"])
    assert {"torch", "transformers", "python"} <= set(record["versions"])
    assert (record["seed"], record["device"]) == (0, record["hyperparameters"]["device"])


def test_the_markdown_is_one_table_row(run: Run) -> None:
    lines = (run.result.folder / "training.md").read_text().splitlines()
    assert len(lines) == 3
    assert len({line.count("|") for line in lines}) == 1
    assert "from scratch (tiny)" in lines[2]
    assert f"{run.result.metrics['exact_match']:.3f}" in lines[2]


def test_eval_loss_is_the_mean_over_tokens(run: Run, questions: Path) -> None:
    """Against a row-by-row computation, without any padding."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = str(run.result.folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    total, count = 0.0, 0
    for line in (questions / "dev.jsonl").read_text().splitlines():
        row = json.loads(line)
        ids = tokenizer("fix: " + row["input"], return_tensors="pt").input_ids
        labels = tokenizer(row["target"], return_tensors="pt").input_ids
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * labels.shape[1]
        count += labels.shape[1]
    assert run.result.metrics["eval_loss"] == pytest.approx(total / count, abs=1e-4)


def test_a_model_folder_is_trained_on(run: Run, questions: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        data=questions,
        output=tmp_path / "more",
        model=str(run.result.folder),
        prefix="fix: ",
        epochs=0.5,
        max_eval_rows=10,
        gradient_accumulation=2,
        batch_size=8,
    )
    result = train(config)
    # 960 rows / 8 / 2 accumulated = 60 steps an epoch.
    assert result.record["run"]["steps"] == 30  # type: ignore[index]
    assert result.record["data"]["evaluated_rows"] == 10  # type: ignore[index]
    assert result.record["run"]["train_loss"] < 4  # type: ignore[index]
    assert (tmp_path / "more" / "model.safetensors").is_file()


def test_untied_head_stays_untied(random_model: ModelFactory, write_rows: WriteRows) -> None:
    """FLAN-T5's kind: a head of its own and outputs that are not scaled."""
    from transformers import AutoModelForSeq2SeqLM

    rows = [{"input": f"the river near {n}", "target": "a river"} for n in range(20)]
    data = write_rows("rows.jsonl", rows)
    output = data.parent / "out"
    source = random_model(tied=False, written_by=4)
    train(TrainConfig(data=data, output=output, model=str(source), dev_ratio=0.3, epochs=1))
    model = AutoModelForSeq2SeqLM.from_pretrained(str(output))
    assert model.config.scale_decoder_outputs is False
    assert not torch.equal(model.lm_head.weight, model.shared.weight)


def test_a_run_planned_by_time_ends_in_time(questions: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    config = TrainConfig(
        data=questions,
        output=tmp_path / "out",
        from_scratch="tiny",
        time_limit="3s",
        max_eval_rows=4,
        max_target_length=24,
    )
    result = train(config, on_event=events.append)
    seconds = result.record["run"]["train_runtime"]  # type: ignore[index]
    assert 3.0 <= seconds < 6.0
    last = [event for event in events if event.message == "training"][-1]
    assert last.fraction == 1.0
    assert last.learning_rate == pytest.approx(0.0, abs=1e-4)


def test_existing_output_is_refused_before_any_work(questions: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    events: list[Event] = []
    config = TrainConfig(data=questions, output=tmp_path / "out", from_scratch="tiny")
    with pytest.raises(OutputExistsError, match="--force"):
        train(config, on_event=events.append)
    assert not events
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"


def test_a_failure_leaves_the_old_output_and_nothing_half_written(
    write_rows: WriteRows, tmp_path: Path
) -> None:
    data = write_rows("rows.jsonl", [{"input": "a b c", "target": "a"}, "not json"])
    output = tmp_path / "out"
    output.mkdir()
    (output / "config.json").write_text("{}")  # an older model
    (output / "precious.txt").write_text("mine")
    config = TrainConfig(data=data, output=output, from_scratch="tiny", dev_ratio=0.5, force=True)
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        train(config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows.jsonl"]
    assert {path.name for path in output.iterdir()} == {"config.json", "precious.txt"}


def test_a_run_that_is_stopped_leaves_nothing(questions: Path, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if event.kind == "progress":
            raise KeyboardInterrupt

    config = TrainConfig(data=questions, output=tmp_path / "out", from_scratch="tiny")
    with pytest.raises(KeyboardInterrupt):
        train(config, on_event=stop)
    assert not list(tmp_path.iterdir())


def test_divergence_is_reported(questions: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        data=questions,
        output=tmp_path / "out",
        from_scratch="tiny",
        learning_rate=1.0,
        weight_decay=1e30,
        max_grad_norm=1e30,
        epochs=1,
    )
    with pytest.raises(EdgeError, match=r"diverged.*--learning-rate"):
        train(config)
    assert not list(tmp_path.iterdir())


def test_an_unavailable_device(questions: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = TrainConfig(
        data=questions, output=tmp_path / "out", from_scratch="tiny", device="cuda"
    )
    with pytest.raises(UsageError, match="--device cuda: not available; available: cpu"):
        train(config)


@pytest.mark.slow
def test_real_questions_are_learned_from(shared: Path, tmp_path: Path) -> None:
    """A few steps on Disfl-QA: already far from the loss of guessing among 2,000 pieces."""
    config = TrainConfig(
        data=shared / "data" / "disfl_qa",
        output=tmp_path / "out",
        from_scratch="tiny",
        epochs=0.15,
        max_eval_rows=16,
        max_target_length=48,
    )
    assert train(config).metrics["eval_loss"] < 0.6 * math.log(2000)
