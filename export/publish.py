"""From a source model to a published artifact: write, check against the source, then rename."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.export.base import EXPORTERS, Exporter, Tolerance
from edge.export.model_card import model_card
from edge.export.parity import Parity, ParityCheck, check_tolerance
from edge.export.shortlist import Shortlist, ShortlistRequest, read_shortlist
from edge.export.source import SourceModel
from edge.runtime.artifact import TOKENIZER_NAME, sha256_of
from edge.runtime.artifact.manifest import (
    MANIFEST_NAME,
    FileInfo,
    Limits,
    Manifest,
    Source,
    TokenizerInfo,
)
from edge.runtime.artifact.text_fingerprint import TextFingerprint
from edge.runtime.engines import ENGINES
from edge.runtime.errors import EdgeError, ModelError, ParityError, UsageError
from edge.runtime.generation import Generation
from edge.runtime.model import Model, load
from edge.runtime.options import GenerationOptions
from edge.runtime.platform.atomic import check_destination, new_folder
from edge.runtime.rows import Prompt
from edge.runtime.version import edge_version

CARD_NAME = "README.md"
_DEFAULT_NEW_TOKENS = 64
# Relative positions know no end; these bound what a stranger's input may cost.
_DEFAULT_INPUT_LIMIT = 512
_DEFAULT_NEW_TOKENS_LIMIT = 512


@dataclass(frozen=True)
class Target:
    """One artifact to make: a format and a canonical quantization of it."""

    format: str
    quantization: str

    @property
    def name(self) -> str:
        return f"{self.format}-{self.quantization}"


@dataclass(frozen=True)
class ExportOptions:
    """What may be set by hand; None leaves it to the model's folder or to the format.

    `generation` holds options of `GenerationOptions`, above those of generation_config.json.
    """

    prompt: str | None = None
    max_input_tokens: int | None = None
    max_new_tokens_limit: int | None = None
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_error: float | None = None
    mean_error: float | None = None
    shortlist: ShortlistRequest | None = None


@dataclass(frozen=True)
class Exported:
    folder: Path
    manifest: Manifest
    parity: Parity


def plan_targets(format_name: str, quantizations: tuple[str, ...]) -> list[Target]:
    """The artifacts that `--format` and `--quantize` ask for, each once.

    Raises:
        UsageError: an unknown format or quantization.
        MissingExtraError: a format's library is not installed.
    """
    formats = EXPORTERS.names() if format_name == "all" else (format_name,)
    targets = [
        Target(name, EXPORTERS.load(name).resolve(quantization))
        for name in formats
        for quantization in quantizations or ("auto",)
    ]
    return list(dict.fromkeys(targets))


class Publisher:
    """Makes artifacts of one source; what they share is computed once."""

    def __init__(self, source: SourceModel, options: ExportOptions = ExportOptions()) -> None:
        """Settle prompt, limits and generation defaults.

        Raises:
            UsageError: an option that can't be used.
            ModelError: the model has no usable tokenizer, or not the one it was trained with.
        """
        self.source = source
        self.options = options
        training = source.training
        template = training.get("prompt_template")
        self.prompt = (
            Prompt.parse(options.prompt)
            if options.prompt is not None
            else Prompt(template)
            if isinstance(template, str)
            else Prompt()
        )
        self.limits = Limits(
            max_input_tokens=options.max_input_tokens
            or _whole(training.get("max_source_length"))
            or _DEFAULT_INPUT_LIMIT,
            max_new_tokens=options.max_new_tokens_limit or _DEFAULT_NEW_TOKENS_LIMIT,
        )
        self.generation = self._generation()
        self.text_path = self._text_path()

    def publish(self, target: Target, output: str | Path, *, force: bool = False) -> Exported:
        """Write one artifact and publish it once it has passed the parity check.

        Where it fails, the exporter's next finer quantization takes its place, if there is one; the
        manifest says what the artifact is.

        Raises:
            OutputExistsError: `output` exists and `force` is off.
            ParityError: the artifact is outside of the tolerance; nothing is left behind.
            EdgeError: the disk is full, or another failure that a person can mend.
        """
        check_destination(Path(output), force=force)
        self.check_target(target)
        exporter = self.exporter(target)
        try:
            return self._publish(exporter, target, output, force=force)
        except ParityError:
            finer = exporter.finer.get(target.quantization)
            if finer is None:
                raise
            return self.publish(Target(target.format, finer), output, force=force)

    def exporter(self, target: Target) -> Exporter:
        """Who writes the target's model files."""
        return EXPORTERS.load(target.format)()

    def _publish(
        self, exporter: Exporter, target: Target, output: str | Path, *, force: bool
    ) -> Exported:
        tolerance = self._tolerance(exporter, target.quantization)
        check = self.check  # before anything is written: it knows a tokenizer that does not fit
        shortlist = self.shortlist
        with new_folder(output, force=force) as staging:
            settings = exporter.write(self.source, target.quantization, staging)
            self.source.write_tokenizer(staging)
            manifest = self._manifest(target, staging, settings)
            _write_manifest(staging, manifest)
            with load(staging) as model:
                parity = check.measure(model)
                answers = shortlist.answers(model) if shortlist else []
            check_tolerance(parity, tolerance, target.name)
            manifest = dataclasses.replace(manifest, parity=parity.as_manifest(tolerance))
            if shortlist:
                manifest = self._restrict(exporter, manifest, staging, shortlist, answers)
            (staging / CARD_NAME).write_text(model_card(manifest), encoding="utf-8")
            files = {**manifest.files, CARD_NAME: file_info(staging / CARD_NAME)}
            manifest = dataclasses.replace(manifest, files=files)
            _write_manifest(staging, manifest)
        return Exported(Path(output), manifest, parity)

    def _restrict(
        self,
        exporter: Exporter,
        manifest: Manifest,
        staging: Path,
        shortlist: Shortlist,
        before: list[Generation],
    ) -> Manifest:
        """Put files with the shortlist in the place of those with the full head, which passed.

        They must answer as the source does when it chooses among the same ids.
        """
        for name in manifest.files:
            if name != TOKENIZER_NAME:
                (staging / name).unlink()
        exporter.write_listed(self.source, manifest.quantization, staging, shortlist.ids)
        shortlist.write(staging)
        files = {
            path.name: file_info(path)
            for path in sorted(staging.iterdir())
            if path.name != MANIFEST_NAME
        }
        # Not empty: it says that there is a list. The figures come once they are measured.
        manifest = dataclasses.replace(
            manifest, files=files, shortlist={"size": len(shortlist.ids)}
        )
        _write_manifest(staging, manifest)
        check = ParityCheck(self.source, self.prompt, self.limits, staging, shortlist.ids)
        tolerance = self._tolerance(exporter, manifest.quantization)
        with load(staging) as model:
            parity = check.measure(model)
            check_tolerance(parity, tolerance, f"{manifest.format} with a shortlist")
            facts = shortlist.compare(model, before, tolerance)
        facts["parity"] = parity.as_manifest(tolerance)
        return dataclasses.replace(manifest, shortlist=facts)

    def check_target(self, target: Target) -> None:
        """Refuse, before anything is made, what the target's format does not offer.

        Raises:
            UsageError: a shortlist for a format that has none.
        """
        if self.options.shortlist and not EXPORTERS.load(target.format).supports_shortlist:
            raise UsageError(f"--shortlist is for --format onnx, not {target.format}")

    # -- what the manifest says ------------------------------------------------------------------

    def _manifest(self, target: Target, staging: Path, settings: Mapping[str, Any]) -> Manifest:
        shape = self.source.architecture
        generation = self.generation
        if not ENGINES.load(target.format).supports_beams:
            # A default that the engine can't follow would make every plain call fail.
            generation = dataclasses.replace(
                generation, num_beams=1, num_return_sequences=1, early_stopping=False
            )
        return Manifest(
            format=target.format,
            quantization=target.quantization,
            architecture=shape,
            source=Source(self.source.name, self.source.weights_sha256, self.source.revision),
            tokenizer=TokenizerInfo(sha256_of(staging / TOKENIZER_NAME), self.source.pieces),
            files={path.name: file_info(path) for path in sorted(staging.iterdir())},
            prompt_template=self.prompt.template,
            text_path=self.text_path.as_record(),
            generation=generation.non_default(),
            limits=self.limits,
            runtime=dict(settings),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            edge_version=edge_version(),
        )

    def _text_path(self) -> TextFingerprint:
        """How texts reach the model, the same as in training where a record says how that was.

        Another prompt is allowed if it was asked for: a model of many tasks may serve one.
        """
        with tempfile.TemporaryDirectory(prefix="edge-tokenizer-") as folder:
            self.source.write_tokenizer(Path(folder))
            path = TextFingerprint.of(Path(folder) / TOKENIZER_NAME, self.prompt.template)
        recorded = self.source.training.get("text_path")
        if isinstance(recorded, Mapping):
            known = dict(recorded)
            if self.options.prompt is not None:
                known.pop("prompt_template", None)
            different = list(path.differences(known))
            if different:
                raise ModelError(
                    f"{self.source.folder}: {'; '.join(different)} (training.json): the model would"
                    " read other tokens than it learned; restore the file, or train again"
                )
        return path

    def _generation(self) -> GenerationOptions:
        saved = {
            name: value
            for name in _SAVED_OPTIONS
            if (value := self.source.generation.get(name)) is not None
        }
        if "max_new_tokens" not in saved:
            trained = _whole(self.source.training.get("max_target_length"))
            saved["max_new_tokens"] = trained or _DEFAULT_NEW_TOKENS
        saved["max_new_tokens"] = min(saved["max_new_tokens"], self.limits.max_new_tokens)
        try:
            options = GenerationOptions().override(saved)
        except UsageError as error:
            raise UsageError(f"{self.source.folder}/generation_config.json: {error}") from None
        return options.override(self.options.generation)

    def _tolerance(self, exporter: Exporter, quantization: str) -> Tolerance:
        tolerance = exporter.tolerances[quantization]
        if self.options.max_error is not None:
            tolerance = dataclasses.replace(
                tolerance, max_error=self.options.max_error, greedy=False
            )
        if self.options.mean_error is not None:
            tolerance = dataclasses.replace(tolerance, mean_error=self.options.mean_error)
        return tolerance

    @functools.cached_property
    def shortlist(self) -> Shortlist | None:
        """The shortlist that the options ask for, made once for all targets.

        Raises:
            DataError: its data can't be used.
            UsageError: it would gain nothing.
        """
        if self.options.shortlist is None:
            return None
        return Shortlist(self.options.shortlist, self.check.tokenizer)

    @functools.cached_property
    def check(self) -> ParityCheck:
        """The source's side of the comparison, computed once.

        Raises:
            ModelError: the tokenizer does not belong to the model.
        """
        with tempfile.TemporaryDirectory(prefix="edge-parity-") as folder:
            self.source.write_tokenizer(Path(folder))
            return ParityCheck(self.source, self.prompt, self.limits, Path(folder))


def remeasure_parity(model: Model, source: SourceModel) -> Parity:
    """Compare a published artifact with its source model again.

    Raises:
        ModelError: `source` is not the model that the artifact was made from.
        ParityError: outside of the tolerance that the manifest states.
    """
    manifest = model.artifact.manifest
    if source.weights_sha256 != manifest.source.weights_sha256:
        raise ModelError(
            f"{source.folder}: its weights are not those that {model.artifact.folder} was made from"
        )
    shortlist = read_shortlist(model.artifact)
    check = ParityCheck(source, model.prompt, manifest.limits, model.artifact.folder, shortlist)
    parity = check.measure(model)
    recorded = manifest.parity.get("tolerance")
    if isinstance(recorded, Mapping):
        check_tolerance(parity, Tolerance(**recorded), str(model.artifact.folder))
    return parity


# What generation_config.json may say that our engines follow.
_SAVED_OPTIONS = (
    "max_new_tokens",
    "min_new_tokens",
    "num_beams",
    "length_penalty",
    "repetition_penalty",
    "no_repeat_ngram_size",
)


@contextlib.contextmanager
def export_errors(target: Target) -> Iterator[None]:
    """Name the artifact in an error that happens while it is made."""
    try:
        yield
    except EdgeError as error:
        error.args = (f"{target.name}: {error}",)
        raise


def publish_all(
    publisher: Publisher,
    targets: list[Target],
    output: str | Path,
    *,
    force: bool = False,
    on_start: Callable[[Target], None] | None = None,
    on_done: Callable[[Target, Exported], None] | None = None,
) -> list[Exported]:
    """Publish several targets: one goes to `output` itself, more to folders in it by name.

    Destinations are checked first, so that nothing is made before a refusal.
    """
    places = {target: destination(output, target, targets) for target in targets}
    for target, place in places.items():
        check_destination(place, force=force)
        publisher.check_target(target)
    done = []
    for target, place in places.items():
        if on_start:
            on_start(target)
        with export_errors(target):
            exported = publisher.publish(target, place, force=force)
        done.append(exported)
        if on_done:
            on_done(target, exported)
    return done


def destination(output: str | Path, target: Target, targets: list[Target]) -> Path:
    """Where a target goes: `output`, or `output/<format>-<quantization>` beside others."""
    return Path(output) if len(targets) == 1 else Path(output) / target.name


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")


def file_info(path: Path) -> FileInfo:
    """Size and sha256, as the manifest lists them."""
    return FileInfo(sha256_of(path), path.stat().st_size)


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None
