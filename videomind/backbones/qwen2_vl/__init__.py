"""Qwen2-VL (arXiv 2409.12191), on which the published agents stand."""
