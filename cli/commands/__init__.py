"""The commands of `edge`, one module each."""
