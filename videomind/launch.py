"""Today's `videomind.runs.torchrun`."""

from videomind.doors import lead_to

lead_to("videomind.runs.torchrun", __name__)
