"""The command that scores a run: prediction files in, tables and metrics.json out.

    python -m videomind.eval.evaluate PRED_PATH [--dataset NAME] [--conf_thr X] [--out_name metrics.log]
    python -m videomind.eval.evaluate PRED_PATH --qvhighlights_anno highlight_val_release.jsonl

PRED_PATH is a .json file (a list of records), a .jsonl file (one record per line), or a folder with the
chunks of a run. The report goes to the same folder.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from videomind.dataset.readers import read_numbered_jsonl
from videomind.eval import report
from videomind.eval.metrics import CGBENCH, DEFAULT, evaluate
from videomind.eval.qvhighlights import evaluate_qvhighlights
from videomind.files import read_json
from videomind.roles import nearest

logger = logging.getLogger(__name__)

SUFFIXES = (".json", ".jsonl")
CHUNK_PREFIX = "output"  # of the files that inference writes


@dataclass(frozen=True, kw_only=True)
class Records:
    """Rows read from files. Attributes: rows; origins, the place of each for messages; files."""

    rows: list[dict]
    origins: list[str]
    files: list[Path]


def _read_lines(path: Path) -> tuple[list, list[str]]:
    numbered = list(read_numbered_jsonl(path))
    return [row for _, row in numbered], [f"{path}:{number}" for number, _ in numbered]


def _read_list(path: Path) -> tuple[list, list[str]]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: holds a JSON {type(rows).__name__}, expected a list of records")
    return rows, [f"{path}, record {i}" for i in range(len(rows))]


def _prediction_files(path: Path, report_name: str) -> list[Path]:
    """The file itself, or a folder's chunks (else all its JSON files but the report), sorted."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: no such file or folder")
    files = sorted(f for f in path.iterdir() if f.suffix in SUFFIXES and f.name != report_name)
    files = [f for f in files if f.name.startswith(CHUNK_PREFIX)] or files
    if not files:
        raise ValueError(f"{path}: no prediction file in this folder (looked for {', '.join(SUFFIXES)})")
    return files


def read_records(path: Path, *, report_name: str = "metrics.json") -> Records:
    """Read prediction records or annotations.

    Args: path, a .json or .jsonl file or a folder of them; report_name, a file in it to ignore.
    Raises: ValueError that names file and line.
    """
    rows, origins = [], []
    files = _prediction_files(path, report_name)
    for file in files:
        read = _read_lines if file.suffix == ".jsonl" else _read_list
        file_rows, file_origins = read(file)
        for row, origin in zip(file_rows, file_origins, strict=True):
            if not isinstance(row, dict):
                raise ValueError(f"{origin}: a JSON {type(row).__name__}, expected a record ({{...}})")
        rows += file_rows
        origins += file_origins
    return Records(rows=rows, origins=origins, files=files)


def _check_dataset(name: str | None, records: Records) -> None:
    """Refuse a name that is not where the records come from. Records may not say it."""
    sources = {row.get("source", "unknown") for row in records.rows}
    if name is None and sources == {CGBENCH.name}:
        logger.warning("The records come from cgbench; --dataset cgbench gives its own metrics")
    if name in (None, CGBENCH.name) or "unknown" in sources or name in sources:
        return
    raise ValueError(
        f"--dataset {name!r} is not what the records come from. {nearest(name, sources | {CGBENCH.name})}"
    )


def _report_paths(pred_path: Path, out_name: str, files: Iterable[Path]) -> tuple[Path, Path]:
    """Where the tables and the JSON go."""
    folder = pred_path if pred_path.is_dir() else pred_path.parent
    text_path = folder / out_name
    json_path = text_path.with_suffix(".json")
    if text_path.parent != folder or text_path == json_path or {text_path, json_path} & set(files):
        raise ValueError(
            f"--out_name {out_name!r} must be a file name such as metrics.log; the same name with .json is "
            "written, too, and neither may be a prediction file"
        )
    return text_path, json_path


def _publish(
    args: argparse.Namespace, files: list[Path], text: str, content: dict, remarks: list[str]
) -> None:
    """Show the report, then write it. Without ground truth there is only the remark that says so."""
    text_path, json_path = _report_paths(args.pred_path, args.out_name, files)
    for remark in remarks:
        logger.warning(remark)
    if not text:
        return
    sys.stdout.write(text)
    report.write_text(text_path, "".join(f"WARNING: {remark}\n" for remark in remarks) + text)
    report.write_json(json_path, content)
    logger.info("Wrote %s and %s", text_path, json_path)


def _run(args: argparse.Namespace) -> None:
    """Evaluate what the arguments say."""
    records = read_records(args.pred_path, report_name=Path(args.out_name).with_suffix(".json").name)
    if args.qvhighlights_anno is not None:
        annotations = read_records(args.qvhighlights_anno)
        scores = evaluate_qvhighlights(records.rows, annotations.rows)
        text, content = report.render_qvhighlights(scores), asdict(scores)
        _publish(args, records.files, text, content, [*report.remarks_qvhighlights(scores)])
        return
    _check_dataset(args.dataset, records)
    mode = CGBENCH if args.dataset == CGBENCH.name else DEFAULT
    if args.conf_thr > 0 and mode is not CGBENCH:
        logger.warning("--conf_thr only matters with --dataset %s; ignored", CGBENCH.name)
    evaluation = evaluate(records.rows, mode=mode, conf_thr=args.conf_thr, origins=records.origins)
    remarks = [*report.remarks(evaluation)]
    _publish(args, records.files, report.render(evaluation), asdict(evaluation), remarks)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="videomind.eval.evaluate", description="Score prediction files.")
    parser.add_argument("pred_path", type=Path, help="a .json or .jsonl file, or a folder with chunks")
    parser.add_argument("--dataset", help=f"where the records come from; {CGBENCH.name} has its own metrics")
    parser.add_argument(
        "--conf_thr",
        type=float,
        default=-1.0,
        help=f"{CGBENCH.name}: predictions with a confidence above this join the first one (<= 0: none)",
    )
    parser.add_argument(
        "--out_name", default="metrics.log", help="name of the report next to the predictions"
    )
    parser.add_argument(
        "--qvhighlights_anno",
        "--qvhighlights-anno",
        type=Path,
        help="annotations of QVHighlights: score a submission with the official metrics",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Score prediction files. Args: argv, without the program's name. Returns: the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        _run(_parser().parse_args(argv))
    except (ValueError, OSError) as error:
        logger.error(error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
