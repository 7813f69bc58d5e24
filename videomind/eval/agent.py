"""Today's `videomind.agent.agent`."""

from videomind.doors import lead_to

lead_to("videomind.agent.agent", __name__)
