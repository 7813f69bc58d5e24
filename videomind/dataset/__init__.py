"""From raw annotation files and videos to batches of tensors."""
