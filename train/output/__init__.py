"""The results of a training run: model folder, training record, report and curves."""
