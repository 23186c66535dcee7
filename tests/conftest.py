"""Fixtures of the whole suite: one model trained for seconds, exported to all formats once."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer, serving_hub

from samples import FORMATS

ROOT = Path(__file__).resolve().parent.parent

# What all processes of a run share: models, artifacts, and the record of code that was exported
# (edge.runtime.artifact.trust). `make test` sets it, for its two runs.
if "EDGE_TESTS_FOLDER" not in os.environ:
    os.environ["EDGE_TESTS_FOLDER"] = tempfile.mkdtemp(prefix="edge-tests-")
    atexit.register(shutil.rmtree, os.environ["EDGE_TESTS_FOLDER"], ignore_errors=True)
FOLDER = Path(os.environ["EDGE_TESTS_FOLDER"])
os.environ["XDG_STATE_HOME"] = str(FOLDER)
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tiny models gain nothing by a second thread, and lose much when another process has the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What nohup or a shell's background job ignores would be ignored by the commands of tests too.
for _number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

# Files that take minutes come first: one that starts last would keep a single process busy.
_LONGEST = ("cli/test_quickstart.py", "test_readme.py", "cli/test_compile.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest files to the front."""

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(ROOT / "tests").as_posix()
        return _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and models that stands beside the project, where there is one."""
    folder = Path(os.environ.get("EDGE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder of shared data and models at {folder} (set EDGE_SHARED)")
    return folder


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Matrices this small take a hundred times longer where torch's threads wait for a core."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def build_once() -> Callable[..., Path]:
    """Make a folder that all processes of a run share: `build_once(name, build)`.

    `build` gets the folder's path and makes it; who comes second waits, and finds it made.
    """
    from filelock import FileLock

    def once(name: str, build: Callable[[Path], None]) -> Path:
        folder = FOLDER / "shared" / name
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.with_name(f"{name}.lock")):
            made = folder.with_name(f"{name}.made")
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                build(folder)
                made.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def dataset(build_once: Callable[..., Path]) -> Path:
    """A folder with train.jsonl, dev.jsonl and test.jsonl of synthetic questions."""
    from edge.train.synthetic import write_dataset

    sizes = {"train": 1500, "dev": 60, "test": 60}
    return build_once("questions", lambda folder: write_dataset(folder, seed=3, sizes=sizes))


@pytest.fixture(scope="session")
def trained(dataset: Path, build_once: Callable[..., Path]) -> Path:
    """A model folder as `edge train --from-scratch tiny` leaves it after seconds of training.

    Epochs, not time: a slow machine gets the same model, sure enough of itself that rounding seldom
    decides between two tokens.
    """
    from edge.train.config import TrainConfig
    from edge.train.trainer import train

    def build(output: Path) -> None:
        train(
            TrainConfig(
                data=dataset,
                output=output,
                from_scratch="tiny",
                epochs=8,
                max_source_length=64,
                tagging_weight=1.0,
            )
        )

    return build_once("tiny", build)


@pytest.fixture(scope="session")
def artifacts(trained: Path, build_once: Callable[..., Path]) -> Path:
    """A folder with artifacts of all formats, in float32 and 8 bit, named format-quantization."""
    from edge.export.api import publish_all
    from edge.export.publish import Publisher, plan_targets
    from edge.export.source import SourceModel

    def build(output: Path) -> None:
        output.mkdir()
        publish_all(
            Publisher(SourceModel.open(trained)), plan_targets("all", ("none", "auto")), output
        )

    return build_once("artifacts", build)


@pytest.fixture(scope="session", params=FORMATS)
def float_artifact(request: pytest.FixtureRequest, artifacts: Path) -> Path:
    """The float32 artifact of each format in turn."""
    return artifacts / f"{request.param}-{'f32' if request.param == 'gguf' else 'float32'}"


@dataclass(frozen=True)
class Finished:
    """How a command line ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def edge(capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run the command line in this process: `edge("info", folder)`."""
    from edge.cli.main import main

    def call(*arguments: object) -> Finished:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Finished(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def assert_refused(edge: Callable[..., Finished]) -> Callable[..., str]:
    """Run a command line that must fail with one clear line; returns that line."""

    def call(*arguments: object, status: int = 2) -> str:
        ended = edge(*arguments)
        assert ended.status == status, ended
        lines = [line for line in ended.err.splitlines() if line.strip()]
        assert len(lines) == 1, ended.err
        assert lines[0].startswith("edge: ")
        assert "Traceback" not in ended.err
        assert "unexpected" not in lines[0]
        return lines[0]

    return call


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Unigram tokenizer of a few hundred pieces, for models with random weights."""
    from edge.train.model.tokenizer import build_tokenizer, save_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [
        f"{a} {b} {c} of the old town near number {n}"
        for n, (a, b, c) in enumerate(
            (a, b, c)
            for a in ("what is", "who made", "where was", "list all")
            for b in ("the bridge", "a river", "some houses", "every school")
            for c in ("in Berlin", "by Anna", "from Rome", "with stones")
        )
    ]
    save_tokenizer(build_tokenizer(texts, vocab_size=250), folder)
    return folder


ModelFactory = Callable[..., Path]


@pytest.fixture(scope="session")
def random_model(small_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFactory:
    """Make a T5 folder with random weights: `random_model(tied=False, num_layers=3, …)`.

    `written_by` 4 or 5 gives the folder the form that this version of transformers writes.
    """

    def make(*, tied: bool = True, written_by: int = 5, seed: int = 0, **changes: Any) -> Path:
        import torch
        from transformers import T5Config, T5ForConditionalGeneration

        shape: dict[str, Any] = {
            "vocab_size": 260,  # more ids than the tokenizer has pieces, as FLAN-T5
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 96,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
            "decoder_start_token_id": 0,
        }
        torch.manual_seed(seed)
        config = T5Config(**{**shape, **changes}, tie_word_embeddings=tied)
        model = T5ForConditionalGeneration(config).eval()
        with torch.no_grad():
            # Larger weights than a fresh model's: answers then depend on the input, and the best
            # token leads by more than rounding. Much larger ones would amplify rounding itself.
            for name, weight in model.named_parameters():
                if weight.dim() == 2:
                    scale = 0.5 if "relative" in name else 1.2 * weight.shape[1] ** -0.5
                    weight.copy_(torch.randn_like(weight) * scale)
            head = torch.randn_like(model.shared.weight)
            if not tied:
                model.lm_head.weight = torch.nn.Parameter(head * 0.3)
            else:
                # Small embeddings under a strong last norm: a tied head would echo its input else.
                model.shared.weight.copy_(head * 0.4)
                model.decoder.final_layer_norm.weight.fill_(6.0)
        folder = tmp_path_factory.mktemp("random") / "model"
        model.save_pretrained(folder)
        _write_as(folder, written_by, tied)
        for file in small_tokenizer.iterdir():
            shutil.copy(file, folder)
        return folder

    return make


def _write_as(folder: Path, version: int, tied: bool) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if version == 4:
        config.pop("scale_decoder_outputs", None)
        config["tie_word_embeddings"] = tied
        config["transformers_version"] = "4.44.0"
    else:
        assert "scale_decoder_outputs" in config
    path.write_text(json.dumps(config))


_SLOW = """
import time
from edge.runtime.engines.onnx.engine import OnnxEngine
answer = OnnxEngine.generate
def slowed(self, *arguments, **options):
    time.sleep({seconds})
    return answer(self, *arguments, **options)
OnnxEngine.generate = slowed
"""


@pytest.fixture
def engines_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Run code at the start of every process that is started from now on."""

    def change(code: str) -> None:
        folder = tmp_path / "changed"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(code)
        before = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), before]))

    return change


@pytest.fixture
def slow_onnx(engines_with: Callable[[str], None]) -> Callable[[float], None]:
    """Delay every answer of an onnx artifact by a number of seconds."""
    return lambda seconds: engines_with(_SLOW.format(seconds=seconds))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub without repositories on the loopback."""
    with serving_hub() as server:
        yield server


HubRun = Callable[..., Finished]


@pytest.fixture
def hub_run(hub: HubServer, tmp_path: Path) -> HubRun:
    """Run `edge` in a new process that uses `hub`, with an empty cache at first.

    `hub_run("info", "me/tiny")`, or `hub_run(code="…")` for Python. Keywords are environment
    variables. The working folder is `tmp_path`.
    """

    def run(*arguments: object, code: str | None = None, **variables: str) -> Finished:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "EDGE_"))}
        program = ["-m", "edge.cli"] if code is None else ["-c", code]
        ended = subprocess.run(
            [sys.executable, *program, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**kept, **hub.environment(tmp_path / "hf"), **variables},
            timeout=600,
        )
        return Finished(ended.returncode, ended.stdout, ended.stderr)

    return run
