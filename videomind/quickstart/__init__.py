"""The main job on an embedded default: rendered videos, tiny models, the commands of a real run."""
