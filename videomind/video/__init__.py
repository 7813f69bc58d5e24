"""From a video file to resized frames with their times: what is asked, the choice of frames, the decoders."""
