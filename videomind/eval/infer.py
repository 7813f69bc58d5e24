"""Today's `videomind.agent.infer`."""

from videomind.doors import lead_to

lead_to("videomind.agent.infer", __name__)
