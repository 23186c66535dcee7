"""The TorchScript engine, and checks of its archives that do not run them."""
