"""The hub layout: ONNX folders for Optimum and transformers.js instead of `edge.runtime`."""
