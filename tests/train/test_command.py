"""`edge train` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

WriteRows = Callable[[str, Iterable[object]], Path]
ROWS = [{"input": f"what uh is river {n}?", "target": f"what is river {n}?"} for n in range(60)]


def test_it_prints_hyperparameters_then_figures_and_the_next_command(
    edge: Callable[..., Any], write_rows: WriteRows, tmp_path: Path
) -> None:
    data, output = write_rows("rows.jsonl", ROWS), tmp_path / "out"
    ended = edge(
        "train", data, "--from-scratch", "tiny", "--output", output, "--epochs", 1,
        "--dev-ratio", 0.1, "--vocab-size", 120, "--max-target-length", 32, "--threads", 1,
    )  # fmt: skip
    assert ended.status == 0, ended
    assert ended.err.index("Hyperparameters") < ended.err.index("training")
    for name in ("learning_rate", "batch_size", "warmup_ratio", "adam_beta2", "seed", "precision"):
        assert name in ended.err
    for name in ("eval_loss", "ROUGE-L", "exact match", "BLEU"):
        assert name in ended.out
    assert f"edge export {output} --format all --output" in ended.out
    assert json.loads((output / "training.json").read_text())["data"]["train_rows"] < 60


def test_tasks_have_figures_of_their_own(
    edge: Callable[..., Any], write_rows: WriteRows, tmp_path: Path
) -> None:
    # Nobody can learn the second one.
    tasks = {"clean": lambda n: f"what is river {n}?", "count": lambda n: f"{n * 37 % 101}"}
    rows = [
        {"task": task, "input": f"what uh is river {n}?", "target": make(n)}
        for n in range(40)
        for task, make in tasks.items()
    ]
    write_rows("data/train.jsonl", rows[:60])
    data, output = write_rows("data/dev.jsonl", rows[60:75]).parent, tmp_path / "out"
    ended = edge(
        "train", data, "--from-scratch", "tiny", "--output", output, "--epochs", 3,
        "--prefix", "[{task}] {input}", "--vocab-size", 120, "--max-target-length", 32,
        "--threads", 1,
    )  # fmt: skip
    assert ended.status == 0, ended
    record = json.loads((output / "training.json").read_text())
    found, whole = record["eval_by_task"], record["eval"]
    assert {task: figures["rows"] for task, figures in found.items()} == {"clean": 8, "count": 7}
    for metric in ("exact_match", "rouge_l"):
        mean = sum(figures["rows"] * figures[metric] for figures in found.values()) / 15
        assert abs(mean - whole[metric]) < 1e-5
    assert found["clean"]["rouge_l"] > found["count"]["rouge_l"]
    low, high = sorted(figures["eval_loss"] for figures in found.values())
    assert low <= whole["eval_loss"] <= high
    table = ended.out.split("Dev split by task")[1]
    assert f"{found['clean']['eval_loss']:.3f}" in table
    assert table.index("clean") < table.index("count")


def test_mistakes_are_one_line(
    assert_refused: Callable[..., str], write_rows: WriteRows, tmp_path: Path
) -> None:
    data, output = write_rows("rows.jsonl", ROWS), tmp_path / "out"
    scratch = ("--from-scratch", "tiny", "--output", output)
    assert "--dev-ratio 0.1" in assert_refused("train", data, *scratch)
    assert "--model ID_OR_PATH" in assert_refused("train", data, "--output", output)
    line = assert_refused("train", data, *scratch, "--batch-size", 0, "--learning-rate", -1)
    assert "--batch-size 0" in line
    assert "--learning-rate -1" in line
    line = assert_refused("train", data, *scratch, "--dev-ratio", 0.5, "--input-column", "text")
    assert "'input', 'target'" in line
    output.mkdir()
    (output / "precious.txt").write_text("mine")
    assert "--force" in assert_refused("train", data, *scratch, "--dev-ratio", 0.5)
    assert (output / "precious.txt").read_text() == "mine"


_FULL = """
import resource, sys
from edge.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
main(["train", *sys.argv[1:]])
"""


def test_a_full_disk_is_one_line_and_keeps_the_old_model(
    write_rows: WriteRows, tmp_path: Path
) -> None:
    data, output = write_rows("rows.jsonl", ROWS), tmp_path / "out"
    output.mkdir()
    (output / "config.json").write_text("the old model")
    options = ("--dev-ratio", "0.1", "--epochs", "1", "--vocab-size", "120", "--force")
    ended = subprocess.run(
        [
            *(sys.executable, "-c", _FULL, str(data), "--from-scratch", "tiny"),
            *("--output", str(output), *options),
        ],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1, ended.stderr
    complaint = ended.stderr.strip().splitlines()[-1]
    assert complaint.startswith(f"edge: {output}: "), ended.stderr
    assert "nothing was written there" in complaint
    assert "Traceback" not in ended.stderr
    assert [path.name for path in output.iterdir()] == ["config.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows.jsonl"]
