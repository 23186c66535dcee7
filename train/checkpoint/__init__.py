"""Atomic, checksummed checkpoints of training runs."""
