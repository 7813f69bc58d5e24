"""A row of one's own data for each role."""

from pathlib import Path
from typing import Any

ROWS: dict[str, dict[str, Any]] = {
    "grounder": {"query": "a red square", "span": [[1, 9]]},
    "verifier": {"query": "a red square", "pred": [[1, 9]], "positive": True},
    "planner": {"question": "what comes after it", "query": "it", "route": 2},
    "answerer": {"question": "what is it", "answer": "red", "options": ["red", "blue"], "span": [[1, 4]]},
}
DURATION_S = 20


def videos_of(workshop: Path) -> list[str]:
    """Rendered videos, which are as long as that."""
    folder = workshop / "data/charades_sta/videos_3fps_480_noaudio"
    return [str(path) for path in sorted(folder.glob("*.mp4"))]


def role_row(role: str, video: str) -> dict[str, Any]:
    """A row about a video."""
    return {"video": video, "duration": DURATION_S, **ROWS[role]}
