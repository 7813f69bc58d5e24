"""Video instructions as a training set: rows of a JSON file, with the features of their videos.

A row is `{"id": ..., "video": "name.pkl", "conversations": [{"from": "human", "value": ...}, {"from": "gpt",
...}, ...]}`; without `video` it is text alone. B batch, L tokens, N rows of a video's features, C their
width.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from videomind.dataset.schema import VIDEO
from videomind.encoding.encoder import IGNORE_INDEX, BadSampleError
from videomind.encoding.text import template
from videomind.files import read_json
from videomind.logger import rank
from videomind.runs.boundary import Boundary
from videomind.runs.watch import MachineWatch
from videomind.train.mixture import BadSample, Draw, Hopeless, first_good
from videomind.video_chatgpt.features.store import find_features, read_features
from videomind.video_chatgpt.vicuna import Labelled, VideoBlock, label, training_pieces


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One row.

    Attributes:
        name: its id.
        video: the name of its features; None for text alone.
        turns: of `from` (human or gpt) and `value`.
    """

    name: str
    video: str | None
    turns: Sequence[Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class InstructionItem:
    """One element of a batch.

    Attributes:
        tokens: with labels.
        features: (N, C), or None without a video.
        bad: samples whose place it took.
    """

    tokens: Labelled
    features: Tensor | None
    bad: list[BadSample]


class InstructionBatch(TypedDict, total=False):
    """Model inputs of a micro-batch; see `collate`. `bad_samples` is for the trainer, not the model."""

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    video_features: Tensor
    bad_samples: list[BadSample]


def read_instructions(path: str | Path) -> list[Instruction]:
    """Read the rows of a training file.

    Raises:
        ValueError: names the file and the row.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path} holds no list of samples")
    return [_instruction(row, f"{path}, row {number}") for number, row in enumerate(rows)]


def _instruction(row: Any, where: str) -> Instruction:
    turns = row.get("conversations") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"{where} has no conversations (a list of from and value)")
    for turn in turns:
        texts = [turn.get(name) for name in ("from", "value")] if isinstance(turn, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{where}: a turn is {turn!r}, expected texts named from and value")
    video = row.get("video")
    if video is not None and not (isinstance(video, str) and video):
        raise ValueError(f"{where}: its video is {video!r}, expected the name of a file of features")
    return Instruction(name=str(row.get("id", "")), video=video, turns=turns)


def feature_shape(rows: Sequence[Instruction], folder: str | Path) -> tuple[int, int] | None:
    """Look for the first video whose features can be read.

    Returns:
        (N, C) of its features; None when all rows are text.

    Raises:
        ValueError: no features can be read; gives the first reason.
    """
    first: ValueError | None = None
    for row in rows:
        if row.video is not None:
            try:
                shape = read_features(find_features(folder, row.video)).shape
                return shape[0], shape[1]
            except ValueError as error:
                first = first or error
    if first is not None:
        raise ValueError(f"No video of the training set has features. The first one: {first}")
    return None


class InstructionDataset(Dataset):
    """Video instructions, encoded.

    Args:
        rows: of `read_instructions`.
        source: a name for records of bad samples.
        folder: features, one file per video.
        shape: (N, C) that they must have; None when all rows are text.
        tokenizer: with the tokens of a video.
        has_start_end: whether two more tokens enclose a video.
        max_length: tokens of a sample that are kept.
        is_video_first: put the video of the first turn into a prefix of its own.
        is_lazy: encode a sample when it is drawn, instead of all of them, with all features, at the start.
        seed: of stand-ins.
        max_retries: stand-ins that a bad sample gets before it is an error.
    """

    def __init__(
        self,
        rows: Sequence[Instruction],
        *,
        source: str,
        folder: str | Path,
        shape: tuple[int, int] | None,
        tokenizer: PreTrainedTokenizerFast,
        has_start_end: bool,
        max_length: int,
        is_video_first: bool = False,
        is_lazy: bool = True,
        seed: int = 42,
        max_retries: int = 10,
    ):
        self.rows, self.source, self.folder, self.shape = rows, source, folder, shape
        self.tokenizer, self.has_start_end = tokenizer, has_start_end
        self.max_length, self.is_video_first = max_length, is_video_first
        self.seed, self.max_retries = seed, max_retries
        self._watch = MachineWatch([self.folder])
        self._ready: list[Labelled | Exception] | None = None
        if not is_lazy:
            indices = tqdm(range(len(rows)), desc="Encoding", disable=rank() != 0)
            self._ready = [self._encode_or_error(index) for index in indices]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw | int) -> InstructionItem | Hopeless:
        """Encode a sample; a bad one is recorded and another takes its place.

        Raises:
            RunError: it is the machine's fault.
        """
        index, epoch = draw if isinstance(draw, tuple) else (draw, 0)
        rng = random.Random(f"{self.seed}/{epoch}/{index}")

        def attempt(index: int) -> tuple[Labelled, Tensor | None] | BadSample:
            row = self.rows[index]
            with Boundary() as sample:
                encoded = self.tokens(index), self.features(row)
            self._watch.see(sample.error)
            if sample.error is None:
                return encoded
            path, text = row.video or row.name, row.turns[0]["value"]
            return BadSample(source=self.source, video_path=path, text=text, reason=str(sample.fault))

        made = first_good(index, attempt, lambda: rng.randrange(len(self.rows)), max_retries=self.max_retries)
        if isinstance(made, Hopeless):
            return made
        (tokens, features), bad = made
        return InstructionItem(tokens=tokens, features=features, bad=bad)

    def tokens(self, index: int) -> Labelled:
        """Encode a sample, or give what was encoded at the start.

        Raises:
            BadSampleError: there is nothing to learn from it.
        """
        ready = self._encode(index) if self._ready is None else self._ready[index]
        if isinstance(ready, Exception):
            raise ready
        return ready

    def _encode_or_error(self, index: int) -> Labelled | Exception:
        with Boundary() as sample:
            self.features(self.rows[index])
            return self._encode(index)
        return sample.error

    def _encode(self, index: int) -> Labelled:
        row = self.rows[index]
        block = VideoBlock(num_tokens=self.shape[0], has_start_end=self.has_start_end) if row.video else None
        pieces = training_pieces(row.turns, block, is_video_first=self.is_video_first)
        if block and (count := pieces.count(template(str(block)))) != 1:
            raise BadSampleError(f"it has {count} times {VIDEO} for its one video")
        tokens = label(pieces, self.tokenizer, max_length=self.max_length)
        counts = {token: str(block).count(token) if block else 0 for token in self._video_tokens()}
        for token, number in counts.items():
            kept = int((tokens.input_ids == self.tokenizer.convert_tokens_to_ids(token)).sum())
            if kept != number:
                cause = f"cut within the video at {self.max_length} tokens (--model_max_length): "
                raise BadSampleError(f"{cause if kept < number else ''}{kept} {token} instead of {number}")
        if tokens.ignored:
            raise BadSampleError(f"nothing of it can be learned: {tokens.ignored}")
        return tokens

    def _video_tokens(self) -> list[str]:
        return [token for token in self.tokenizer.get_added_vocab() if token.startswith("<vid_")]

    def features(self, row: Instruction) -> Tensor | None:
        """Read a video's features (N, C) as stored; None for a row without a video.

        Raises:
            BadSampleError: they cannot be read, or are unlike the others.
        """
        if row.video is None:
            return None
        try:
            array = read_features(find_features(self.folder, row.video))
        except ValueError as error:
            raise BadSampleError(str(error)) from None
        if array.shape != self.shape:
            raise BadSampleError(f"its features are {array.shape}, those of the first video {self.shape}")
        return torch.from_numpy(array)


def collate(items: list[InstructionItem], *, pad_token_id: int) -> InstructionBatch:
    """Pad to the longest sample on the right, and put the videos one after the other.

    Returns:
        input_ids, labels, attention_mask (B, L); video_features (sum of N, C) if there is a video.
    """
    pad = partial(pad_sequence, batch_first=True)
    ids = pad([item.tokens.input_ids for item in items], padding_value=pad_token_id)
    batch = InstructionBatch(
        input_ids=ids,
        labels=pad([item.tokens.labels for item in items], padding_value=IGNORE_INDEX),
        attention_mask=(ids != pad_token_id).long(),
        bad_samples=[bad for item in items for bad in item.bad],
    )
    if videos := [item.features for item in items if item.features is not None]:
        batch["video_features"] = torch.cat(videos)
    return batch
