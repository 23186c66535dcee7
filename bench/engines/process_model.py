"""An artifact loaded in a separate process, with the methods of `edge.runtime.Model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge.bench.engines.baselines.spec import Spec
from edge.bench.engines.baselines.table import TEXT
from edge.bench.engines.process import start
from edge.bench.timing.line_process import EngineMissingError
from edge.bench.timing.timed_calls import Call
from edge.runtime.artifact import Artifact
from edge.runtime.engines import ENGINES
from edge.runtime.generation import Generation, Timings
from edge.runtime.install import install_command

Fields = Mapping[str, object]


class RemoteModel:
    """A loaded artifact whose process is paused between requests.

    `generate` and `score` take and return what those of `edge.runtime.Model` do for lists. Every
    method may raise EngineFailedError.
    """

    def __init__(self, artifact: Artifact, threads: int) -> None:
        """Start the process and load the artifact.

        Raises:
            EngineMissingError: the engine's library is not installed.
            EngineFailedError: the artifact can't be loaded.
        """
        manifest = artifact.manifest
        folder = artifact.folder
        target = f"{manifest.format}-{manifest.quantization}"
        self.artifact = artifact
        self.threads = threads
        try:
            self._process = start(
                Spec(TEXT, folder, folder, folder, threads, target, artifact.trust_code)
            )
        except EngineMissingError as error:
            extra = ENGINES.entry(manifest.format).extra
            raise EngineMissingError(f"{error} ({install_command(extra)})") from None

    @property
    def load_ms(self) -> float:
        """Milliseconds to open the model, without importing libraries."""
        return float(self._process.ready["load_ms"])

    @property
    def age_ms(self) -> float:
        """Milliseconds from the start of the process to its last answer."""
        return (self._process.answered - self._process.started) * 1000

    def generate(
        self, texts: Sequence[str], *, fields: Sequence[Fields], **options: Any
    ) -> list[Generation]:
        """As `Model.generate`: one answer for each text."""
        found = self._request("generate", texts=list(texts), fields=list(fields), options=options)
        return [_generation(values) for values in found["answers"]]

    def score(
        self,
        inputs: Sequence[str],
        targets: Sequence[str],
        *,
        fields: Sequence[Fields],
        **options: Any,
    ) -> list[np.ndarray]:
        """As `Model.score`: for each pair, the log-probabilities [target tokens] in float32."""
        pairs = {"inputs": list(inputs), "targets": list(targets), "fields": list(fields)}
        found = self._request("score", **pairs, options=options)
        return [np.array(row, dtype=np.float32) for row in found["log_probs"]]

    def time_calls(self, calls: Sequence[Call], **options: Any) -> dict[str, Any]:
        """As `edge.bench.timing.timed_calls.time_calls`, in the engine's process.

        Returns:
            The fields of `TimedCalls`, and the process's `peak_rss` in bytes.
        """
        return self._request("time_calls", calls=calls, options=options)

    def _request(self, do: str, **fields: Any) -> dict[str, Any]:
        return self._process.request({"do": do, **fields})

    def close(self) -> None:
        """End the process."""
        self._process.close()


def _generation(values: dict[str, Any]) -> Generation:
    changed = {
        "timings": Timings(**values["timings"]),
        "token_ids": tuple(values["token_ids"]),
        "end_token_ids": tuple(values["end_token_ids"]),
        "alternatives": tuple(_generation(other) for other in values["alternatives"]),
    }
    return Generation(**{**values, **changed})
