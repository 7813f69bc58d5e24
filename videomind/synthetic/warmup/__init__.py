"""A full-parameter warm-up of the tiny base, so that it stands where a pretrained model does."""
