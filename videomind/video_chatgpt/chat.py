"""Answers to questions about videos: features, prompt, generation.

B prompts, L tokens, N rows of a video's features, C their width.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessorList

from videomind.agent.finite import FiniteLogits
from videomind.device import uploaded
from videomind.encoding.encoder import BadSampleError
from videomind.encoding.text import TextEncoder
from videomind.runs.boundary import Boundary
from videomind.video.reader import BadVideoError
from videomind.video_chatgpt.disk import LoadedVideoModel
from videomind.video_chatgpt.features.clip import ClipTower
from videomind.video_chatgpt.features.frames import read_frames
from videomind.video_chatgpt.features.store import find_features, read_features
from videomind.video_chatgpt.options import CHAT_MODE
from videomind.video_chatgpt.tokenizer import decode_pieces
from videomind.video_chatgpt.vicuna import END, VideoBlock, chat_pieces

log = logging.getLogger(__name__)

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv")  # in the order in which they are tried
KEPT_VIDEOS = 16  # features in memory, as questions about one video follow one another


def find_video(folder: Path, name: str) -> Path:
    """Find a video by its name.

    Args:
        folder: where it lies.
        name: with or without extension; those of VIDEO_EXTENSIONS are tried in their order.

    Raises:
        BadVideoError: it is not there.
    """
    for extension in ("", *VIDEO_EXTENSIONS):
        path = folder / f"{name}{extension}"
        if path.suffix and path.is_file():
            return path
    raise BadVideoError(f"No video {name!r} in {folder} ({', '.join(VIDEO_EXTENSIONS)})")


class FeatureSource(Protocol):
    """Where features come from. Both steps raise a ValueError for a video that has none."""

    def read(self, name: str) -> Any:
        """Read a video, by its name or path; threads do it ahead."""

    def features(self, content: Any) -> np.ndarray:
        """Make the features (N, C) of what was read."""


class TowerFeatures:
    """Features made from the videos of a folder, rounded as stored ones are."""

    def __init__(self, tower: ClipTower, folder: Path = Path()):
        self.tower, self.folder = tower, folder

    def read(self, name: str) -> Tensor:
        """Decode a video: its frames, (T, S, S, 3)."""
        path = find_video(self.folder, name)
        frames, problems = read_frames(path, size=self.tower.shape.size)
        for problem in problems:
            log.warning("%s: %s", path, problem)
        return frames

    def features(self, content: Tensor) -> np.ndarray:
        """Make the tower's features (N, C) of frames."""
        return self.tower.features(content).astype(np.float16)


class StoredFeatures:
    """Features that were written before."""

    def __init__(self, folder: Path):
        self.folder = folder

    def read(self, name: str) -> np.ndarray:
        """Read a video's file (N, C)."""
        stem = name.removesuffix(Path(name).suffix) if name.endswith(VIDEO_EXTENSIONS) else name
        return read_features(find_features(self.folder, stem))

    def features(self, content: np.ndarray) -> np.ndarray:
        """Give them as they were read."""
        return content


class _Video:
    """A video that is read once and whose features are made once, whichever thread asks first."""

    def __init__(self, source: FeatureSource, name: str):
        self.source, self.name, self.lock = source, name, Lock()
        self.content: Any = None
        self.made: np.ndarray | None = None

    def read(self) -> None:
        """Read it, unless what was read or made of it is there."""
        with self.lock:
            if self.made is None and self.content is None:
                self.content = self.source.read(self.name)

    def features(self) -> np.ndarray:
        """Make its features (N, C), unless they are there."""
        self.read()
        with self.lock:
            if self.made is None:
                self.made, self.content = self.source.features(self.content), None
            return self.made


def clean(text: str) -> str:
    """Cut blanks and the end mark off an answer; its last letters stay."""
    return text.strip().removesuffix(END).strip()


class VideoChat:
    """Asks a model about videos.

    Args:
        loaded: model and tokenizer.
        source: of the features.
        mode: the conversation's template, a key of SYSTEMS.
        max_new_tokens: of an answer.
        temperature: of sampling; 0 is greedy.
    """

    def __init__(
        self,
        loaded: LoadedVideoModel,
        source: FeatureSource,
        *,
        mode: str = CHAT_MODE,
        max_new_tokens: int = 1024,
        temperature: float = 0.2,
    ):
        self.model, self.tokenizer, self.mode = loaded.model.eval(), loaded.tokenizer, mode
        self._text = TextEncoder(self.tokenizer)
        self._videos = lru_cache(maxsize=KEPT_VIDEOS)(partial(_Video, source))
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 50}
        self._generation = GenerationConfig(
            max_new_tokens=max_new_tokens,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            **(sampling if temperature > 0 else {"do_sample": False}),
        )

    def read_ahead(self, videos: Sequence[str]) -> None:
        """Read videos whose features will be asked for; other threads may do it meanwhile."""
        for video in videos:
            with Boundary():  # `features` reads again and raises what is wrong
                self._videos(video).read()

    def features(self, video: str) -> Tensor:
        """Get a video's features.

        Returns:
            (N, C), as the source gives them.

        Raises:
            ValueError: the video is not there or cannot be read, or its features are not of the form that the
                model was trained on.
        """
        rows, config = self._videos(video).features(), self.model.config
        if rows.shape[1] != config.mm_hidden_size:
            raise ValueError(
                f"{video}: its features are {rows.shape[1]} wide, the projector takes {config.mm_hidden_size}"
            )
        if config.num_video_tokens not in (None, len(rows)):
            raise ValueError(
                f"{video}: it has {len(rows)} rows of features, the model was trained on "
                f"{config.num_video_tokens}. Use the same tower (--vision_tower)."
            )
        return torch.from_numpy(rows)

    def check_length(self, features: Tensor, question: str) -> None:
        """Refuse a prompt that the model has no positions for: it would answer all the same.

        Raises:
            BadSampleError: it is too long.
        """
        length, limit = len(self._prompt(features, question)), self.model.config.max_position_embeddings
        if length > limit:
            raise BadSampleError(
                f"its prompt has {length} tokens, the model has {limit} positions (max_position_embeddings)"
            )

    def _prompt(self, features: Tensor, question: str) -> Tensor:
        """Make the ids (L,) of a question about features (N, C)."""
        block = VideoBlock(num_tokens=len(features), has_start_end=self.model.config.mm_use_vid_start_end)
        pieces = chat_pieces(question, block, mode=self.mode)
        return torch.tensor(self._text(pieces, add_special_tokens=True).ids)

    def answer(self, asked: Sequence[tuple[Tensor, str]]) -> list[str]:
        """Answer one batch of questions.

        Args:
            asked: features (N, C) and question, B of them.

        Returns:
            B texts.
        """
        ids = [self._prompt(features, question) for features, question in asked]
        new = self.generate(ids, [features for features, _ in asked])
        return [clean(decode_pieces(self.tokenizer, row)) for row in new.tolist()]

    @torch.inference_mode()
    def generate(self, ids: Sequence[Tensor], features: Sequence[Tensor]) -> Tensor:
        """Generate the new tokens of one batch.

        Args:
            ids: B prompts of (L,).
            features: B videos of (N, C).

        Returns:
            (B, new tokens); what comes after an end is padding.

        Raises:
            NotFiniteError: the model gives numbers that are none; greedy choice would make an answer of them.
        """
        masks = [torch.ones_like(row) for row in ids]
        pad = self.tokenizer.pad_token_id
        padded = pad_sequence(list(ids), batch_first=True, padding_value=pad, padding_side="left")
        mask = pad_sequence(masks, batch_first=True, padding_side="left")
        sent = (uploaded(part, self.model.device) for part in (padded, torch.cat(list(features)), mask))
        padded, rows, mask = sent
        watch = FiniteLogits()
        new = self.model.generate(
            inputs_embeds=self.model.embed(padded, rows),
            attention_mask=mask,
            generation_config=self._generation,
            logits_processor=LogitsProcessorList([watch]),
        )
        watch.check()
        return new
