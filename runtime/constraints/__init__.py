"""Constrained decoding: choices, regular expressions, JSON Schema, grammars, copies of the input."""
