"""Answers what a command line asks: one video's questions, or the rows of a file shared among processes."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm
from transformers import set_seed

from videomind.agent.memory import at_its_smallest, unless_too_large
from videomind.device import attention, default_dtype, torch_device
from videomind.files import found_from, read_json, write_text
from videomind.logger import rank
from videomind.model.checkpoint import LoadSettings
from videomind.runs.boundary import Boundary, Fault
from videomind.runs.failures import check_failures
from videomind.runs.identity import digest_of, files_of, located
from videomind.runs.watch import MachineWatch
from videomind.runs.workers import ResultFile, in_flight, shared_order, start_processes
from videomind.video.readers import reader_name
from videomind.video_chatgpt.adapter import load_chat
from videomind.video_chatgpt.chat import (
    VIDEO_EXTENSIONS,
    FeatureSource,
    StoredFeatures,
    TowerFeatures,
    VideoChat,
)
from videomind.video_chatgpt.disk import LoadedVideoModel
from videomind.video_chatgpt.features.clip import ClipTower
from videomind.video_chatgpt.model import VideoChatGPTConfig
from videomind.video_chatgpt.options import CLIP

log = logging.getLogger(__name__)

# Arguments that a rerun may have otherwise; the files of questions count by what they ask.
CHANGES_NO_ANSWER = frozenset(
    ("output_dir", "output_name", "device", "batch_size", "num_threads", "max_bad_share", "gt_file",
     "gt_file_question", "gt_file_answers")
)  # fmt: skip
# The fields of a row that are questions, and where the answers go; the first that fits decides.
KINDS = ({"Q1": "pred1", "Q2": "pred2"}, {"Q": "pred"}, {"question": "pred"})


def read_questions(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Read what is asked, a row each.

    Raises:
        ValueError: names the file and the row.
    """
    if args.gt_file_question or args.gt_file_answers:
        return _zero_shot_rows(args.gt_file_question, args.gt_file_answers)
    if args.gt_file:
        return _checked(read_json(args.gt_file), args.gt_file)
    if not args.question:
        raise ValueError("--video_dir needs --question, or an evaluation file (--gt_file)")
    folder = Path(args.video_dir)
    names = sorted(p.name for p in folder.glob("*") if p.suffix.lower() in VIDEO_EXTENSIONS)
    if not names:
        raise ValueError(f"No videos in {folder} (--video_dir). Allowed: {', '.join(VIDEO_EXTENSIONS)}.")
    return [{"video_name": name, "Q": args.question} for name in names]


def _zero_shot_rows(questions: str | None, answers: str | None) -> list[dict[str, Any]]:
    """Match the questions and answers of two files by their order."""
    if not (questions and answers):
        raise ValueError("--gt_file_question and --gt_file_answers go together")
    asked, replies = _checked(read_json(questions), questions), read_json(answers)
    if not isinstance(replies, list) or len(replies) != len(asked):
        raise ValueError(
            f"{answers} does not hold one answer for each of the {len(asked)} rows of {questions}"
        )
    rows = []
    for number, (row, answer) in enumerate(zip(asked, replies, strict=True)):
        if not isinstance(row.get("question"), str):
            raise ValueError(f"{questions}, row {number}, has no question: {row!r}")
        if not isinstance(answer, dict) or "answer" not in answer:
            raise ValueError(f"{answers}, row {number}, has no answer: {answer!r}")
        ids = [entry.get("question_id") for entry in (row, answer)]
        if None not in ids and ids[0] != ids[1]:
            raise ValueError(f"{answers}, row {number}, is not the answer to question {ids[0]!r}")
        kept = {"video_name": row["video_name"], "id": row.get("question_id", row["video_name"])}
        rows.append({**kept, "question": row["question"], "answer": answer["answer"]})
    return rows


def _checked(rows: Any, path: str) -> list[dict[str, Any]]:
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path} holds no list of questions")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("video_name"), str) or kind_of(row) is None:
            raise ValueError(
                f"{path}, row {number}, has no video_name with Q, Q1 and Q2, or question: {row!r}"
            )
    return rows


def kind_of(row: dict[str, Any]) -> dict[str, str] | None:
    """Tell which fields of a row are questions, and where the answers go; None for a row without."""
    return next((k for k in KINDS if all(isinstance(row.get(name), str) for name in k)), None)


# ---- model ----


def load_chat_model(args: argparse.Namespace) -> LoadedVideoModel:
    """Load the model of the command line on its device."""
    device = torch_device(args.device)
    dtype = default_dtype(device.type) if args.dtype == "auto" else getattr(torch, args.dtype)
    attn = attention(args.attn_implementation, device.type, dtype)
    settings = LoadSettings(dtype=dtype, attn_implementation=attn, device=device)
    loaded = load_chat(args.model_name, args.projection_path, settings)
    loaded.model.to(device)
    return loaded


def feature_source(args: argparse.Namespace, model: torch.nn.Module) -> FeatureSource:
    """Choose stored features or the vision tower.

    Raises:
        ValueError: the tower is not one that the model was trained on.
    """
    if args.clip_feat_path:
        return StoredFeatures(Path(args.clip_feat_path))
    config: VideoChatGPTConfig = model.config
    name = args.vision_tower or found_from(args.model_name, config.mm_vision_tower) or CLIP
    tower = ClipTower.from_pretrained(name, device=model.device, dtype=model.dtype)
    rows, width = tower.shape.features
    if width != config.mm_hidden_size or config.num_video_tokens not in (None, rows):
        raise ValueError(
            f"The vision tower {name} gives features {(rows, width)}, but the model was trained on "
            f"{(config.num_video_tokens, config.mm_hidden_size)}. Choose that tower (--vision_tower)."
        )
    return TowerFeatures(tower, Path(args.video_dir) if args.video_dir else Path())


def load_videochat(args: argparse.Namespace) -> VideoChat:
    """Load what answers."""
    loaded = load_chat_model(args)
    return VideoChat(
        loaded,
        feature_source(args, loaded.model),
        mode=args.conv_mode,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
    )


# ---- runs ----


def ask_video(args: argparse.Namespace) -> None:
    """Answer questions about one video on stdout."""
    chat = load_videochat(args)
    set_seed(args.seed)
    features = chat.features(Path(args.video_path).name if args.clip_feat_path else args.video_path)
    for question in _questions(args.question):
        chat.check_length(features, question)
        sys.stdout.write(chat.answer([(features, question)])[0] + "\n")
        sys.stdout.flush()


def _questions(question: str | None) -> Iterable[str]:
    if question:
        return [question]
    if sys.stdin.isatty():
        log.info("Type a question and Enter; Ctrl-D ends")
    return (line.strip() for line in sys.stdin if line.strip())


def ask_rows(args: argparse.Namespace) -> None:
    """Answer all rows and write one JSON.

    Raises:
        ValueError: arguments or data that cannot be used.
        TooManyFailedError: more rows failed than may; the JSON is written.
    """
    if not (args.output_dir and args.output_name):
        raise ValueError("A folder or an evaluation file needs --output_dir and --output_name")
    rows = read_questions(args)
    start_processes()
    out = Path(args.output_dir) / f"{args.output_name}.json"
    results = ResultFile(out.with_suffix(".parts"), chat_identity(args, out, rows), flag="--output_name")
    pending = results.pending(range(len(rows)), failed=False)
    log.info("%d questions, %d of them answered", len(rows), len(rows) - len(pending))
    if pending:
        batches = [
            pending[start : start + args.batch_size] for start in range(0, len(pending), args.batch_size)
        ]
        answer_rows(
            load_videochat(args),
            rows,
            batches,
            results,
            seed=args.seed,
            num_threads=args.num_threads,
            watch=MachineWatch([args.clip_feat_path or args.video_dir]),
        )
    if dist.is_initialized():
        dist.barrier()
    if rank() == 0:
        check_failures(write_answers(results, out, len(rows)), len(rows), args.max_bad_share)


def chat_identity(args: argparse.Namespace, out: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collect what answers depend on: arguments, and what lies behind the paths among them.

    Args:
        args: of the command line.
        out: the file of the answers.
        rows: what is asked.
    """
    kept = {name: value for name, value in vars(args).items() if name not in CHANGES_NO_ANSWER}
    for name in ("model_name", "projection_path", "vision_tower"):  # known by their files, wherever these lie
        if kept[name] and os.path.exists(kept[name]):
            kept[name] = files_of(kept[name])
    for name in ("video_dir", "clip_feat_path"):
        kept[name] = located(getattr(args, name), out.parent) if getattr(args, name) else None
    reader = None if args.clip_feat_path else reader_name()
    return kept | {"rows": len(rows), "questions": digest_of(rows, paths=()), "video reader": reader}


@dataclass(frozen=True, kw_only=True)
class _Answering:
    """Answers rows and writes each as it is done.

    Attributes:
        chat: what answers.
        rows: all that are asked.
        results: where answers go.
    """

    chat: VideoChat
    rows: Sequence[dict[str, Any]]
    results: ResultFile

    def prepare(self, index: int) -> list[tuple[Tensor, str]]:
        """Get the features and the questions of a row.

        Raises:
            ValueError: they cannot be used.
        """
        row = self.rows[index]
        features = self.chat.features(row["video_name"])
        questions = [row[name] for name in kind_of(row)]
        for question in questions:
            self.chat.check_length(features, question)
        return [(features, question) for question in questions]

    def answer(self, asked: dict[int, list[tuple[Tensor, str]]], *, seed: int) -> None:
        """Answer prepared rows together; where that fails, one by one."""
        with Boundary(torch.OutOfMemoryError) as batch:  # of one row it may be that it is long
            answers = iter(self._texts([pair for pairs in asked.values() for pair in pairs], seed=seed))
        for index, pairs in asked.items():
            row = self.rows[index]
            if batch.error is None:
                texts = dict(zip(kind_of(row).values(), islice(answers, len(pairs)), strict=True))
                self.results.append(index, {**_kept(row), **texts})
            elif len(asked) == 1:
                self.fail(index, batch.error)
            else:
                self.answer({index: pairs}, seed=seed)

    def _texts(self, asked: Sequence[tuple[Tensor, str]], *, seed: int) -> list[str]:
        """Answer questions at once; if the device's memory is too small for that, once more one by one.

        Raises:
            OutOfMemoryError: it is too small for one of them alone.
        """

        def texts(batches: Iterable[Sequence[tuple[Tensor, str]]]) -> list[str]:
            answers = []
            for batch in batches:
                set_seed(seed)  # the same answers however far an attempt before came
                answers += self.chat.answer(batch)
            return answers

        if len(asked) > 1:
            answered = unless_too_large(lambda: texts([asked]))
            if not isinstance(answered, RuntimeError):
                return answered
            log.warning(
                "Too little memory to answer %d questions at once: once more one by one. A smaller "
                "--batch_size needs no second attempt.",
                len(asked),
            )
        return at_its_smallest(lambda: texts([pair] for pair in asked))

    def fail(self, index: int, error: Exception) -> None:
        """Write why a row has no answer."""
        row, fault = self.rows[index], Fault.of(error)
        log.warning("%s: %s", row["video_name"], fault, exc_info=None if fault.is_stated else error)
        self.results.append(index, {**_kept(row), "error": str(fault)})


def answer_rows(
    chat: VideoChat,
    rows: Sequence[dict[str, Any]],
    batches: Sequence[Sequence[int]],
    results: ResultFile,
    *,
    seed: int,
    num_threads: int,
    watch: MachineWatch | None = None,
) -> None:
    """Answer this process's share of batches of rows, and write each row as it is done.

    Args:
        chat: what answers.
        rows: all that are asked.
        batches: places of rows that are answered together.
        results: where answers go.
        seed: of sampling.
        num_threads: that read ahead.
        watch: tells the machine's fault from rows'; by default without a folder.

    Raises:
        RunError: it is the machine's fault that rows fail.
    """
    watch = watch or MachineWatch()
    answering = _Answering(chat=chat, rows=rows, results=results)

    def steps(number: int) -> Generator[list[str], None, int]:
        indices = batches[number]
        yield [rows[index]["video_name"] for index in indices]
        asked: dict[int, list[tuple[Tensor, str]]] = {}
        for index in indices:
            with Boundary() as row:
                asked[index] = answering.prepare(index)
            watch.see(row.error)
            if row.error is not None:
                answering.fail(index, row.error)
        if asked:
            answering.answer(asked, seed=seed + indices[0])  # the same answers after a kill
        return len(indices)

    order = shared_order(len(batches))
    ended = in_flight(order, steps, chat.read_ahead, num_threads=num_threads)
    for number, outcome in tqdm(ended, total=len(batches), disable=rank() != 0):
        for index in batches[number] if isinstance(outcome, Exception) else ():
            answering.fail(index, outcome)


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    """Keep what of a row goes to the output; a zero-shot one is known by its id alone, as published."""
    return {name: value for name, value in row.items() if "question" not in row or name != "video_name"}


def write_answers(results: ResultFile, out: Path, count: int) -> int:
    """Write all rows in order, those that failed with their reason.

    Args:
        results: of the run.
        out: the file to write.
        count: of rows.

    Returns:
        How many failed.
    """
    rows = results.complete(count)
    write_text(out, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    failed = sum("error" in row for row in rows)
    log.info("Wrote %s: %d answered, %d failed (their rows say why)", out, count - failed, failed)
    return failed
