"""Folders that are there whole or not at all, and say what they were made with."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videomind.files import read_json, write_json

MARKER = "synthetic.json"  # holds the settings a folder was made with; also tells it from real data


def is_made(folder: Path, settings: dict[str, Any], what: str) -> bool:
    """Tell whether a folder was made with these settings already.

    Args:
        folder: that `making` makes.
        settings: that it is to be made with.
        what: it holds, for the message.

    Raises:
        ValueError: it is there and holds something else.
    """
    if not folder.exists():
        return False
    marker = folder / MARKER
    made_with = read_json(marker) if marker.is_file() else None
    if made_with != settings:
        held = "what is not synthetic" if made_with is None else f"what was made with {made_with}"
        raise ValueError(
            f"{folder} does not hold {what} made with {settings}, but {held}. "
            "Move it away or choose another place."
        )
    return True


@contextmanager
def making(folder: Path, settings: dict[str, Any]) -> Iterator[Path]:
    """Give an empty folder beside `folder` that becomes it when the block ends without an error."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    write_json(partial / MARKER, settings)
    partial.rename(folder)
