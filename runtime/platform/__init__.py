"""The platform: CPU, memory, atomic files, locks and JSON files."""
