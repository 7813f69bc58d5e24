"""Several sources as one training set: filters, statistics, records of bad samples, collation.

Shapes: B batch, L tokens, N patches.
"""

import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypedDict

import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from videomind.dataset.base import get_source, parse_names
from videomind.dataset.encoding import IGNORE_INDEX, BadSampleError, Encoded, Encoder
from videomind.dataset.schema import Annotation
from videomind.dataset.video import BadVideoError, read_clip
from videomind.dataset.views import View
from videomind.roles import VisualBudget

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which annotations train; bounds are inclusive, -1 is off.

    Attributes: video length in s (annotations without a duration pass), words of the view's text.
    """

    min_video_len: float = -1
    max_video_len: float = -1
    min_num_words: int = -1
    max_num_words: int = -1

    def reason(self, anno: Annotation, view: View) -> str | None:
        """Why an annotation does not train, or None."""
        if missing := view.missing(anno):
            return f"no {', '.join(missing)}"
        if anno.duration is not None and not _within(anno.duration, self.min_video_len, self.max_video_len):
            return "video length"
        if not _within(len(view.text(anno).split(" ")), self.min_num_words, self.max_num_words):
            return "number of words"
        return None


ALL = Filters()


def _within(value: float, low: float, high: float) -> bool:
    return (low < 0 or value >= low) and (high < 0 or value <= high)


class Draw(NamedTuple):
    """What a sampler yields: an index and the epoch, so that random choices are the same on every worker."""

    index: int
    epoch: int


@dataclass(frozen=True, kw_only=True)
class BadSample:
    """A sample that was left out of a batch, and why."""

    source: str
    video_path: str
    text: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Item:
    """One element of a batch: its tensors, and the bad samples whose place it took."""

    encoded: Encoded
    bad: list[BadSample]


class Batch(TypedDict, total=False):
    """Model inputs of a micro-batch; see `collate`. `bad_samples` is for the trainer, not the model."""

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    pixel_values_videos: Tensor
    video_grid_thw: Tensor
    timestamps: list[list[Tensor]]
    saliency: list[Tensor]
    pos_clip: list[Tensor]
    bad_samples: list[BadSample]


class Mixture(Dataset):
    """The training set.

    Args:
        datasets: comma-separated registered names, concatenated in their order.
        encoder: makes tensors.
        data_root: folder of all data sets.
        filters: which annotations train.
        seed: of all random choices (crops, positive clips, stand-ins).
        max_retries: how many stand-ins a bad sample gets before it is an error.
        budget: how finely videos are seen, instead of the roles' own.
    """

    def __init__(
        self,
        datasets: str,
        *,
        encoder: Encoder,
        data_root: str | Path = "data",
        filters: Filters = ALL,
        seed: int = 42,
        max_retries: int = 10,
        budget: VisualBudget | None = None,
    ):
        self.encoder, self.seed, self.max_retries, self.budget = encoder, seed, max_retries, budget
        self.views: list[View] = []
        self.entries: list[tuple[int, Annotation]] = []  # (index of the view, annotation)
        self.rows: list[dict] = []  # one per source, for the statistics
        for name in parse_names(datasets):
            self._add(name, data_root, filters)
        if not self.entries:
            raise ValueError(f"No sample is left of {datasets} after the filters:\n{self.statistics()}")
        self.data_types = [anno.data_type or self.views[v].data_type for v, anno in self.entries]

    def _add(self, name: str, data_root: str | Path, filters: Filters) -> None:
        source = get_source(name, data_root)
        loaded = source.load()
        source.check_videos()
        self.views.append(source.view)
        dropped = Counter(loaded.dropped)
        kept = []
        for anno in loaded.annotations:
            if reason := filters.reason(anno, source.view):
                dropped[reason] += 1
            else:
                kept.append(anno)
        self.entries.extend((len(self.views) - 1, anno) for anno in kept)
        self.rows.append({"name": name, "split": loaded.split, "kept": kept, "dropped": dropped})

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, draw: Draw | int) -> Item:
        """Encode a sample; a bad one is recorded and another of its data type takes its place.

        Raises: RuntimeError when that many stand-ins are bad too.
        """
        index, epoch = draw if isinstance(draw, tuple) else (draw, 0)
        rng = random.Random(f"{self.seed}/{epoch}/{index}")
        bad: list[BadSample] = []
        wanted = self.data_types[index]
        while True:
            view, anno = self.entries[index]
            try:
                return Item(encoded=self._encode(self.views[view], anno, rng), bad=bad)
            except (BadVideoError, BadSampleError) as error:
                path = anno.video_path if isinstance(anno.video_path, str) else anno.video_path[0]
                text = anno.query or anno.question or ""
                bad.append(BadSample(source=anno.source, video_path=path, text=text, reason=str(error)))
            if len(bad) > self.max_retries:
                reasons = "; ".join(f"{b.video_path}: {b.reason}" for b in bad)
                raise RuntimeError(f"{len(bad)} bad samples in a row (--max_retries): {reasons}")
            index = rng.choice(self._of_type(wanted))

    def _of_type(self, data_type: str | None) -> list[int]:
        return [i for i, kind in enumerate(self.data_types) if kind == data_type]

    def _encode(self, view: View, anno: Annotation, rng: random.Random) -> Encoded:
        sample = view.sample(anno, rng)
        clip = sample.clip if self.budget is None else replace(sample.clip, budget=self.budget)
        return self.encoder(sample, read_clip(clip).frames, rng)

    def statistics(self) -> str:
        """Tables of what was loaded, what was dropped and why, and how long videos and moments are."""
        total = max(len(self.entries), 1)
        table = [
            [
                row["name"],
                row["split"],
                len(row["kept"]) + sum(row["dropped"].values()),
                len(row["kept"]),
                f"{len(row['kept']) / total:.1%}",
                ", ".join(f"{reason}: {count}" for reason, count in sorted(row["dropped"].items())) or "-",
            ]
            for row in self.rows
        ]
        head = tabulate(table, headers=["data set", "split", "raw", "kept", "share", "dropped, and why"])
        durations = [a.duration for _, a in self.entries if a.duration is not None]
        spans = [end - start for _, a in self.entries for start, end in a.span or ()]
        parts = [head, histogram("video length (s)", durations), histogram("moment length (s)", spans)]
        return "\n\n".join(part for part in parts if part)


def histogram(title: str, values: Sequence[float], num_bins: int = 10) -> str:
    """A text histogram, or '' without values. Args: values; num_bins of equal width."""
    if not values:
        return ""
    data = torch.tensor(values, dtype=torch.float64)
    low, high = data.min().item(), data.max().item()
    counts = torch.histc(data, bins=num_bins, min=low, max=high if high > low else low + 1)
    width = (high - low) / num_bins if high > low else 1 / num_bins
    most = counts.max().item()
    rows = [
        [f"{low + i * width:.1f} - {low + (i + 1) * width:.1f}", int(n), "#" * round(30 * n.item() / most)]
        for i, n in enumerate(counts)
    ]
    return f"{title}: mean {data.mean().item():.2f}\n" + tabulate(rows, tablefmt="plain")


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Makes a micro-batch. Attributes: pad_token_id, what ids are padded with on the right."""

    pad_token_id: int

    def __call__(self, items: list[Item]) -> Batch:
        """Pad ids and labels to the longest sample, concatenate patches, list the targets.

        Returns: input_ids, labels, attention_mask (B, L); pixel_values_videos (N, 1176);
        video_grid_thw (B, 3); timestamps, saliency, pos_clip as lists of B if the samples ground.
        """
        encoded = [item.encoded for item in items]
        ids = [e.input_ids for e in encoded]
        batch = Batch(
            input_ids=pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            labels=pad_sequence([e.labels for e in encoded], batch_first=True, padding_value=IGNORE_INDEX),
            attention_mask=pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
            pixel_values_videos=torch.cat([e.pixel_values for e in encoded]),
            video_grid_thw=torch.stack([e.grid for e in encoded]),
            bad_samples=[bad for item in items for bad in item.bad],
        )
        grounds = [e.timestamps is not None for e in encoded]
        if any(grounds):
            if not all(grounds):
                raise ValueError(
                    "A micro-batch mixes samples with and without moments (use --group_by_data_type)"
                )
            batch["timestamps"] = [e.timestamps for e in encoded]
            batch["saliency"] = [e.saliency for e in encoded]
            batch["pos_clip"] = [e.pos_clip for e in encoded]
        return batch
