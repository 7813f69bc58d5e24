"""Rendered videos with known moments and a tiny base model the embedded default."""
