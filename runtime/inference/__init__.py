"""Inference around an engine: input encoding, batching, guardrails, locking and asyncio."""
