"""Today's `videomind.runs.processes`."""

from videomind.doors import lead_to

lead_to("videomind.runs.processes", __name__)
