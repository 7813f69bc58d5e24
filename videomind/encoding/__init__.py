"""From a sample and its frames to tensors: the conversation, then its encoding. Training and inference share it."""
