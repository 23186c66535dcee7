"""Publishing in the hub's layout: for Optimum and transformers.js instead of `edge.runtime`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from edge.export.base import Exporter
from edge.export.hub.engine import HubEngine
from edge.export.hub.files import check_generation, write_hub_files
from edge.export.hub.graphs import HubExporter
from edge.export.model_card import hub_card
from edge.export.parity import check_tolerance
from edge.export.publish import CARD_NAME, Exported, ExportOptions, Publisher, Target, file_info
from edge.export.source import SourceModel
from edge.runtime.artifact import Artifact
from edge.runtime.engines.base import Vocabulary
from edge.runtime.errors import UsageError
from edge.runtime.model import Model
from edge.runtime.platform.atomic import new_folder


class HubPublisher(Publisher):
    """Makes folders that Optimum's `ORTModelForSeq2SeqLM` and transformers.js load.

    They hold no manifest: what was measured against the source stands in the model card.
    """

    def __init__(self, source: SourceModel, options: ExportOptions) -> None:
        """As `Publisher`.

        Raises:
            UsageError: also, an option for which the layout has no place.
        """
        super().__init__(source, options)
        lost = {
            "--prefix": options.prompt,
            "--max-input-tokens": options.max_input_tokens,
            "--max-new-tokens-limit": options.max_new_tokens_limit,
            "--shortlist": options.shortlist,
        }
        given = [name for name, value in lost.items() if value is not None]
        if given:
            raise UsageError(
                f"--layout hub has no place for {', '.join(given)}: whoever loads the folder with"
                " Optimum or transformers.js does that"
            )
        check_generation(self.generation)

    def exporter(self, target: Target) -> Exporter:
        assert target.format == HubExporter.format, target  # the command refuses the others
        return HubExporter()

    def _publish(
        self, exporter: Exporter, target: Target, output: str | Path, *, force: bool
    ) -> Exported:
        tolerance = self._tolerance(exporter, target.quantization)
        check = self.check  # before anything is written: it knows a tokenizer that does not fit
        with new_folder(output, force=force) as staging:
            settings = exporter.write(self.source, target.quantization, staging)
            write_hub_files(self.source, self.generation, staging)
            manifest = self._manifest(target, staging, settings)
            for model in _models(Artifact(staging, manifest)):
                with model:
                    parity = check.measure(model)
                check_tolerance(parity, tolerance, f"{target.name} in the hub's layout")
            manifest = dataclasses.replace(manifest, parity=parity.as_manifest(tolerance))
            (staging / CARD_NAME).write_text(hub_card(manifest), encoding="utf-8")
            files = {**manifest.files, CARD_NAME: file_info(staging / CARD_NAME)}
            manifest = dataclasses.replace(manifest, files=files)
        return Exported(Path(output), manifest, parity)


def _models(artifact: Artifact) -> Iterator[Model]:
    """The folder as Optimum runs it by either pair of decoders, the merged one last."""
    manifest = artifact.manifest
    for merged in (False, True):
        vocabulary = Vocabulary.of(artifact)
        engine = HubEngine(artifact.folder, manifest.architecture, vocabulary, merged=merged)
        yield Model(artifact, engine)
