"""Question–answer rows of VideoInstruct to the conversations that Video-ChatGPT trains on.

    python scripts/convert_instruction_json_to_training_format.py --input_json_file IN --output_json_file OUT
        [--clip_feature_path FOLDER]

One row in is `{"q": ..., "a": ..., "video_id": ...}`; one row out `{"id": ..., "video": "<video_id>.pkl",
"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}`. Text stays as it is.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomind.dataset.schema import VIDEO
from videomind.files import read_json, write_text
from videomind.logger import run_command

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QuestionAnswer:
    """A question about a video, and its answer."""

    q: str
    a: str
    video_id: str


def parse_row(row: Any, *, origin: str) -> QuestionAnswer:
    """Check a row; further keys are left out.

    Args:
        row: as it was read.
        origin: where it is from, for messages.

    Raises:
        ValueError: it is no mapping with texts as q, a and video_id.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{origin}, is a {type(row).__name__}, expected a mapping with q, a and video_id")
    for key in ("q", "a", "video_id"):
        if key not in row:
            raise ValueError(f"{origin}, has no {key!r}; it has {sorted(row)}")
        if not isinstance(row[key], str):
            raise ValueError(f"{origin}: {key!r} is {row[key]!r}, expected text")
    return QuestionAnswer(q=row["q"], a=row["a"], video_id=row["video_id"])


def read_question_answers(path: str | Path) -> list[QuestionAnswer]:
    """Read all rows of a file.

    Raises:
        ValueError: names the file and the row, counted from 0.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path} holds a {type(rows).__name__}, expected a list of rows")
    return [parse_row(row, origin=f"{path}, row {i}") for i, row in enumerate(rows)]


def convert(rows: Sequence[QuestionAnswer], *, present: set[str] | None = None) -> list[dict]:
    """Make conversations of the rows.

    In every second one the video comes before the question; which, is decided before rows are left out.

    Args:
        rows: of a VideoInstruct file.
        present: ids of the videos whose rows are kept; None keeps all.
    """
    return [
        {
            "id": row.video_id,
            "video": f"{row.video_id}.pkl",
            "conversations": [
                {"from": "human", "value": f"{VIDEO}\n{row.q}" if i % 2 else f"{row.q}\n{VIDEO}"},
                {"from": "gpt", "value": row.a},
            ],
        }
        for i, row in enumerate(rows)
        if present is None or row.video_id in present
    ]


def present_ids(folder: str | Path) -> set[str]:
    """List the ids in a folder of features: names up to their first dot, whatever follows.

    Raises:
        ValueError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"No folder of features {folder} (--clip_feature_path)")
    return {path.name.split(".")[0] for path in folder.iterdir()}


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        prog="videomind convert", description="VideoInstruct rows to the JSON that Video-ChatGPT trains on."
    )
    parser.add_argument("--input_json_file", required=True, help="list of {q, a, video_id}")
    parser.add_argument("--output_json_file", required=True, help="file to write")
    parser.add_argument("--clip_feature_path", help="keep only rows whose video has a file in this folder")
    return parser


def run(args: argparse.Namespace) -> None:
    """Convert the file that the command line names.

    Raises:
        ValueError: a row or a path that cannot be used.
    """
    rows = read_question_answers(args.input_json_file)
    present = None if args.clip_feature_path is None else present_ids(args.clip_feature_path)
    kept = convert(rows, present=present)
    if present is not None and (left := sorted({row.video_id for row in rows} - present)):
        log.warning(
            "Left out %d rows: no file in %s for %d videos: %s%s",
            len(rows) - len(kept),
            args.clip_feature_path,
            len(left),
            ", ".join(left[:5]),
            ", ..." if len(left) > 5 else "",
        )
        if dotted := [video_id for video_id in left if "." in video_id]:
            log.warning("%d of them have a dot in their id (%s): names count up to the first dot only",
                        len(dotted), dotted[0])  # fmt: skip
    write_text(args.output_json_file, json.dumps(kept))
    sys.stdout.write(f"Total annotations retained: {len(kept)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 2 for arguments or data that cannot be used.
    """
    return run_command(lambda: build_parser().parse_args(argv), run)


if __name__ == "__main__":
    sys.exit(main())
