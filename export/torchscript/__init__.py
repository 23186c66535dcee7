"""TorchScript: the exporter, and T5 as scriptable modules."""
