"""`export`: compile a model to artifacts with one call, as the command `edge export` does."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from edge.export.auto import choose_quantization
from edge.export.conditioning.calibration import CalibrationRequest
from edge.export.exported import Exported
from edge.export.options import ExportOptions, check_output
from edge.export.publish import Publisher
from edge.export.shortlist import ShortlistRequest
from edge.export.source import SourceModel
from edge.export.target import Target, destination, plan_targets
from edge.runtime.errors import EdgeError, UsageError
from edge.runtime.registry import unknown_name

Layout = Literal["edge", "hub"]
_LAYOUTS = ("edge", "hub")


def export(
    model: str | Path | SourceModel,
    output: str | Path,
    formats: str | Sequence[str],
    quantize: str | Sequence[str] = "auto",
    *,
    layout: Layout = "edge",
    force: bool = False,
    revision: str | None = None,
    tokenizer: str | Path | None = None,
    prompt: str | None = None,
    max_input_tokens: int | None = None,
    max_new_tokens_limit: int | None = None,
    generation: Mapping[str, Any] | None = None,
    max_error: float | None = None,
    mean_error: float | None = None,
    condition: bool = True,
    calibrate: str | Path | CalibrationRequest | None = None,
    shortlist: str | Path | ShortlistRequest | None = None,
    on_start: Callable[[Target], None] | None = None,
    on_done: Callable[[Target, Exported], None] | None = None,
) -> list[Exported]:
    """Compile a model to one artifact per format and quantization.

    Each artifact is compared with the model before it is published: greedy answers and
    log-probabilities on a fixed set of inputs. If one fails this parity check, the format's next
    higher precision is exported instead, if there is one.

    Args:
        model: a Hugging Face model folder, a hub id such as "google/flan-t5-small", or an open
            `SourceModel`.
        output: the artifact's folder. With several artifacts, the folder that holds one
            `<format>-<quantization>` folder for each.
        formats: one or several of "torchscript", "onnx", "ctranslate2" and "gguf", or "all".
        quantize: one or several quantizations, made in every format: "auto" (the format's
            default), "none", "int8", or a format's own name.
        layout: "edge" for `edge.runtime`; "hub" for Optimum and transformers.js (ONNX only).
        force: replace existing artifacts, each once the new one is complete.
        revision: branch, tag or commit of a hub model.
        tokenizer: a folder with the tokenizer, for a model folder without one.
        prompt: the prompt around each input, such as "rewrite: " or "[{task}] {input}". By default
            that of training.
        max_input_tokens: the longest input that the artifact accepts. By default that of training,
            or 512.
        max_new_tokens_limit: the most new tokens that a caller may ask for. By default 512.
        generation: the artifact's generation defaults by the names of
            `edge.runtime.options.GenerationOptions`; they override generation_config.json.
        max_error: accept a largest log-probability error up to this, in nats per token.
        mean_error: accept a mean log-probability error up to this, in nats per token.
        condition: rewrite the weights, which leaves the function as it is, before they are
            quantized; see `edge.export.conditioning`.
        calibrate: rows that the quantization is fitted to (a JSON-lines file, or a folder with
            train.jsonl, of which only the train rows are used), or a `CalibrationRequest`. By
            default built-in English texts. With rows, "auto" takes the smallest precision that
            can't be told from float32 on held-out rows; without, a format's 8 bits.
        shortlist: rows with targets (a JSON-lines file, or a folder with train and dev files), or
            a `ShortlistRequest`: searches choose among the tokens of these targets and of the
            input (ONNX only).
        on_start: called with each target before it is made.
        on_done: called with each target and its artifact.

    Returns:
        The artifacts in the order of `formats` and `quantize`, without duplicates.

    Raises:
        UsageError: an unknown format, quantization or layout, or an invalid option.
        ModelError: `model` is not found, not a T5-family model, or unusable.
        MissingExtraError: a format's library is not installed.
        OutputExistsError: a destination exists and `force` is off.
        ParityError: an artifact differs too much from the model.
        EdgeError: the disk is full, or another failure that the user can fix.

    Example:
        >>> from edge.export import export
        >>> for exported in export("models/rewriter", "artifacts", ["onnx", "gguf"], "int8"):
        ...     print(exported.folder, exported.parity.mean_error)
        artifacts/onnx-int8 0.0021
        artifacts/gguf-q8_0 0.0012
    """
    if layout not in _LAYOUTS:
        raise UsageError(unknown_name("layout", layout, _LAYOUTS))
    names = [formats] if isinstance(formats, str) else formats
    if layout == "hub":
        for name in names:
            if name != "onnx":
                raise UsageError(f"--layout hub is for --format onnx only, not for {name}")
    if isinstance(calibrate, str | Path):
        calibrate = CalibrationRequest(Path(calibrate))
    if isinstance(shortlist, str | Path):
        shortlist = ShortlistRequest(Path(shortlist))
    if not isinstance(model, SourceModel):
        model = SourceModel.open(model, revision=revision, tokenizer=tokenizer)
    options = ExportOptions(
        prompt=prompt,
        max_input_tokens=max_input_tokens,
        max_new_tokens_limit=max_new_tokens_limit,
        generation=generation or {},
        max_error=max_error,
        mean_error=mean_error,
        condition=condition,
        calibrate=calibrate,
        shortlist=shortlist,
    )
    publisher = _publisher_class(layout)(model, options)
    quantizations = [quantize] if isinstance(quantize, str) else quantize
    targets = plan_targets(names, quantizations, functools.partial(choose_quantization, publisher))
    return publish_all(publisher, targets, output, force=force, on_start=on_start, on_done=on_done)


def publish_all(
    publisher: Publisher,
    targets: Sequence[Target],
    output: str | Path,
    *,
    force: bool = False,
    on_start: Callable[[Target], None] | None = None,
    on_done: Callable[[Target, Exported], None] | None = None,
) -> list[Exported]:
    """Publish several targets: a single one in `output` itself, several in folders inside it.

    All destinations are checked first, so that nothing is written before a refusal.

    Args:
        publisher: makes the artifacts.
        targets: what to make, in this order.
        output: the destination; see `edge.export.target.destination`.
        force: replace existing artifacts.
        on_start: called with each target before it is made.
        on_done: called with each target and its artifact.

    Raises:
        EdgeError: as `Publisher.publish`; the message starts with the target's name.
    """
    places = {target: destination(output, target, targets) for target in targets}
    for target, place in places.items():
        check_output(publisher.source, publisher.options, place, force=force)
        publisher.check_target(target)
    done = []
    for target, place in places.items():
        if on_start:
            on_start(target)
        with _named_errors(target):
            exported = publisher.publish(target, place, force=force)
        done.append(exported)
        if on_done:
            on_done(target, exported)
    return done


@contextlib.contextmanager
def _named_errors(target: Target) -> Iterator[None]:
    """Put the target's name in front of the message of an error."""
    try:
        yield
    except EdgeError as error:
        error.args = (f"{target.name}: {error}",)
        raise


def _publisher_class(layout: Layout) -> type[Publisher]:
    if layout == "hub":
        from edge.export.hub.publisher import HubPublisher

        return HubPublisher
    return Publisher
