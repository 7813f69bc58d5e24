"""Predicts a data set or one video: what `videomind infer` does once its arguments are parsed."""

import argparse
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from videomind.agent.agent import VideoMind, video_annotation
from videomind.agent.chain import Chain, annotation_fields
from videomind.agent.finite import NotFiniteError
from videomind.agent.options import ROLE_FLAGS, role_paths
from videomind.agent.pipeline import prepare_all
from videomind.agent.samples import ChainSettings, should_answer
from videomind.dataset.base import Source
from videomind.dataset.parts import open_source
from videomind.dataset.schema import Annotation
from videomind.eval.scorer import get_scorer, spec_of
from videomind.faults import RunError
from videomind.files import read_json_lines, write_json_lines
from videomind.logger import rank
from videomind.model.checkpoint import model_folders
from videomind.model.grounding_head import check_frames
from videomind.prediction import RESULT, PredictedSplit, Prediction
from videomind.roles import BudgetOverride
from videomind.runs.boundary import Fault
from videomind.runs.failures import check_failures
from videomind.runs.identity import digest_of, files_of, located
from videomind.runs.watch import MachineWatch, common_folder
from videomind.runs.workers import ResultFile, in_flight, shared_order, start_processes
from videomind.video.readers import reader_name

log = logging.getLogger(__name__)

VIDEO_UNIT_S = 0.1  # grid of predictions on a single video
# Arguments that a rerun may have otherwise.
_CHANGES_NO_RESULT = frozenset(
    ("video", "query", "question", "options", "pred_path", "device", "num_threads",
     "retry_failed", "max_bad_share", "chunk", "index")
)  # fmt: skip
NOT_FINITE_IN_A_ROW = 8  # samples: then it is the model, not they
# Of the machine's errors this one ends a sample and not the run: a long one may be too much for the device.
TOO_LARGE = torch.OutOfMemoryError


def load_agent(
    args: argparse.Namespace, annotations: Sequence[Annotation], settings: ChainSettings
) -> VideoMind:
    """Load the model of the command line.

    Args:
        args: of the command line.
        annotations: all that the run is about.
        settings: how its chain runs.

    Raises:
        ValueError: it is not there, or the grounder could not see as many frames as are to be shown.
    """
    answers = any(should_answer(anno, settings) for anno in annotations)
    agent = VideoMind.from_pretrained(
        roles=role_paths(args),
        base_path=args.base_model_path,
        device=args.device,
        dtype=args.dtype,
        attn_implementation=args.attn_implementation,
        max_new_tokens=args.max_new_tokens,
        fold_adapter=args.merge == "auto" and is_of_one_role(role_paths(args), answers=answers),
    )
    if agent.pipeline.has("grounder") and args.max_frames is not None:
        check_frames(args.max_frames, agent.pipeline.processor.backbone.units.frames_per_step)
    return agent


def is_of_one_role(roles: Collection[str], *, answers: bool) -> bool:
    """Tell whether one adapter is all that a run needs; where it has no answerer's the base answers.

    Args:
        roles: that have a checkpoint.
        answers: whether there is a question to answer.
    """
    return len(roles) == 1 and (not answers or "answerer" in roles)


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
        budget=BudgetOverride.of_arguments(args),
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
        predict(load_agent(args, annotations, settings), annotations, pending, settings, results, args)
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
        watch=MachineWatch([common_folder(anno.video_path for anno in annotations)]),
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
        results.append(pending[position], prediction.line())
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
    settings = replace(chain_settings(args), open_ended=True)
    anno = video_annotation(args.video, args.question, options=args.options, query=args.query)
    agent = load_agent(args, [anno], settings)
    if args.use_subtitle:
        warn_of_missing_subtitles([anno])
    result = agent.ask(anno, settings)
    write_json_lines(Path(args.pred_path) / RESULT, [result.prediction(anno).line()])
    if result.candidates:
        best = ", ".join(f"{c.span[0]:.1f}-{c.span[1]:.1f} s ({c.score:.2f})" for c in result.candidates[:3])
        log.info("%s: %s", result.query, best)
    if result.answer is not None:
        log.info("%s %s", anno.question, result.answer)
    log.info("Wrote %s", Path(args.pred_path) / RESULT)
