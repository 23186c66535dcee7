"""A fork server: imports the libraries once, then tries each malicious folder in a child process.

Reads one JSON object a line from standard input, `{"folder": …, "changed": FILE, "memory": BYTES}`,
and answers each with one line: outcome, detail, seconds, and growth of resident memory in bytes.
`memory` limits the growth of the address space.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

WALL_SECONDS = 20
PRELOAD = {
    "onnx": ("edge.runtime.engines.onnx.engine",),
    "ctranslate2": ("edge.runtime.engines.ctranslate2.engine",),
    "gguf": ("edge.runtime.engines.gguf.engine",),
    "torchscript": ("edge.runtime.engines.torchscript.engine",),
    "model": (
        "edge.export.publish",
        "edge.train.model.loading",
        "transformers.models.t5.modeling_t5",
        "transformers.models.auto.tokenization_auto",
        "safetensors.torch",
    ),
}
TEXT = "When was the uh the old bridge of Verona built?"


def use_artifact(folder: str, changed: str) -> None:
    """Load an artifact, and use what reads the file `changed`: searches, scores, the manifest."""
    from edge.cli.commands.info import _page
    from edge.runtime.model import load

    # A changed model.ts is a stranger's program, which is never loaded.
    with load(folder, trust_code=changed != "model.ts") as model:
        fields = dict.fromkeys(model.prompt.fields, "x")
        new_tokens = min(6, model.limits.max_new_tokens)

        def answer(texts: str | list[str], **options: Any) -> None:
            model.generate(texts, fields=fields, max_new_tokens=new_tokens, **options)

        if changed != "speculative.onnx":
            answer([TEXT, "yes"])
        if changed not in ("model.onnx", "speculative.onnx", "tokenizer.json"):
            answer(TEXT, do_sample=True, num_beams=1, seed=1)
            if model.engine.supports_beams:
                answer(TEXT, num_beams=2)
            model.score(TEXT, "yes", fields=fields)
        elif model.drafts_from_input:
            answer(TEXT, prompt_lookup_num_tokens=4)
        if changed == "edge.json":
            _page(Path(folder), model.artifact.manifest)


def use_model(folder: str, changed: str) -> None:
    """Read a model folder as `edge export` and as `edge train` do."""
    from edge.export.publish import Publisher
    from edge.export.source import SourceModel
    from edge.train.model.loading import load_pretrained

    source = SourceModel.open(folder)
    Publisher(source)
    source.state_dict()
    _ = source.torch_model
    source.build_torch_model()
    load_pretrained(folder)


def preload(use: str) -> None:
    """Import everything that `use` needs, without starting threads."""
    for name in ("edge.runtime.model", "edge.cli.commands.info", "rich.table", *PRELOAD[use]):
        importlib.import_module(name)
    if use == "gguf":
        from edge.runtime.engines.gguf.library import llama_library

        llama_library()
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
    gc.freeze()


def run_child(use: str, folder: str, changed: str, memory: int, answer: int) -> NoReturn:
    """The child: writes its outcome to `answer` and ends."""
    from edge.runtime.errors import EdgeError

    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["TMPDIR"] = str(Path(folder).parent)
    try:
        (use_model if use == "model" else use_artifact)(folder, changed)
        outcome, detail = "ok", ""
    except EdgeError as error:
        outcome, detail = "refused", f"{type(error).__name__}: {error}"
        if "\n" in str(error) or len(str(error)) > 2000:
            outcome = "not one sentence"
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in frames]
        outcome = "exception"
        detail = f"{type(error).__name__}: {error!s:.300} ({' < '.join(reversed(ours[-6:]))})"
    line = json.dumps({"outcome": outcome, "detail": detail[:1000]}).encode()
    os.write(answer, line)
    os._exit(0)


def try_folder(use: str, folder: str, changed: str, memory: int) -> dict[str, Any]:
    """Fork a child for a folder and wait for it, at most `WALL_SECONDS`."""
    before = _anonymous_memory()
    reader, writer = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        run_child(use, folder, changed, memory, writer)
    os.close(writer)
    handle = os.pidfd_open(child)
    ended, _, _ = select.select([handle], [], [], WALL_SECONDS)
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    os.close(handle)
    seconds = time.monotonic() - started
    line = b""
    while chunk := os.read(reader, 1 << 16):
        line += chunk
    os.close(reader)
    growth = used.ru_maxrss * 1024 - before
    found = {"seconds": round(seconds, 3), "memory": growth}
    if not ended:
        return {"outcome": "hang", "detail": f"over {WALL_SECONDS} s", **found}
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return {"outcome": "crash", "detail": name, **found}
    if not line:
        return {"outcome": "crash", "detail": f"exit status {os.WEXITSTATUS(status)}", **found}
    return {**json.loads(line), **found}


def _anonymous_memory() -> int:
    """Resident memory that a child inherits, in bytes; it maps files again when it touches them."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def main() -> None:
    """Serve requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print
    preload(sys.argv[1])
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(try_folder(sys.argv[1], **request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
