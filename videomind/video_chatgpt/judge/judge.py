"""Scores predictions of Video-ChatGPT with a judge: one reply per prediction, then means.

    videomind judge --criterion correctness --pred_path pred.json --output_dir replies --output_json all.json
        [--judge URL|exact|keywords] [--judge_model NAME] [--api_key KEY] [--num_tasks 4]

Each reply is written at once to `<output_dir>/<key>.json`; a rerun asks only for what is missing.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from videomind.endpoint import KEY_VARIABLE, Endpoint, EndpointError
from videomind.files import write_text
from videomind.logger import run_command
from videomind.roles import nearest
from videomind.video_chatgpt.judge.criteria import (
    CRITERIA,
    AnsweredRow,
    Criterion,
    Unscored,
    read_answered_rows,
)
from videomind.video_chatgpt.judge.judges import LOCAL_JUDGES, Judge, endpoint_judge
from videomind.video_chatgpt.judge.replies import Judged, ReplyError, ReplyFolder, parse_reply, summarize

log = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
PUBLISHED_MODEL = "gpt-3.5-turbo"  # that judged the published numbers
ATTEMPTS = 3
PAUSE_S = 2.0  # before the second attempt at an endpoint that does not answer, twice that before the third
TRIALS = 3  # questions that may go unanswered before an endpoint counts as wrong


def ask(judge: Judge, criterion: Criterion, prediction: AnsweredRow) -> Judged:
    """Ask for one reply, at most three times.

    Raises:
        ReplyError: the last one could not be used.
        EndpointError: the last time there was none.
    """
    attempt = 1
    while True:
        try:
            reply = parse_reply(judge(criterion, prediction.fields), criterion)
            return Judged(prediction=prediction, reply=reply)
        except (ReplyError, EndpointError) as error:
            if attempt == ATTEMPTS:
                raise
            if isinstance(error, EndpointError):
                time.sleep(PAUSE_S * attempt)
            attempt += 1


def collect(
    predictions: Sequence[AnsweredRow],
    judge: Judge,
    criterion: Criterion,
    folder: ReplyFolder,
    *,
    num_tasks: int,
) -> tuple[list[Judged], list[Unscored]]:
    """Judge what has no reply yet, and store each reply at once.

    Args:
        predictions: all of them.
        judge: who is asked.
        criterion: for what.
        folder: of the replies.
        num_tasks: how many are asked for at a time.

    Returns:
        The judged ones in the order of the predictions, and the failures.

    Raises:
        EndpointError: there is no reply yet and the first few get none; then the address or the key is wrong.
    """
    stored = [folder.read(prediction) for prediction in predictions]
    replied = {judged.prediction.key: judged for judged in stored if judged is not None}
    pending = [prediction for prediction in predictions if prediction.key not in replied]
    log.info("%d of %d predictions have a reply", len(replied), len(predictions))
    failures = []
    trials = 0 if replied else TRIALS
    outcomes = _ask_all(pending, judge, criterion, num_tasks=num_tasks, trials=trials)
    for prediction, outcome in tqdm(outcomes, total=len(pending), desc=criterion.name):
        if isinstance(outcome, Judged):
            folder.write(outcome)
            replied[prediction.key] = outcome
        else:
            failures.append(
                Unscored(key=prediction.key, reason=str(outcome), reply=getattr(outcome, "reply", None))
            )
            log.warning("%s has no score: %s", prediction.key, outcome)
    return [replied[p.key] for p in predictions if p.key in replied], failures


def _ask_all(
    pending: Sequence[AnsweredRow], judge: Judge, criterion: Criterion, *, num_tasks: int, trials: int
) -> Iterator[tuple[AnsweredRow, Judged | ReplyError | EndpointError]]:
    """Ask for each prediction.

    Args:
        pending: predictions without a reply.
        judge: who is asked.
        criterion: for what.
        num_tasks: how many are asked for at a time.
        trials: how many are asked for one by one first.

    Yields:
        A prediction with its outcome, as they come.

    Raises:
        EndpointError: none of the first is answered.
    """

    def outcome(prediction: AnsweredRow) -> Judged | ReplyError | EndpointError:
        try:
            return ask(judge, criterion, prediction)
        except (ReplyError, EndpointError) as error:
            return error

    unanswered = 0
    for prediction in pending[:trials]:
        first = outcome(prediction)
        unanswered += isinstance(first, EndpointError)
        if unanswered == trials:
            raise first  # nobody waits hours for a wrong key
        yield prediction, first
    pool = ThreadPoolExecutor(num_tasks)
    try:
        asked = {pool.submit(outcome, prediction): prediction for prediction in pending[trials:]}
        for future in as_completed(asked):
            yield asked[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption does not wait for all that is queued


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        prog="videomind judge", description="Score predictions of Video-ChatGPT with a judge."
    )
    parser.add_argument("--criterion", required=True, choices=list(CRITERIA), help="what is judged")
    parser.add_argument("--pred_path", required=True, help="predictions, a .json list")
    parser.add_argument("--output_dir", required=True, help="folder for the replies, one file each")
    parser.add_argument("--output_json", required=True, help="file for all of them; metrics lie beside it")
    parser.add_argument(
        "--judge", default=OPENAI_URL, help="OpenAI-compatible URL (with /v1), or a rule: exact, keywords"
    )
    parser.add_argument("--judge_model", default=PUBLISHED_MODEL, help="the model behind the URL")
    parser.add_argument("--api_key", help=f"its key; default: the variable {KEY_VARIABLE}")
    parser.add_argument("--num_tasks", type=int, default=4, help="how many are asked for at a time")
    return parser


def choose_judge(args: argparse.Namespace) -> tuple[str, Judge]:
    """Choose the judge: a rule, or a model behind a URL.

    Returns:
        Its name and itself.

    Raises:
        ValueError: there is no such judge, or no key where one is needed.
    """
    if args.judge in LOCAL_JUDGES:
        return args.judge, LOCAL_JUDGES[args.judge]
    if "://" not in args.judge:
        raise ValueError(f"--judge {args.judge!r} is no URL. {nearest(args.judge, LOCAL_JUDGES)}")
    if args.judge == OPENAI_URL and not (args.api_key or os.environ.get(KEY_VARIABLE)):
        raise ValueError(f"{OPENAI_URL} needs a key: --api_key, or the variable {KEY_VARIABLE}")
    return args.judge_model, endpoint_judge(Endpoint(args.judge, args.judge_model, api_key=args.api_key))


def run(args: argparse.Namespace) -> None:
    """Score what the command line names.

    Raises:
        ValueError: arguments or data that cannot be used.
    """
    if args.num_tasks < 1:
        raise ValueError(f"--num_tasks must be at least 1, not {args.num_tasks}")
    criterion = CRITERIA[args.criterion]
    predictions, unpredicted = read_answered_rows(args.pred_path, criterion)
    name, judge = choose_judge(args)
    folder = ReplyFolder(args.output_dir, criterion, name)
    judged, failed = collect(predictions, judge, criterion, folder, num_tasks=args.num_tasks)
    combined = {item.prediction.key: item.stored for item in judged}
    write_text(args.output_json, json.dumps(combined, indent=2))
    summary = summarize(judged, [*unpredicted, *failed], criterion)
    metrics = Path(args.output_json).with_suffix(".metrics.json")
    write_text(metrics, json.dumps(asdict(summary), indent=2))
    if not judged:
        raise ValueError(f"None of {len(summary.failed)} predictions has a score: {summary.failed[0].reason}")
    if summary.failed:
        log.warning(
            "%d of %d predictions have no score; the reasons are in %s, a rerun asks for them again",
            len(summary.failed), len(summary.failed) + summary.scored, metrics,
        )  # fmt: skip
    sys.stdout.write("\n".join(summary.lines()) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 2 for arguments or data that cannot be used.
    """
    return run_command(lambda: build_parser().parse_args(argv), run)


if __name__ == "__main__":
    sys.exit(main())
