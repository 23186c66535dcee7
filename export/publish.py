"""Publishing of artifacts: write the files, check parity with the source, rename into place."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.export.base import EXPORTERS, Exporter
from edge.export.conditioning.calibration import Calibration, read_calibration
from edge.export.conditioning.model import Conditioned, condition
from edge.export.exported import Exported
from edge.export.manifest import add_card, list_files, source_info, task_settings, write_manifest
from edge.export.model_card import model_card
from edge.export.options import (
    ExportOptions,
    check_output,
    generation_warnings,
    resolve_draft_head,
    resolve_generation,
    resolve_limits,
    resolve_prompt,
    resolve_text_fingerprint,
    supported_generation,
)
from edge.export.parity import ParityCheck
from edge.export.quantization.evaluation import HeldOutCheck
from edge.export.quantization.sensitivity import precise_weights
from edge.export.shortlist import Shortlist
from edge.export.source import SourceModel
from edge.export.staging import load_staged
from edge.export.target import Target, plan_targets
from edge.export.tolerance import Parity, Tolerance, check_tolerance
from edge.runtime.artifact import TOKENIZER_NAME, sha256_of
from edge.runtime.artifact.manifest import Manifest, TokenizerInfo
from edge.runtime.artifact.trust import CODE_FILES, record_trust
from edge.runtime.errors import ParityError, UsageError
from edge.runtime.generation import Generation
from edge.runtime.platform.atomic import new_folder
from edge.runtime.version import edge_version
from edge.train.vocabulary import recorded_characters

__all__ = ["ExportOptions", "Publisher", "Target", "plan_targets"]


class Publisher:
    """Makes artifacts of one source model; what they have in common is computed once.

    Attributes:
        source: the model; parity is always measured against it.
        options: the settings of the export.
        prompt, limits, generation, text_fingerprint: what follows from both for every artifact.
        tried: what `--quantize auto` measured before it chose a target, by target.
    """

    def __init__(self, source: SourceModel, options: ExportOptions | None = None) -> None:
        """Settle prompt, limits and generation defaults.

        Raises:
            UsageError: an invalid option.
            ModelError: no usable tokenizer, or a tokenizer or draft head of another model.
        """
        self.source = source
        self.options = options = options or ExportOptions()
        self.prompt = resolve_prompt(source, options)
        self.limits = resolve_limits(source, options)
        self.generation = resolve_generation(source, options, self.limits)
        self.text_fingerprint = resolve_text_fingerprint(source, options, self.prompt)
        source.draft_head = resolve_draft_head(source)
        self.tried: dict[Target, list[dict[str, Any]]] = {}

    def publish(self, target: Target, output: str | Path, *, force: bool = False) -> Exported:
        """Write one artifact and publish it if it passes the parity check.

        If it fails, the format's next higher precision is exported instead, if there is one. The
        manifest says which one it is.

        Raises:
            OutputExistsError: `output` exists and `force` is off.
            ParityError: the artifact is outside of the tolerance; nothing is left behind.
            EdgeError: the disk is full, or another failure that the user can fix.
        """
        check_output(self.source, self.options, output, force=force)
        self.check_target(target)
        exporter = self.exporter(target)
        try:
            return self._publish(exporter, target, output, force=force)
        except ParityError:
            instead = exporter.higher_precision.get(target.quantization)
            if instead is None:
                raise
            return self.publish(Target(target.format, instead), output, force=force)

    def exporter(self, target: Target) -> Exporter:
        """The exporter that writes the target's model files."""
        return EXPORTERS.load(target.format)()

    def source_for(self, exporter: Exporter, quantization: str) -> SourceModel:
        """The model that the exporter writes; for quantized targets the conditioned one."""
        return self.quantization_source if exporter.is_quantized(quantization) else self.source

    @property
    def quantization_source(self) -> SourceModel:
        """The model that all quantized targets are written from: the conditioned one."""
        return self.conditioned.source if self.conditioned else self.source

    @functools.cached_property
    def conditioned(self) -> Conditioned | None:
        """The conditioned copy of the source, made once; None if the options ask for none.

        Raises:
            DataError: the calibration rows can't be used.
            ModelError: a weight is not finite.
        """
        if not self.options.condition:
            return None
        rows = self.calibration.fitted
        conditioned = condition(self.source, rows)
        chosen = functools.partial(precise_weights, conditioned.source, rows)
        conditioned.source.precise_weights = functools.cache(chosen)
        return conditioned

    @functools.cached_property
    def calibration(self) -> Calibration:
        """The rows that quantization is fitted to.

        Raises:
            DataError: they can't be used.
        """
        return read_calibration(
            self.options.calibrate,
            self.source,
            self.check.tokenizer,
            self.prompt,
            self.limits.max_input_tokens,
        )

    @functools.cached_property
    def held_out(self) -> HeldOutCheck:
        """The comparison with float32 on the calibration rows that fitted nothing."""
        return HeldOutCheck(self.source, self.calibration, self.generation)

    def check_target(self, target: Target) -> None:
        """Reject a target that does not support the options, before anything is written.

        Raises:
            UsageError: a shortlist for a format that does not support one.
            ModelError: an architecture that the format does not support.
        """
        exporter = EXPORTERS.load(target.format)
        exporter.check_architecture(self.source)
        if self.options.shortlist and not exporter.supports_shortlist:
            raise UsageError(
                f"--shortlist is for --format onnx, not {target.format}. Leave --shortlist out, or"
                " export with --format onnx alone"
            )

    @functools.cached_property
    def shortlist(self) -> Shortlist | None:
        """The shortlist that the options ask for, or None.

        Raises:
            EdgeError: its data is unusable, or it would hold nearly the whole vocabulary.
        """
        if self.options.shortlist is None:
            return None
        ends = self.source.architecture.all_end_token_ids
        return Shortlist(self.options.shortlist, self.check.tokenizer, ends)

    @functools.cached_property
    def check(self) -> ParityCheck:
        """The parity check, with the source's answers.

        Raises:
            ModelError: the tokenizer does not belong to the model.
        """
        with self.source.tokenizer_folder() as folder:
            return ParityCheck(self.source, self.prompt, self.limits, folder)

    def write(self, target: Target, folder: Path) -> Manifest:
        """Write the files of a target and a manifest without parity into an empty folder."""
        exporter = self.exporter(target)
        source = self.source_for(exporter, target.quantization)
        settings = exporter.write(source, target.quantization, folder)
        source.release_memory()
        self.source.write_tokenizer(folder)
        manifest = self._manifest(target, source, folder, settings)
        write_manifest(folder, manifest)
        return manifest

    def _publish(
        self, exporter: Exporter, target: Target, output: str | Path, *, force: bool
    ) -> Exported:
        """Write, check and publish exactly this target."""
        check = self.check  # first: it rejects a wrong tokenizer before anything is written
        shortlist = self.shortlist
        check.prepare()
        asked = self.options.compare_answers and self.options.condition
        if compares := asked and exporter.is_quantized(target.quantization):
            self.held_out.prepare()
        with new_folder(output, force=force) as staging:
            manifest = self.write(target, staging)
            with load_staged(staging) as model:
                parity = check.measure(model)
                answers = shortlist.answers(model) if shortlist else []
                tolerance = self._check(exporter, manifest, parity, target.name)
                record = parity.as_manifest(tolerance)
                if tried := self.tried.get(target):
                    record["auto"] = tried
                if compares:
                    record["held_out"] = self.held_out.compare(model).as_manifest()
            manifest = dataclasses.replace(manifest, parity=record)
            if shortlist:
                manifest = self._restrict(exporter, manifest, staging, shortlist, answers)
            manifest = add_card(manifest, model_card(manifest), staging)
            write_manifest(staging, manifest)
        code = CODE_FILES.get(manifest.format)
        needs_trust = code is not None and not record_trust(Path(output) / code)
        warnings = generation_warnings(self.source, self.limits, self.generation, target.format)
        written = self.source_for(exporter, target.quantization)
        warnings += exporter.notes(written, target.quantization)
        return Exported(Path(output), manifest, parity, needs_trust, warnings)

    def _restrict(
        self,
        exporter: Exporter,
        manifest: Manifest,
        staging: Path,
        shortlist: Shortlist,
        before: list[Generation],
    ) -> Manifest:
        """Replace the files with the full head, which passed, by files with the shortlist.

        Their answers are checked against the source's, restricted to the same ids.
        """
        for name in manifest.files:
            if name != TOKENIZER_NAME:
                (staging / name).unlink()
        source = self.source_for(exporter, manifest.quantization)
        exporter.write_with_shortlist(source, manifest.quantization, staging, shortlist.ids)
        shortlist.write(staging)
        # Not empty, so that the engine reads the list; the measured values follow.
        manifest = dataclasses.replace(
            manifest, files=list_files(staging), shortlist={"size": len(shortlist.ids)}
        )
        write_manifest(staging, manifest)
        check = ParityCheck(self.source, self.prompt, self.limits, staging, shortlist.ids)
        with load_staged(staging) as model:
            parity = check.measure(model)
            what = f"{manifest.format} with a shortlist"
            tolerance = self._check(exporter, manifest, parity, what)
            report = shortlist.compare(model, before, tolerance)
        report["parity"] = parity.as_manifest(tolerance)
        return dataclasses.replace(manifest, shortlist=report)

    def _manifest(
        self, target: Target, source: SourceModel, staging: Path, settings: Mapping[str, Any]
    ) -> Manifest:
        exporter = self.exporter(target)
        conditioned = self.conditioned if exporter.is_quantized(target.quantization) else None
        return Manifest(
            format=target.format,
            quantization=target.quantization,
            architecture=source.architecture,
            source=source_info(self.source),
            tokenizer=TokenizerInfo(
                sha256_of(staging / TOKENIZER_NAME),
                self.source.pieces,
                recorded_characters(self.source.config),
            ),
            files=list_files(staging),
            prompt_template=self.prompt.template,
            text_path=self.text_fingerprint.as_record(),
            generation=supported_generation(self.generation, target.format).non_default(),
            task_specific_params=task_settings(self.source),
            limits=self.limits,
            conditioning=dict(conditioned.record) if conditioned else {},
            draft_head=exporter.draft_record(source),
            runtime=dict(settings),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            edge_version=edge_version(),
        )

    def _check(
        self, exporter: Exporter, manifest: Manifest, parity: Parity, what: str
    ) -> Tolerance:
        """Reject an artifact outside of its tolerance, which is returned.

        Raises:
            ParityError: see `check_tolerance`.
        """
        limits = self.options.max_error, self.options.mean_error
        tolerance = exporter.tolerances[manifest.quantization].with_limits(*limits)
        quantized = exporter.is_quantized(manifest.quantization)
        conditioned = bool(manifest.conditioning)
        check_tolerance(parity, tolerance, what, quantized=quantized, conditioned=conditioned)
        return tolerance
