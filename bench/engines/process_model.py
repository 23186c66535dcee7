"""An artifact in a process of its own, asked as a `Model` is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge.bench.engines.baselines.spec import Spec
from edge.bench.engines.baselines.table import TEXT
from edge.bench.engines.process import EngineMissingError, start
from edge.bench.timing.timed_calls import Call
from edge.runtime.artifact import Artifact
from edge.runtime.engines import ENGINES
from edge.runtime.generation import Generation, Timings

Fields = Mapping[str, object]


class RemoteModel:
    """A loaded artifact whose process sleeps until it is asked.

    `generate` and `score` are those of `edge.runtime.Model` for lists, so that whatever scores a
    model scores this; every method may raise EngineFailedError.
    """

    def __init__(self, artifact: Artifact, threads: int) -> None:
        """Start the process and load.

        Raises:
            EngineMissingError, EngineFailedError: see there.
        """
        manifest = artifact.manifest
        folder = artifact.folder
        target = f"{manifest.format}-{manifest.quantization}"
        self.artifact = artifact
        self.threads = threads
        try:
            self._process = start(Spec(TEXT, folder, folder, folder, threads, target))
        except EngineMissingError as error:
            extra = ENGINES.entry(manifest.format).extra
            raise EngineMissingError(f"{error} (pip install 'edge-t5[{extra}]')") from None

    @property
    def load_ms(self) -> float:
        """Opening the model, libraries not counted."""
        return float(self._process.ready["load_ms"])

    @property
    def age_ms(self) -> float:
        """From the start of the process to its last answer."""
        return (self._process.answered - self._process.started) * 1000

    def generate(
        self, texts: Sequence[str], *, fields: Sequence[Fields], **options: Any
    ) -> list[Generation]:
        found = self._ask("generate", texts=list(texts), fields=list(fields), options=options)
        return [_generation(values) for values in found["answers"]]

    def score(
        self,
        inputs: Sequence[str],
        targets: Sequence[str],
        *,
        fields: Sequence[Fields],
        **options: Any,
    ) -> list[np.ndarray]:
        pairs = {"inputs": list(inputs), "targets": list(targets), "fields": list(fields)}
        found = self._ask("score", **pairs, options=options)
        return [np.array(row, dtype=np.float32) for row in found["log_probs"]]

    def turn(self, calls: Sequence[Call], **options: Any) -> dict[str, Any]:
        """Time calls; the options are those of `edge.bench.timing.timed_calls.time_calls`, and so is the answer,
        with the process' `peak_rss` in bytes."""
        return self._ask("turn", calls=calls, options=options)

    def _ask(self, what: str, **fields: Any) -> dict[str, Any]:
        return self._process.request({"do": what, **fields})

    def close(self) -> None:
        self._process.close()


def _generation(values: dict[str, Any]) -> Generation:
    changed = {
        "timings": Timings(**values["timings"]),
        "token_ids": tuple(values["token_ids"]),
        "alternatives": tuple(_generation(other) for other in values["alternatives"]),
    }
    return Generation(**{**values, **changed})
