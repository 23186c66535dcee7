"""Models and tokenizers to train: loading, creation from scratch, adapters and distillation."""
