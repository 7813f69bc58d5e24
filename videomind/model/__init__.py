"""The backbone its grounding head and checkpoints."""
