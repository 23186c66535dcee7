"""Benchmark of speculative decoding with drafts from the input."""
