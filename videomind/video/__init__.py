"""From a video file to resized frames with their times: what is asked, the frame plan, the decoders."""
