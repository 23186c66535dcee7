"""Checks and figures of training on a CUDA GPU, in one JSON file. It takes 6 minutes at most.

    python tests/gpu/gpu_suite.py --json gpu.json --data DIR --model DIR --tokenizer DIR

It uses the installed edge, or else the one of this checkout, so that a machine with torch and
transformers needs no installation. `--device cpu --tiny` tests the suite itself.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import importlib.util
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SUBPACKAGES = ("runtime", "train", "export", "bench", "cli")
BUDGET = 345  # seconds for all parts
# Imported by training when it needs them: here once, rather than in each process.
PRELOADED = (
    "accelerate.utils",
    "datasets",
    "edge.train.loop",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "peft",
    "rouge_score.rouge_scorer",
    "sacrebleu",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.t5.modeling_t5",
)


def use_checkout(folder: Path) -> None:
    """Make the checkout importable as `edge`: a namespace package of links to its folders."""
    namespace = folder / "edge"
    namespace.mkdir(parents=True)
    for name in SUBPACKAGES:
        (namespace / name).symlink_to(ROOT / name, target_is_directory=True)
    sys.path.insert(0, str(folder))
    # For processes that are started, such as those of "spawn".
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    )


class _Hidden:
    """A finder of modules that doesn't find the package `name`."""

    def __init__(self, finder: Any, name: str) -> None:
        self._finder, self._name = finder, name

    def find_spec(self, name: str, *arguments: Any) -> Any:
        """As the finder's."""
        if name.partition(".")[0] == self._name:
            return None
        return self._finder.find_spec(name, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def hide(name: str) -> None:
    """Make the package `name` look as if it were not installed, in this process and its forks."""
    sys.meta_path[:] = [_Hidden(finder, name) for finder in sys.meta_path]


def main(arguments: list[str] | None = None) -> int:
    """Run the suite; 0 if no part failed, 1 if one did, 2 for a wrong argument."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--data", type=Path, help="rows; by default made-up questions")
    parser.add_argument("--model", type=Path, help="a trained model, for the loss check")
    parser.add_argument("--tokenizer", type=Path, help="T5's tokenizer, for the random weights")
    parser.add_argument("--parts", help="names of parts, separated by commas; by default all")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all parts")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to test the suite")
    options = parser.parse_args(arguments)
    for folder in filter(None, (options.data, options.model, options.tokenizer)):
        if not folder.is_dir():
            parser.error(f"{folder}: no such folder")
    # An end by `timeout` still kills the part that runs, and removes the folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Without it, asking for the GPU would initialize CUDA here, and forked processes can't use it.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.simplefilter("ignore", FutureWarning)
    with tempfile.TemporaryDirectory(prefix="edge-gpu-") as folder:
        if importlib.util.find_spec("edge") is None:
            use_checkout(Path(folder) / "checkout")
        return _run(parser, options, Path(folder))


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace, work: Path) -> int:
    """Import everything once, then run the parts in forked processes."""
    start = time.monotonic()
    # peft imports it, and it initializes CUDA. The parts that need it are spawned.
    hide("bitsandbytes")
    import gpu_checks
    import gpu_training
    from edge.train.synthetic import write_dataset
    from gpu_context import FULL, TINY, Context
    from gpu_runner import Part, Report, call_in_process, run_parts

    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # or each collection in each process would visit all of it

    # What matters most comes first: the last parts are those that a slow machine leaves out.
    parts = [
        Part("prepare", gpu_training.prepare, 60),
        Part("loss", gpu_checks.loss, 40),
        Part("bf16_full", gpu_training.bf16_full, 60),
        Part("gradient_checkpointing", gpu_training.gradient_checkpointing, 60),
        Part("lora", gpu_training.lora, 60),
        Part("throughput", gpu_checks.throughput, 60),
        Part("resume", gpu_training.resume, 90),
        Part("out_of_memory", gpu_training.out_of_memory, 60),
        Part("accuracy", gpu_training.accuracy, 110),
        Part("export", gpu_checks.export, 60),
        Part("qlora", gpu_training.qlora, 90, "spawn"),
        Part("colab_t4", gpu_training.colab_t4, 60),
        Part("fp32_full", gpu_training.fp32_full, 60),
        Part("adamw_8bit", gpu_training.adamw_8bit, 90, "spawn"),
    ]
    if options.parts:
        wanted = options.parts.split(",")
        unknown = sorted(set(wanted) - {part.name for part in parts})
        if unknown:
            parser.error(f"--parts: no part {unknown[0]}; there are {[p.name for p in parts]}")
        parts = [part for part in parts if part.name in wanted]
    data = options.data
    if data is None:
        sizes = {"train": 96, "dev": 16} if options.tiny else {"train": 6000, "dev": 500}
        data = work / "data"
        write_dataset(data, seed=0, sizes=sizes)
    context = Context(
        options.device,
        work,
        data.resolve(),
        options.model and options.model.resolve(),
        options.tokenizer and options.tokenizer.resolve(),
        TINY if options.tiny else FULL,
    )
    method, found = "fork", call_in_process(gpu_checks.device, context, {}, limit=60)
    if found.status == "failed":
        method = "spawn"
        found = call_in_process(gpu_checks.device, context, {}, limit=120, method=method)
    imports = round(time.monotonic() - start, 1)
    details = {
        "device": found.result,
        "data": data.name if options.data else "made-up questions",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds_to_start": imports,
        "processes": method,
    }
    report = Report(options.json, details)
    if found.status != "ok":
        print(f"no device: {found.status}: {found.reason}", file=sys.stderr)
        return 1
    print(f"{found.result['name']}, ready after {imports} s", flush=True)
    run_parts(parts, context, report, budget=options.budget - imports, method=method)
    if report.failures:
        print(f"failed: {', '.join(report.failures)}", file=sys.stderr)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
