"""The rooms of the package and the floors they stand on, as docs/ARCHITECTURE.md shows them."""

from pathlib import Path

from helpers.runs import REPO

PACKAGE = REPO / "videomind"
FILES = sorted(PACKAGE.rglob("*.py"))
# Rooms from the ground up; a room imports from floors below its own, and on its own floor from itself.
FLOORS = (
    (
        "cores",
        "device",
        "doors",
        "environment",
        "faults",
        "files",
        "streams",
        "imports",
        "logger",
        "plain_pickle",
        "prediction",
        "roles",
        "spans",
        "start_up",
        "sums",
    ),
    ("backbones", "runs", "video"),
    ("dataset", "eval", "model"),
    ("encoding",),
    ("agent", "train"),
    ("video_chatgpt",),
    ("synthetic",),
    ("quickstart",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Within a floor: the ground's files rest on each other, scorers read annotations.
BESIDE = {("eval", "dataset")} | {(a, b) for a in FLOORS[0] for b in FLOORS[0]}


def leads_elsewhere(path: Path) -> bool:
    """Whether a file is the old name of a module that has moved."""
    return "lead_to(" in path.read_text(encoding="utf-8") and path.name != "doors.py"


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


ROOM_FILES = [path for path in FILES if path != PACKAGE / "__init__.py" and not leads_elsewhere(path)]
