"""From a sample and its frames to tensors: conversation, then encoding. Training and inference share it."""
