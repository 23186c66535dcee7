"""ONNX: encoder and decoder graphs emitted node by node from the weights, without tracing.

Two graphs share one file of weights. `encoder.onnx` turns source ids into the cross-attention keys
and values of every decoder layer, which are therefore computed once per input; `decoder.onnx`
appends any number of tokens to its cache and returns their logits.
"""

from __future__ import annotations

from edge.export.onnx.exporter import OnnxExporter

__all__ = ["OnnxExporter"]
