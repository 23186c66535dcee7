"""Constrained decoding: choices, patterns, JSON Schema, grammars and copies of the input."""
