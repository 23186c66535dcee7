"""Hyperparameters: all problems reported together, defaults filled in."""

from __future__ import annotations

import json
import math

import pytest

from edge.runtime.errors import UsageError
from edge.train.config import TrainConfig
from edge.train.model.from_scratch import quickstart_config


def test_every_wrong_value_is_named_at_once() -> None:
    config = TrainConfig(
        data="d",
        output="o",
        model="m",
        from_scratch="tiny",
        batch_size=0,
        learning_rate=-1.0,
        dropout=1.0,
        device="tpu",
        dev_ratio=1.5,
        target_column="input",
    )
    with pytest.raises(UsageError) as caught:
        config.validate()
    for word in (
        "--model",
        "--batch-size 0",
        "--learning-rate -1.0",
        "--dropout 1.0",
        "'tpu'",
        "--dev-ratio 1.5",
        "--target-column",
    ):
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["learning_rate", "epochs", "time_limit", "weight_decay"])
def test_not_a_number_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="nan"):
        TrainConfig("d", "o", model="m", **{name: float("nan")}).validate()  # type: ignore[arg-type]


def test_a_model_is_needed() -> None:
    with pytest.raises(UsageError, match=r"--from-scratch tiny\|mini"):
        TrainConfig("d", "o").validate()


def test_defaults_depend_on_the_model() -> None:
    scratch = TrainConfig("d", "o", from_scratch="tiny").resolved()
    tuned = TrainConfig("d", "o", model="google/flan-t5-small").resolved()
    assert scratch.learning_rate > tuned.learning_rate
    assert tuned.vocab_size is None
    assert TrainConfig("d", "o", model="m", learning_rate=1e-5).resolved().learning_rate == 1e-5


def test_hyperparameters_are_json() -> None:
    config = quickstart_config("d", "o", "2m").resolved()
    values = json.loads(json.dumps(config.hyperparameters(), allow_nan=False))
    assert values["time_limit"] == 120
    assert values["from_scratch"] == "tiny"


@pytest.mark.parametrize(
    ("rows", "epochs"), [(999, (5, 10)), (1000, (3, 7)), (5000, (3, 5)), (50_000, (1, 3))]
)
def test_epochs_and_dropout_follow_the_size_of_the_data(rows: int, epochs: tuple[int, int]) -> None:
    config, reasons = TrainConfig("d", "o", model="m").resolved().for_rows(rows)
    assert epochs[0] <= config.epochs <= epochs[1]
    assert f"{epochs[0]} to {epochs[1]}" in reasons["epochs"]
    assert "dropout" in reasons
    larger, _ = TrainConfig("d", "o", model="m").resolved().for_rows(rows + 60_000)
    assert larger.dropout <= config.dropout


def test_what_was_given_is_not_chosen_again() -> None:
    config = TrainConfig("d", "o", model="m", epochs=1.0, dropout=0.0).resolved()
    chosen, reasons = config.for_rows(10)
    assert (chosen.hyperparameters(), reasons) == (config.hyperparameters(), {})
    timed = TrainConfig("d", "o", model="m", time_limit=60.0).resolved()
    assert "epochs" not in timed.for_rows(10)[1]


def test_fp16_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"65,504.*bf16"):
        TrainConfig("d", "o", model="m", precision="fp16").validate()


@pytest.mark.parametrize(("given", "seconds"), [("90s", 90.0), ("1.5m", 90.0), (90, 90.0)])
def test_the_time_limit_is_a_duration(given: float | str, seconds: float) -> None:
    config = TrainConfig("d", "o", model="m", time_limit=given).resolved()
    assert config.time_limit == seconds
    assert config.epochs == math.inf
    with pytest.raises(UsageError, match=r"--time-limit 'soon': must be a duration, such as 90s"):
        TrainConfig("d", "o", model="m", time_limit="soon").validate()


def test_a_resolved_configuration_stays_as_it_is() -> None:
    config = TrainConfig("d", "o", from_scratch="tiny").resolved()
    assert config.resolved() is config
