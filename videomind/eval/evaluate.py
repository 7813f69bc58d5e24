"""The command that scores a run: prediction files in, tables, metrics.json and a submission out.

    python -m videomind.eval.evaluate PRED_PATH [--dataset NAME] [--conf_thr X] [--out_name metrics.log]
    python -m videomind.eval.evaluate PRED_PATH --qvhighlights_anno highlight_val_release.jsonl

PRED_PATH is a .json file (a list of records), a .jsonl file (one record per line), or a folder with the
chunks of a run. The scorer is that of the data set which the records come from. What it makes goes to the
same folder.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videomind.eval.choice import choose_scorer
from videomind.eval.records import Run, read_run
from videomind.eval.scorer import Option, Outcome, Scorer, get_scorer, scorer_names
from videomind.eval.scorers.default import DefaultScorer
from videomind.files import json_text, write_json_lines, write_text
from videomind.logger import run_command
from videomind.runs.failures import EXIT_CODE, TooManyFailedError, add_max_bad_share, check_failures

logger = logging.getLogger(__name__)


def options() -> Iterator[tuple[type[Scorer], Option]]:
    """List the arguments of all scorers."""
    for name in scorer_names():
        scorer = get_scorer(name)
        yield from ((scorer, option) for option in vars(scorer).get("options", ()))


def build_parser() -> argparse.ArgumentParser:
    """Make the command line."""
    parser = argparse.ArgumentParser(prog="videomind evaluate", description="Score prediction files.")
    parser.add_argument("pred_path", type=Path, help="a .json or .jsonl file, or a folder with chunks")
    parser.add_argument(
        "--dataset",
        help="where records come from that do not say it, or a scorer as MODULE:CLASS",
    )
    parser.add_argument(
        "--out_name", default="metrics.log", help="name of the report next to the predictions"
    )
    add_max_bad_share(parser)
    for scorer, option in options():
        parser.add_argument(
            *dict.fromkeys((f"--{option.name}", f"--{option.name.replace('_', '-')}")),
            dest=option.name,
            type=option.type,
            default=option.default,
            help=f"{scorer.name}: {option.help}",
        )
    return parser


def make_scorer(run: Run, args: argparse.Namespace) -> Scorer:
    """Make the scorer of a run, with its arguments of the command line.

    Raises:
        ValueError: an argument decides for a scorer that is not the records'.
    """
    changed = [(scorer, o) for scorer, o in options() if getattr(args, o.name) != o.default]
    deciding = [(scorer, option) for scorer, option in changed if option.decides]
    otherwise = deciding[0][0] if deciding else DefaultScorer
    chosen = choose_scorer(run.predictions, run.split, dataset=args.dataset, otherwise=otherwise)
    own = {option.name: option.default for option in chosen.options}
    for scorer, option in changed:
        if option.name in own:
            continue
        if option.decides:
            raise ValueError(f"--{option.name} is for {scorer.name}, the records are scored by {chosen.name}")
        logger.warning("--%s only matters with --dataset %s; ignored", option.name, scorer.name)
    return chosen(**{name: getattr(args, name, default) for name, default in own.items()})


def denominators(run: Run) -> tuple[dict[str, Any], list[str]]:
    """Say what the figures of a run are over: how many samples, what failed, what was left out before.

    Returns:
        Content of metrics.json, and remarks.
    """
    records, dropped = len(run.predictions), run.split.dropped if run.split else None
    remarks = []
    if run.num_failed:
        remarks.append(f"{run.num_failed} of {records} samples failed; each scores 0")
    if dropped:
        reasons = ", ".join(f"{count} for {reason!r}" for reason, count in dropped.items())
        remarks.append(
            f"{sum(dropped.values())} annotations were left out before and do not count: {reasons}"
        )
    if run.split and run.split.samples != records:
        remarks.append(f"There are {records} records of the {run.split.samples} samples of the run")
    return {"records": records, "failed": run.num_failed, "dropped": dropped}, remarks


def publish(run: Run, outcome: Outcome, out_name: str) -> None:
    """Write the report, and show it."""
    text_path, json_path = _report_paths(run, out_name)
    counts, remarks = denominators(run)
    remarks += outcome.remarks
    for remark in remarks:
        logger.warning(remark)
    write_text(text_path, "".join(f"WARNING: {remark}\n" for remark in remarks) + outcome.text)
    write_text(json_path, json_text({**outcome.content, **counts}, indent=2) + "\n")
    sys.stdout.write(outcome.text)
    logger.info("Wrote %s and %s", text_path, json_path)


def submit(run: Run, scorer: Scorer) -> None:
    """Write what the benchmark's server wants, where there is one."""
    submission = scorer.submission(run.predictions, run.split.split if run.split else None)
    if submission is None:
        return
    path = run.folder / submission.file_name
    if path in run.files:
        raise ValueError(f"{path} holds the predictions: the submission would take its place, rename it")
    write_json_lines(path, submission.rows)
    logger.info("Wrote %s", path)


def _report_paths(run: Run, out_name: str) -> tuple[Path, Path]:
    """Say where the tables and the JSON go.

    Raises:
        ValueError: The name is of no file of its own.
    """
    text_path = run.folder / out_name
    json_path = text_path.with_suffix(".json")
    if text_path.parent != run.folder or text_path == json_path or {text_path, json_path} & set(run.files):
        raise ValueError(
            f"--out_name {out_name!r} must be a file name such as metrics.log; the same name with .json is "
            "written, too, and neither may be a prediction file"
        )
    return text_path, json_path


def _run(args: argparse.Namespace) -> None:
    run = read_run(args.pred_path, report_name=Path(args.out_name).with_suffix(".json").name)
    _report_paths(run, args.out_name)
    scorer = make_scorer(run, args)
    publish(run, scorer.report(run.predictions, run.origins), args.out_name)
    submit(run, scorer)
    check_failures(run.num_failed, len(run.predictions), args.max_bad_share)


def main(argv: Sequence[str] | None = None) -> int:
    """Score prediction files.

    Args:
        argv: without the program's name.

    Returns:
        The exit code: 2 for what cannot be scored, 3 if too many samples failed.
    """
    return run_command(
        lambda: build_parser().parse_args(argv), _run, exit_codes={TooManyFailedError: EXIT_CODE}
    )


if __name__ == "__main__":
    raise SystemExit(main())
