"""Today's `videomind.video_chatgpt.judge.judge`."""

from videomind.doors import lead_to

lead_to("videomind.video_chatgpt.judge.judge", __name__)
