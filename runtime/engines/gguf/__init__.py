"""The GGUF engine: llama.cpp's low-level binding, and a strict reader of GGUF headers."""
