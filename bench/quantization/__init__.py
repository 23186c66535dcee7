"""Accuracy of quantized artifacts on models with activation outliers: `make bench-quantization`."""
