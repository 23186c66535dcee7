"""Options without effect are refused: every rule of the table, with and without its condition."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_surface import COMMANDS

from edge.cli.option_effects import RULES, Rule, refuse_without_effect
from edge.runtime.errors import UsageError

Edge = Callable[..., Any]
Refused = Callable[..., str]

PAIRS = [
    pytest.param(command, rule, option, id=f"{command}-{option}")
    for rule in RULES
    for command in rule.commands
    for option in rule.options
]
# What gives the options of a rule their effect, by the rule's first option.
REMEDIES: dict[str, dict[str, Any]] = {
    "temperature": {"do_sample": True},
    "length_penalty": {"num_beams": 4},
    "prompt_lookup_num_tokens": {"num_beams": None},
    "fallback": {"on_long": "fallback"},
    "input_column": {"input_file": "rows.jsonl", "data": "rows", "calibrate": "rows"},
    "trust_code": {"artifact": "folder"},
    "log_content": {"quiet": False},
    "shortlist": {"formats": ("onnx", "gguf")},
    "no_drafts": {"formats": ("ctranslate2", "gguf")},
    "condition": {"quantizations": ("int8", "none")},
    "calibrate": {"tune": True},
    "fields": {"fields": ()},
    "max_input_tokens": {"max_input_tokens": 1},
    "shortlist_frequent": {"shortlist": "rows"},
    "prefix": {"model": "model"},
    "lora_rank": {"method": "lora"},
    "quant_bits": {"method": "qlora"},
    "distill_ratio": {"decoder_layers": 2},
    "tokenizer": {"model": "model"},
    "batch_size": {"tokens_per_step": None},
    "ema_decay": {"ema_ratio": 0.2},
    "adam_beta1": {"optimizer": "adamw"},
    "best_metric": {"eval_steps": 50},
    "save_limit": {"save_steps": 50},
}
# Values under which every rule's options have no effect.
IDLE: dict[str, Any] = {
    "do_sample": None,
    "num_beams": 2,
    "profile": None,
    "on_long": "error",
    "fields": ("task=linux",),
    "max_input_tokens": 1 << 19,
    "input_file": None,
    "data": None,
    "quiet": True,
    "formats": ("ctranslate2",),
    "quantizations": ("none",),
    "shortlist": None,
    "calibrate": None,
    "condition": False,
    "tune": False,
    "model": None,
    "method": "full",
    "decoder_layers": None,
    "tokens_per_step": 4096,
    "ema_ratio": 0.0,
    "optimizer": "adafactor",
    "eval_steps": 0,
    "save_steps": None,
    "save_minutes": 0,
}


@pytest.fixture(scope="module")
def artifact(artifacts: Path) -> Path:
    return artifacts / "onnx-int8"


def values_for(rule: Rule, artifact: Path) -> dict[str, Any]:
    values = {**IDLE, "artifact": artifact}
    if rule.options == ("length_penalty",):
        values["num_beams"] = None
    if rule.options == ("trust_code",):
        values["artifact"] = None
    return values


@pytest.mark.parametrize(("command", "rule", "option"), PAIRS)
def test_every_option_is_refused_without_and_accepted_with_its_condition(
    command: str, rule: Rule, option: str, artifact: Path
) -> None:
    params = COMMANDS[tuple(command.split())].params
    [param] = [one for one in params if one.name == option]
    values = values_for(rule, artifact)
    with pytest.raises(UsageError) as caught:
        refuse_without_effect(command, {option}, values, params)
    switched_off = param.secondary_opts if values.get(option) is False else []
    spelled = max(switched_off or param.opts, key=len)
    assert f"{spelled} has no effect {rule.idle}" in str(caught.value)
    refuse_without_effect(command, set(), values, params)
    refuse_without_effect(command, {option}, values | REMEDIES[rule.options[0]], params)


def test_the_table_names_options_that_exist_once() -> None:
    for rule in RULES:
        for command in rule.commands:
            names = {param.name for param in COMMANDS[tuple(command.split())].params}
            assert set(rule.options) <= names, (command, rule.options)
    pairs = [(one.values[0], one.values[2]) for one in PAIRS]
    assert len(pairs) == len(set(pairs))


def lines(artifact: Path) -> Iterator[tuple[str, ...]]:
    """Whole command lines of each command, whose last option has no effect."""
    yield ("run", str(artifact), "x", "--temperature", "0.5")
    yield ("run", str(artifact), "x", "--input-column", "text")
    yield ("run", str(artifact), "x", "--field", "a=b")
    yield ("run", str(artifact), "--input", __file__, "--input-column", "text")
    yield ("run", str(artifact), "x", "--max-input-tokens", "999999")
    yield ("serve", f"small={artifact}", "--max-input-tokens", "999999")
    beams = ("--num-beams", "1", "--length-penalty", "2")
    yield ("run", str(artifact), "x", "--profile", "conservative", *beams)
    yield ("chat", "--url", "http://127.0.0.1:1", "--trust-code")
    yield ("serve", str(artifact), "--quiet", "--log-content")
    yield ("serve", str(artifact), "--fallback", "echo")
    yield ("tune", str(artifact), "--input-column", "text")
    yield ("export", "none", "-f", "onnx", "-o", "x", "-q", "none", "--no-condition")
    yield ("compile", "none", "--data", "x", "-o", "x", "-f", "ctranslate2", "--no-drafts")
    yield ("data", "augment", "x", "-o", "y", "--noise", "--top-p", "0.5")
    for command in ("train", "check"):
        yield (command, "x", "--from-scratch", "tiny", "-o", "y", "--lora-rank", "4")
        yield (command, "x", "--from-scratch", "tiny", "-o", "y", "--best-metric", "bleu")


def test_the_commands_check_before_any_work(
    assert_refused: Refused, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = set()
    for line in lines(artifact):
        option = next(word for word in reversed(line) if word.startswith("--"))
        assert f"{option} has no effect " in assert_refused(*line)
        commands.add(" ".join(line[:2]) if line[0] == "data" else line[0])
    assert commands == {command for rule in RULES for command in rule.commands}
    assert not list(tmp_path.iterdir())


def test_rows_for_weights_as_they_are_need_a_use(assert_refused: Refused, tmp_path: Path) -> None:
    line = ("export", "none", "-f", "gguf", "-o", tmp_path / "x", "--calibrate", "rows.jsonl")
    plain = ("--no-condition", "-q", "q8_0")
    assert "--calibrate has no effect" in assert_refused(*line, *plain)
    assert "no effect" not in assert_refused(*line, *plain, "--tune")
    assert "no effect" not in assert_refused(*line, "--no-condition")  # auto compares on them


def test_presets_may_set_what_another_option_switches_off(
    assert_refused: Refused, tmp_path: Path
) -> None:
    """Only what is typed is refused: a file serves several methods."""
    file = tmp_path / "some.yaml"
    file.write_text("lora_rank: 4\nbatch_size: 8\n")
    line = assert_refused(
        *("train", tmp_path / "none.jsonl", "--from-scratch", "tiny", "-o", tmp_path / "out"),
        *("--config", file, "--tokens-per-step", 512),
    )
    assert "no effect" not in line
    line = assert_refused("train", "x", "--from-scratch", "tiny", "-o", "y", "--learning-rate", 5)
    assert "--learning-rate 5.0: must be greater than 0 and at most 1" in line


def test_an_artifact_that_samples_takes_a_temperature(
    edge: Edge, artifact: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sampling"
    shutil.copytree(artifact, folder)
    manifest = json.loads((folder / "edge.json").read_text())
    manifest["generation"]["do_sample"] = True
    (folder / "edge.json").write_text(json.dumps(manifest))
    ended = edge("run", folder, "who uh who made it?", "--temperature", 0.5, "--seed", 1)
    assert ended.status == 0, ended.err
