"""How a Hugging Face folder becomes an artifact: an exporter per format, checked for parity."""
