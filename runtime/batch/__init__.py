"""Answers for many rows: one file that resumes after a crash, or many shards over many workers."""
