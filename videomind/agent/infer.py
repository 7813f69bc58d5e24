"""Runs the chain of roles over a data set, or over one video, and writes predictions.

`python -m videomind.agent.infer --dataset nextgqa --model_gnd_path PATH --pred_path OUT`, alone or under
torchrun. A rerun continues where the last one ended.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from videomind.agent.agent import VideoMind, video_annotation
from videomind.agent.chain import Chain, annotation_fields
from videomind.agent.pipeline import MAX_NEW_TOKENS, NotFiniteError, prepare_all
from videomind.agent.samples import STYLES, ChainSettings
from videomind.dataset.base import Source
from videomind.dataset.parts import open_source
from videomind.dataset.schema import Annotation
from videomind.eval.scorer import get_scorer, spec_of
from videomind.faults import RunError
from videomind.files import read_json_lines, write_json_lines
from videomind.logger import rank, run_command
from videomind.model.checkpoint import model_folders
from videomind.prediction import PredictedSplit, Prediction
from videomind.roles import BudgetOverride
from videomind.runs.boundary import Fault
from videomind.runs.failures import EXIT_CODE, TooManyFailedError, add_max_bad_share, check_failures
from videomind.runs.identity import digest_of, files_of, located
from videomind.runs.workers import RESULT, ResultFile, in_flight, shared_order, start_processes
from videomind.video.reader import ON_DAMAGE, USE
from videomind.video.readers import reader_name

log = logging.getLogger(__name__)

ROLE_FLAGS = {"grounder": "gnd", "verifier": "ver", "planner": "pla", "answerer": "ans"}
# What only some role does: an option to the role without which it would have no effect.
NEEDED_ROLE = {"auto_planning": "planner", "auto_rephrasing": "planner", "verify_query": "verifier"}
VIDEO_UNIT_S = 0.1  # grid of predictions on a single video
# Arguments that a rerun may have otherwise.
_CHANGES_NO_RESULT = frozenset(
    ("video", "query", "question", "options", "pred_path", "device", "num_threads",
     "retry_failed", "max_bad_share", "chunk", "index")
)  # fmt: skip
NOT_FINITE_IN_A_ROW = 8  # samples: then it is the model, not they
# Of the machine's errors this one ends a sample and not the run: a long one may be too much for the device.
TOO_LARGE = torch.OutOfMemoryError


def build_parser() -> argparse.ArgumentParser:
    """Make the command line of inference."""
    parser = argparse.ArgumentParser(prog="videomind infer", description=__doc__)
    what = parser.add_argument_group("what to run on (a data set, or one video)")
    what.add_argument("--dataset", help="registered name, or a .jsonl file of your own")
    what.add_argument("--split", help="default: the one that the data set is evaluated on")
    what.add_argument("--data_root", default="data", help="folder of all data sets")
    what.add_argument("--video", help="one video file instead of a data set")
    what.add_argument("--query", help="what to find in it")
    what.add_argument("--question", help="what to answer about it")
    what.add_argument("--options", nargs="+", help="what the answer is chosen from")
    model = parser.add_argument_group(
        "model: role checkpoints, folders or hub ids; the same one may hold several"
    )
    for role, short in ROLE_FLAGS.items():
        model.add_argument(f"--model_{short}_path", help=f"the {role}'s")
    model.add_argument("--base_model_path", help="base model, instead of the one the checkpoints name")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda:0, npu:0, ..., or all to spread it")
    model.add_argument("--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"))
    model.add_argument("--attn_implementation", default="auto")
    model.add_argument("--max_new_tokens", type=int, default=MAX_NEW_TOKENS)
    how = parser.add_argument_group("the chain")
    how.add_argument("--style", default="mcq", choices=STYLES, help="how options are asked for")
    how.add_argument(
        "--use_subtitle", action="store_true", help="the answerer reads the subtitles of what it sees"
    )
    how.add_argument("--auto_rephrasing", action="store_true", help="ground the planner's query")
    how.add_argument("--auto_planning", action="store_true", help="a plan may skip grounding")
    how.add_argument("--verify_query", action="store_true", help="judge by the query, not the question")
    seen = parser.add_argument_group("how finely videos are seen (default: the roles' budgets)")
    seen.add_argument("--min_tokens_per_frame", type=int)
    seen.add_argument("--max_tokens_per_frame", type=int)
    seen.add_argument("--max_frames", type=int)
    seen.add_argument("--fps", type=float)
    out = parser.add_argument_group("output")
    out.add_argument("--pred_path", required=True, help="folder for the predictions")
    out.add_argument("--num_threads", type=int, default=2, help="threads that decode ahead of the model")
    out.add_argument(
        "--retry_failed", action="store_true", help="do again what an earlier run recorded as failed"
    )
    add_max_bad_share(out)
    out.add_argument(
        "--on_damage",
        default=USE,
        choices=ON_DAMAGE,
        help="use a damaged video and record what is wrong with it, or skip the sample as failed",
    )
    out.add_argument("--chunk", type=int, default=1, help="number of runs that share the work by hand")
    out.add_argument("--index", type=int, default=0, help="which of them this is, from 0")
    return parser


def role_paths(args: argparse.Namespace) -> dict[str, str]:
    """Collect the checkpoints of the command line by role."""
    paths = {role: getattr(args, f"model_{short}_path") for role, short in ROLE_FLAGS.items()}
    return {role: path for role, path in paths.items() if path}


def load_agent(args: argparse.Namespace) -> VideoMind:
    """Load the model of the command line."""
    return VideoMind.from_pretrained(
        roles=role_paths(args),
        base_path=args.base_model_path,
        device=args.device,
        dtype=args.dtype,
        attn_implementation=args.attn_implementation,
        max_new_tokens=args.max_new_tokens,
    )


def check_roles(args: argparse.Namespace) -> None:
    """Refuse an option that needs a role which does not run.

    Raises:
        ValueError: names both.
    """
    for option, role in NEEDED_ROLE.items():
        flag = f"model_{ROLE_FLAGS[role]}_path"
        if getattr(args, option) and not getattr(args, flag):
            raise ValueError(f"--{option} needs a {role}: give --{flag}, which may be another role's too")


def warn_of_missing_subtitles(annotations: Sequence[Annotation]) -> None:
    """Say for how many samples there is nothing that --use_subtitle could show."""
    paths = {anno.subtitle_path for anno in annotations if anno.subtitle_path}
    there = {path for path in paths if Path(path).is_file()}
    missing = sum(anno.subtitle_path not in there for anno in annotations)
    if missing:
        effect = " and has no effect" if missing == len(annotations) else ""
        log.warning(
            "--use_subtitle finds no subtitle file for %d of %d samples%s", missing, len(annotations), effect
        )


def chain_settings(args: argparse.Namespace, source: Source | None = None) -> ChainSettings:
    """Decide how the chain runs on a source, or on a single video."""
    of_source = {"unit_s": VIDEO_UNIT_S}
    if source is not None:
        of_source = {
            name: getattr(source, name) for name in ("unit_s", "min_len_s", "min_ratio", "answer_budget")
        }
    return ChainSettings(
        style=args.style,
        planning=args.auto_planning,
        rephrasing=args.auto_rephrasing,
        use_subtitle=args.use_subtitle,
        verify_query=args.verify_query,
        budget=BudgetOverride(
            min_tokens=args.min_tokens_per_frame,
            max_tokens=args.max_tokens_per_frame,
            max_frames=args.max_frames,
            fps=args.fps,
        ),
        **of_source,
    )


def run_dataset(args: argparse.Namespace) -> None:
    """Predict a whole split.

    Raises:
        TooManyFailedError: more samples failed than may; all of them have their records.
    """
    source = open_source(args.dataset, args.data_root)
    split = source.resolve_split(args.split or source.eval_split)
    loaded = source.to_predict(split)
    annotations = loaded.annotations
    for finding in loaded.findings():
        log.warning("%s %s: %s", args.dataset, split, finding)
    source.check_videos()
    if args.use_subtitle and rank() == 0:
        warn_of_missing_subtitles(annotations)
    predicted = PredictedSplit(
        dataset=args.dataset,
        split=split,
        scorer=spec_of(get_scorer(source.scorer)),
        samples=len(annotations),
        dropped=loaded.skipped,
    )
    settings = chain_settings(args, source)
    start_processes()
    results = ResultFile(args.pred_path, agent_identity(args, split, annotations), part=args.index)
    if rank() == 0:
        predicted.write(results.folder)
    share = range(args.index, len(annotations), args.chunk)
    pending = results.pending(share, failed=not args.retry_failed)
    done = len(share) - len(pending)
    log.info("%s %s: %d samples, %d of them done", args.dataset, split, len(share), done)
    if pending:
        predict(load_agent(args), annotations, pending, settings, results, args)
    if dist.is_initialized():
        dist.barrier()
    if rank() == 0:
        failed = merge_parts(results, len(annotations), is_alone=args.chunk == 1)
        check_failures(failed, len(annotations), args.max_bad_share)


def agent_identity(args: argparse.Namespace, split: str, annotations: Sequence[Annotation]) -> dict[str, Any]:
    """Collect what predictions depend on: arguments, and what lies behind the paths among them.

    Args:
        args: of the command line.
        split: the one that is predicted.
        annotations: its samples.

    Raises:
        ValueError: a model is not there.
    """
    kept = {name: value for name, value in vars(args).items() if name not in _CHANGES_NO_RESULT}
    roots, described = [args.data_root], cache(files_of)  # roles mostly share a folder, and a base
    if os.path.isfile(args.dataset):
        kept["dataset"] = located(args.dataset, args.pred_path)
        roots.append(os.path.dirname(args.dataset))
    for role, path in role_paths(args).items():  # known by their files, wherever these lie
        folder, *base = model_folders(path, args.base_model_path, what=f"checkpoint of the {role}")
        kept |= {f"model_{ROLE_FLAGS[role]}_path": described(folder)}
        kept |= {f"base of the {role}": described(folder) for folder in base}
    if args.base_model_path:
        kept["base_model_path"] = files_of(*model_folders(args.base_model_path))
    rows = (anno.to_dict() for anno in annotations)
    return kept | {
        "split": split,
        "samples": len(annotations),
        "data_root": located(args.data_root, args.pred_path),
        "annotations": digest_of(rows, paths=("video_path", "subtitle_path"), roots=roots),
        "video reader": reader_name(),
    }


def predict(
    agent: VideoMind,
    annotations: Sequence[Annotation],
    pending: Sequence[int],
    settings: ChainSettings,
    results: ResultFile,
    args: argparse.Namespace,
) -> None:
    """Run the chain on this process's share of what is pending, and write each sample as it is done."""

    def start(position: int) -> Chain:
        return agent.chain(annotations[pending[position]], settings)

    ended = in_flight(
        shared_order(len(pending)),
        start,
        partial(prepare_all, encoder=agent.encoder, on_damage=args.on_damage),
        num_threads=args.num_threads,
        also=(TOO_LARGE,),
    )
    in_a_row = 0  # that no number came out of
    for position, outcome in tqdm(ended, total=len(pending), disable=rank() != 0, desc=args.dataset):
        anno = annotations[pending[position]]
        if isinstance(outcome, Exception):
            fault = Fault.of(outcome)
            log.warning("%s: %s", anno.video_path, fault, exc_info=None if fault.is_stated else outcome)
            prediction = Prediction(
                annotation=annotation_fields(anno), error=str(fault), grounder_success=False
            )
        else:
            prediction = outcome.prediction(anno)
        results.append(pending[position], prediction.to_json())
        in_a_row = in_a_row + 1 if isinstance(outcome, NotFiniteError) else 0
        if in_a_row == NOT_FINITE_IN_A_ROW:
            raise RunError(f"{in_a_row} samples in a row failed, the last one: {outcome}")


def merge_parts(results: ResultFile, count: int, *, is_alone: bool) -> int:
    """Merge the parts of all processes; only the first one does.

    With several runs by hand (`--chunk`) the last one to end does so.

    Args:
        results: of this run.
        count: of samples.
        is_alone: whether no other run shares the work.

    Returns:
        How many samples failed.
    """
    if not is_alone and (missing := count - len(results.done())):
        log.info("Other runs (--chunk) have %d of the %d samples to do", missing, count)
        return 0
    path = results.merge(count)
    written = [Prediction.from_json(row) for _, row in read_json_lines(path)]
    failed = sum(prediction.error is not None for prediction in written)
    if damaged := sum(prediction.video_problems is not None for prediction in written):
        log.warning("%d predictions are of videos with problems, see video_problems in their lines", damaged)
    log.info("Wrote %s: %d predictions, %d failed%s", path, count - failed, failed,
             " (--retry_failed does them again)" if failed else "")  # fmt: skip
    return failed


def run_video(args: argparse.Namespace) -> None:
    """Answer a question about one video, or find a query in it.

    Raises:
        ValueError: nothing is asked, or the video cannot be used.
    """
    if not (args.query or args.question):
        raise ValueError("--video needs --query, what to find in it, or --question, what to answer")
    agent = load_agent(args)
    settings = replace(chain_settings(args), open_ended=True)
    anno = video_annotation(args.video, args.question, options=args.options, query=args.query)
    if args.use_subtitle:
        warn_of_missing_subtitles([anno])
    result = agent.ask(anno, settings)
    write_json_lines(Path(args.pred_path) / RESULT, [result.prediction(anno).to_json()])
    if result.candidates:
        best = ", ".join(f"{c.span[0]:.1f}-{c.span[1]:.1f} s ({c.score:.2f})" for c in result.candidates[:3])
        log.info("%s: %s", result.query, best)
    if result.answer is not None:
        log.info("%s %s", anno.question, result.answer)
    log.info("Wrote %s", Path(args.pred_path) / RESULT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 2 for arguments or data that cannot be used, 3 if too many samples failed.
    """
    return run_command(
        lambda: build_parser().parse_args(argv),
        run,
        log_file=lambda args: Path(args.pred_path) / "infer.log",
        exit_codes={TooManyFailedError: EXIT_CODE},
        shares_work=True,
    )


def run(args: argparse.Namespace) -> None:
    """Predict what the command line names.

    Raises:
        ValueError: arguments or data cannot be used.
        TooManyFailedError: more samples failed than may.
    """
    if not 0 <= args.index < args.chunk:
        raise ValueError(f"--index {args.index} is not one of --chunk {args.chunk} (0 to {args.chunk - 1})")
    if bool(args.dataset) == bool(args.video):
        raise ValueError("Give either --dataset or --video")
    check_roles(args)
    (run_dataset if args.dataset else run_video)(args)


if __name__ == "__main__":
    sys.exit(main())
