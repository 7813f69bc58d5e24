"""Today's `videomind.video_chatgpt.train`."""

from videomind.doors import lead_to

lead_to("videomind.video_chatgpt.train", __name__)
