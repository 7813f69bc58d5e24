"""What a training is told: parsed, checked against what is refused, and explained by `--help`."""
