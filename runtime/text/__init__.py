"""Text around the model: tokenization, chunking, stop strings, streaming and output checks."""
