"""What `--quantize auto` stands for: the smallest precision that answers as float32 does."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edge.export.base import EXPORTERS
from edge.export.publish import Publisher
from edge.export.quantization.evaluation import MIN_ROWS
from edge.export.staging import load_staged
from edge.export.target import Target


def choose_quantization(publisher: Publisher, format_name: str) -> str:
    """The smallest precision of a format that can't be told from float32 on held-out rows.

    Candidates are exported and measured from the smallest up, until neither of two paired tests
    tells one from float32: the losses of the targets (t-test) and the answers that are right
    (McNemar), at a level of 0.05; and at most a tenth of the answers changed. Without calibration
    rows, or with fewer than 32 held-out ones, and where no candidate passes, it is the format's
    default of 8 bits.

    What was measured goes into `publisher.tried`.
    """
    exporter = EXPORTERS.load(format_name)
    if publisher.options.calibrate is None or len(publisher.held_out) < MIN_ROWS:
        return exporter.auto
    tried = []
    chosen = exporter.auto
    for quantization in exporter.candidates:
        with tempfile.TemporaryDirectory(prefix="edge-auto-") as folder:
            publisher.write(Target(format_name, quantization), Path(folder))
            with load_staged(Path(folder)) as model:
                comparison = publisher.held_out.compare(model)
        tried.append({"quantization": quantization, **comparison.as_manifest()})
        if comparison.is_indistinguishable:
            chosen = quantization
            break
    publisher.tried[Target(format_name, chosen)] = tried
    return chosen
