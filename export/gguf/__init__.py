"""GGUF for llama.cpp: the exporter, its vocabulary and its position-bias tables."""
