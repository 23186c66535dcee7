"""Load test of `edge serve`."""
