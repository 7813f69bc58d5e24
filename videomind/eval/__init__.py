"""Inference and metrics."""
