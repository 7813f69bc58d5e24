"""VideoMind: one vision-language backbone that plans, grounds, verifies and answers (arXiv 2503.13444)."""

__version__ = "0.1.0"
