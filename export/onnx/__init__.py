"""ONNX: the exporter, and graphs built node by node from the weights, without tracing.

`model.onnx` holds the whole greedy search. For other searches, `encoder.onnx` turns source ids into
the cross-attention keys and values of every decoder layer, once per input, and `decoder.onnx`
appends any number of tokens to its cache and returns their logits. All graphs share one copy of the
weights.
"""

from __future__ import annotations

from edge.export.onnx.exporter import OnnxExporter

__all__ = ["OnnxExporter"]
