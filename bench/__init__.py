"""Which artifact wins, and does it meet the target? Accuracy and latency, from artifacts alone."""
