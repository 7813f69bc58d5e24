"""Runs a model over a data set, or over one video, and writes predictions.

`python -m videomind.eval.infer --dataset charades_sta --model_gnd_path PATH --pred_path OUT`, alone or
under torchrun. A rerun continues where the last one ended.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from tqdm import tqdm

from videomind.dataset.encoding import BadSampleError, Encoder
from videomind.dataset.parts import open_source
from videomind.dataset.phrases import clean_query
from videomind.dataset.schema import Annotation
from videomind.dataset.video import BadVideoError, video_duration
from videomind.device import attention, default_dtype, detect, prepare_process, torch_device
from videomind.eval.pipeline import (
    MAX_NEW_TOKENS,
    Pipeline,
    Prepared,
    grounder_sample,
    grounding_query,
    prepare,
)
from videomind.eval.workers import RESULT, ResultFile, prepared_ahead, shared_order, start_processes
from videomind.files import write_text
from videomind.logger import rank, run_reporting, setup_logging
from videomind.model.checkpoint import LoadSettings, load_model
from videomind.roles import VisualBudget, budget_override, get_role

log = logging.getLogger(__name__)

SUBMISSION = "hl_{split}_submission.jsonl"


def build_parser() -> argparse.ArgumentParser:
    """The command line of inference."""
    parser = argparse.ArgumentParser(prog="videomind infer", description=__doc__)
    what = parser.add_argument_group("what to run on (a data set, or one video)")
    what.add_argument("--dataset", help="registered name, or a .jsonl file of your own")
    what.add_argument("--split", help="default: the one that the data set is evaluated on")
    what.add_argument("--data_root", default="data", help="folder of all data sets")
    what.add_argument("--video", help="one video file instead of a data set")
    what.add_argument("--query", help="what to find in it")
    model = parser.add_argument_group("model")
    model.add_argument("--model_gnd_path", required=True, help="role checkpoint with a grounder")
    model.add_argument("--base_model_path", help="base model, instead of the one the checkpoint names")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda:0, npu:0, ...")
    model.add_argument("--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"))
    model.add_argument("--attn_implementation", default="auto")
    model.add_argument("--max_new_tokens", type=int, default=MAX_NEW_TOKENS)
    seen = parser.add_argument_group("how finely videos are seen (default: the role's budget)")
    seen.add_argument("--min_tokens_per_frame", type=int)
    seen.add_argument("--max_tokens_per_frame", type=int)
    seen.add_argument("--max_frames", type=int)
    seen.add_argument("--fps", type=float)
    out = parser.add_argument_group("output")
    out.add_argument("--pred_path", required=True, help="folder for the predictions")
    out.add_argument("--num_threads", type=int, default=2, help="threads that decode ahead of the model")
    return parser


def load_pipeline(args: argparse.Namespace) -> Pipeline:
    """The model of the command line, ready to ground."""
    device = torch_device(args.device)
    dtype = default_dtype(device.type) if args.dtype == "auto" else getattr(torch, args.dtype)
    settings = LoadSettings(
        dtype=dtype,
        attn_implementation=attention(args.attn_implementation, device.type, dtype),
        base_path=args.base_model_path,
    )
    loaded = load_model(args.model_gnd_path, settings, roles=["grounder"])
    return Pipeline(loaded.model.to(device), loaded.processor, max_new_tokens=args.max_new_tokens)


def visual_budget(args: argparse.Namespace) -> VisualBudget | None:
    """The grounder's budget with the command line's changes; None without any."""
    return budget_override(
        get_role("grounder"),
        min_tokens=args.min_tokens_per_frame,
        max_tokens=args.max_tokens_per_frame,
        max_frames=args.max_frames,
        fps=args.fps,
    )


def ground_record(pipeline: Pipeline, anno: Annotation, prepared: Prepared, unit_s: float) -> dict:
    """Run the grounder on one sample: the annotation's fields and what was found."""
    duration = anno.duration or video_duration(anno.video_path)
    result = pipeline.ground(prepared)
    windows, scores = result.windows(duration, unit_s)
    return {
        **anno.to_dict(),
        "duration": duration,
        "agents": ["grounder"],
        "grounder_response": result.response,
        "grounder_success": result.success,
        "pred": windows,
        "conf": scores,
    }


def submission_row(record: dict) -> dict:
    """A QVHighlights submission line; without a moment the whole video is submitted, with score 1."""
    scores = record["conf"] if record["grounder_success"] else [1.0]
    windows = [[*window, score] for window, score in zip(record["pred"], scores, strict=True)]
    return {"vid": record["vid"], "qid": record["qid"], "pred_relevant_windows": windows}


def run_dataset(args: argparse.Namespace) -> int:
    """Predict a whole split. Returns: how many samples failed."""
    source = open_source(args.dataset, args.data_root)
    split = source.resolve_split(args.split or source.eval_split)
    loaded = source.load(split)
    annotations = loaded.annotations
    for reason, count in loaded.dropped.items():
        log.warning("%s %s: %d annotations left out: %s", args.dataset, split, count, reason)
    source.check_videos()
    start_processes()
    kept = ("dataset", "model_gnd_path", "min_tokens_per_frame", "max_tokens_per_frame", "max_frames", "fps")
    settings = {name: getattr(args, name) for name in kept} | {"split": split, "samples": len(annotations)}
    results = ResultFile(args.pred_path, settings)
    done = results.done()
    pending = [i for i in range(len(annotations)) if i not in done]
    if dist.is_initialized():
        dist.barrier()  # every process has read what is done before one writes more
    log.info("%s %s: %d samples, %d of them done", args.dataset, split, len(annotations), len(done))
    if pending:
        pipeline, budget = load_pipeline(args), visual_budget(args)
        encoder = Encoder(pipeline.processor)

        def make(position: int) -> Prepared:
            anno = annotations[pending[position]]
            return prepare(grounder_sample(anno.video_path, grounding_query(anno), budget), encoder)

        order = prepared_ahead(shared_order(len(pending)), make, args.num_threads)
        for position, get in tqdm(order, total=len(pending), disable=rank() != 0, desc=args.dataset):
            anno = annotations[pending[position]]
            try:
                record = ground_record(pipeline, anno, get(), source.unit_s)
            except (BadVideoError, BadSampleError) as error:
                log.warning("%s: %s", anno.video_path, error)
                record = {**anno.to_dict(), "error": str(error), "grounder_success": False}
            results.append(pending[position], record)
    if dist.is_initialized():
        dist.barrier()
    return finish(results, len(annotations), split) if rank() == 0 else 0


def finish(results: ResultFile, count: int, split: str) -> int:
    """Merge the parts, write a QVHighlights submission where there are its keys, report failures."""
    path = results.merge(count)
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    failed = [record for record in records if "error" in record]
    if records and all("qid" in record and "vid" in record for record in records):
        name = SUBMISSION.format(split={"valid": "val"}.get(split, split))
        rows = [submission_row(record) for record in records if "error" not in record]
        write_text(path.parent / name, "".join(json.dumps(row) + "\n" for row in rows))
        log.info("Wrote %s", path.parent / name)
    log.info("Wrote %s: %d predictions, %d failed", path, len(records) - len(failed), len(failed))
    return len(failed)


def run_video(args: argparse.Namespace) -> int:
    """Find one query in one video. Raises: ValueError when the video cannot be read."""
    if not args.query:
        raise ValueError("--video needs --query, what to find in it")
    pipeline = load_pipeline(args)
    anno = Annotation(source="video", video_path=args.video, query=clean_query(args.query))
    sample = grounder_sample(args.video, anno.query, visual_budget(args))
    record = ground_record(pipeline, anno, prepare(sample, Encoder(pipeline.processor)), unit_s=0.1)
    write_text(Path(args.pred_path) / RESULT, json.dumps(record, ensure_ascii=False) + "\n")
    best = zip(record["pred"][:3], record["conf"][:3], strict=True)
    found = ", ".join(f"{start:.1f}-{end:.1f} s ({score:.2f})" for (start, end), score in best)
    log.info("%s: %s. Wrote %s", args.query, found, Path(args.pred_path) / RESULT)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command-line entry. Returns the exit code: 2 for arguments or data that cannot be used."""
    args = build_parser().parse_args(argv)
    setup_logging(Path(args.pred_path) / "infer.log")
    return run_reporting(log, lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Predict what the command line names. Raises: ValueError for arguments or data that cannot be used."""
    prepare_process(detect())
    if bool(args.dataset) == bool(args.video):
        raise ValueError("Give either --dataset or --video")
    (run_dataset if args.dataset else run_video)(args)


if __name__ == "__main__":
    sys.exit(main())
