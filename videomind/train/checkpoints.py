"""Folders of checkpoints: which are whole, which are ours, and what may be deleted.

A checkpoint is complete or it is not there: a marker file is written last, and a rerun continues from the
newest marked one. Another marker is written first: what carries neither is not ours, and is never deleted.
"""

import logging
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from videomind.files import read_json
from videomind.runs.together import from_first

log = logging.getLogger(__name__)

STARTED = "started"  # first file of a checkpoint: the folder is ours, perhaps half-written
COMPLETE = "complete"  # its last one
FILES = "files.json"  # of a checkpoint: what it holds, each with its size
STATE = "trainer_state.json"  # of a checkpoint, transformers' own
DEEPSPEED_STATE = "latest"  # of a checkpoint with DeepSpeed's optimizer
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def complete_checkpoints(output_dir: str | Path) -> list[Path]:
    """List the checkpoints of a run that were written to the end, oldest first."""
    return [folder for folder in _checkpoints(output_dir) if (folder / COMPLETE).is_file()]


def _checkpoints(output_dir: str | Path) -> list[Path]:
    """List the folders that are called as checkpoints are, by their step; `checkpoint-best` is not."""
    matches = {path: _CHECKPOINT.fullmatch(path.name) for path in Path(output_dir).glob("checkpoint-*")}
    steps = {path: int(match[1]) for path, match in matches.items() if match and path.is_dir()}
    return sorted(steps, key=steps.__getitem__)


def newest_checkpoint(output_dir: str | Path, remove: Callable[[Path], None]) -> str | None:
    """Find the newest complete checkpoint, and remove what a killed run left half-written.

    Args:
        output_dir: of the run.
        remove: deletes a checkpoint.

    Raises:
        ValueError: A folder is called as a checkpoint of ours would be, and is not one.
    """
    for folder in _checkpoints(output_dir):
        if not (folder / COMPLETE).is_file():
            refuse_foreign(folder)
            log.warning("Removing %s: it was not written to the end", folder)
            remove(folder)
    complete = complete_checkpoints(output_dir)
    return str(complete[-1]) if complete else None


def remove_old(
    output_dir: str | Path, limit: int | None, remove: Callable[[Path], None], *, is_first_of_node: bool
) -> None:
    """Delete all but the newest checkpoints, on every node where nodes share no folder.

    Every process calls it.

    Args:
        output_dir: of the run.
        limit: how many complete ones stay; None or below 1: all.
        remove: deletes one.
        is_first_of_node: whether this process deletes what is left of them in its node's folder.
    """

    def delete() -> list[str]:
        old = complete_checkpoints(output_dir)[:-limit] if limit and limit > 0 else []
        for checkpoint in old:
            remove(checkpoint)
        return [checkpoint.name for checkpoint in old]

    for name in from_first(delete):
        folder = Path(output_dir) / name
        if is_first_of_node and (folder / STARTED).is_file():
            with suppress(FileNotFoundError):  # another node deletes it in a folder that they share
                remove(folder)


def refuse_foreign(folder: Path) -> None:
    """Refuse to delete a folder that no training of ours has made.

    Raises:
        ValueError: It is such a folder; names it.
    """
    if any(folder.iterdir()) and not any((folder / name).is_file() for name in (STARTED, COMPLETE)):
        raise ValueError(
            f"{folder.absolute()} is called as a checkpoint of this run would be, but was not made by one: "
            "move it away, or choose another --output_dir"
        )


def remove_folder(folder: Path) -> None:
    """Delete a checkpoint: first what calls it complete, last what calls it ours."""
    (folder / COMPLETE).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != STARTED:
            path.unlink()
    shutil.rmtree(folder)


def sizes_of(checkpoint: Path) -> dict[str, int]:
    """List the files of a checkpoint by their paths in it, with their sizes in bytes."""
    files = (path for path in checkpoint.rglob("*") if path.is_file() and path.name not in (FILES, COMPLETE))
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in sorted(files)}


def check_whole(checkpoint: Path, *, uses_deepspeed: bool) -> None:
    """Check that a complete checkpoint still holds all that going on needs.

    Args:
        checkpoint: its folder.
        uses_deepspeed: whether the run that goes on does.

    Raises:
        ValueError: A file is gone or was cut; or the optimizer's state is of the other kind.
    """
    if (checkpoint / FILES).is_file():
        there = sizes_of(checkpoint)
        changed = [name for name, size in read_json(checkpoint / FILES).items() if there.get(name) != size]
        if changed:
            raise ValueError(
                f"{checkpoint.absolute()} is not what was written: {', '.join(changed[:5])} is gone or has "
                "another size. Put it back, or move that folder away to go on from the checkpoint before it."
            )
    if (checkpoint / DEEPSPEED_STATE).is_file() != uses_deepspeed:
        was, now = ("without", "with") if uses_deepspeed else ("with", "without")
        raise ValueError(
            f"{checkpoint.absolute()} was written {was} DeepSpeed, and this run goes on {now} it: the "
            "optimizer's state would be lost. Start it as before (DEEPSPEED), or train into another "
            "--output_dir from --model_name_or_path."
        )
