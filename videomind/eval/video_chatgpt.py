"""Today's `videomind.video_chatgpt.infer`."""

from videomind.doors import lead_to

lead_to("videomind.video_chatgpt.infer", __name__)
