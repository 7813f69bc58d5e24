"""CLIP spatio-temporal features of videos: frames → vision tower → pooling → one file per video."""
