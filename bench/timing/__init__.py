"""Timing of models: interleaved turns, timed calls, latency statistics, verdicts."""
