"""Publishing in the hub layout, for Optimum and transformers.js instead of `edge.runtime`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from edge.export.base import Exporter
from edge.export.exported import Exported
from edge.export.hub.engine import HubEngine
from edge.export.hub.files import check_generation, write_hub_files
from edge.export.hub.graphs import HubExporter
from edge.export.manifest import add_card
from edge.export.model_card import hub_card
from edge.export.options import ExportOptions
from edge.export.publish import Publisher
from edge.export.source import SourceModel
from edge.export.target import Target
from edge.runtime.artifact import Artifact
from edge.runtime.engines.base import Vocabulary
from edge.runtime.errors import UsageError
from edge.runtime.model import Model
from edge.runtime.platform.atomic import new_folder


class HubPublisher(Publisher):
    """Makes folders that Optimum's `ORTModelForSeq2SeqLM` and transformers.js load.

    They have no manifest; the model card holds the measured parity.
    """

    def __init__(self, source: SourceModel, options: ExportOptions) -> None:
        """See `Publisher`.

        Raises:
            UsageError: also for an option that the layout does not support.
        """
        super().__init__(source, options)
        values = {
            "--prefix": options.prompt,
            "--max-input-tokens": options.max_input_tokens,
            "--max-new-tokens-limit": options.max_new_tokens_limit,
            "--shortlist": options.shortlist,
        }
        unsupported = [name for name, value in values.items() if value is not None]
        if unsupported:
            raise UsageError(
                f"--layout hub does not support {', '.join(unsupported)}. Do that in the code that"
                " loads the folder with Optimum or transformers.js"
            )
        check_generation(self.generation)

    def exporter(self, target: Target) -> Exporter:
        """The exporter of the layout; `edge.export.export` rejects other formats than ONNX."""
        assert target.format == HubExporter.format, target
        return HubExporter()

    def _publish(
        self, exporter: Exporter, target: Target, output: str | Path, *, force: bool
    ) -> Exported:
        check = self.check  # first: it rejects a wrong tokenizer before anything is written
        with new_folder(output, force=force) as staging:
            source = self.source_for(exporter, target.quantization)
            settings = exporter.write(source, target.quantization, staging)
            write_hub_files(source, self.generation, staging)
            manifest = self._manifest(target, source, staging, settings)
            for model in _models(Artifact(staging, manifest)):
                with model:
                    parity = check.measure(model)
                what = f"{target.name} in the hub layout"
                tolerance = self._check(exporter, manifest, parity, what)
            manifest = dataclasses.replace(manifest, parity=parity.as_manifest(tolerance))
            manifest = add_card(manifest, hub_card(manifest), staging)
        return Exported(Path(output), manifest, parity)


def _models(artifact: Artifact) -> Iterator[Model]:
    """The folder with the two separate decoders, then with the merged one."""
    manifest = artifact.manifest
    for merged in (False, True):
        vocabulary = Vocabulary.of(artifact)
        engine = HubEngine(artifact.folder, manifest.architecture, vocabulary, merged=merged)
        yield Model(artifact, engine)
