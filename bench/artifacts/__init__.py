"""Accuracy and latency of artifacts on one data set, and the choice of the winner."""
