"""Batch inference: one file that resumes after a crash, or many shards over several workers."""
