"""Data augmentation, in every epoch of a training run or once before it."""
