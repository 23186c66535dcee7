"""The ONNX engine, and a check of where its graphs read weights from."""
