"""Today's `videomind.runs.launch`."""

from videomind.doors import lead_to

lead_to("videomind.runs.launch", __name__)
