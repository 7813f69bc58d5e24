"""The training set: several data sets as one, records of bad samples, collation.

Shapes: B batch, L tokens, N patches of V values.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from videomind.dataset.filters import ALL, Filters
from videomind.dataset.parts import Part, load_parts, open_source, parse_entries
from videomind.dataset.schema import Annotation
from videomind.dataset.statistics import statistics
from videomind.dataset.views import View
from videomind.encoding.encoder import IGNORE_INDEX, Encoded, Encoder
from videomind.model.losses import HeadTargets
from videomind.roles import UNCHANGED, BudgetOverride, get_role
from videomind.runs.boundary import Boundary
from videomind.runs.watch import MachineWatch, common_folder
from videomind.video.excerpts import read_excerpt
from videomind.video.frame_cache import FrameCache
from videomind.video.reader import refuse_damage
from videomind.video.request import USE

LOOKED_AT = 64  # annotations of a part that tell where its videos lie
T = TypeVar("T")


class Draw(NamedTuple):
    """What a sampler yields: an index and the epoch, so that random choices are the same on every worker."""

    index: int
    epoch: int


@dataclass(frozen=True, kw_only=True)
class BadSample:
    """A sample that was left out of a batch, or used although its video is damaged, and why.

    Attributes:
        source: the registered name of its data set.
        video_path: of its video.
        text: its query or question.
        reason: what is wrong with it.
        is_used: whether it is in the batch all the same.
    """

    source: str
    video_path: str
    text: str
    reason: str
    is_used: bool = False


@dataclass(frozen=True, kw_only=True)
class Item:
    """One element of a batch.

    Attributes:
        encoded: its tensors.
        bad: the bad samples whose place it took.
        damaged: itself, where its video is damaged and used all the same.
    """

    encoded: Encoded
    bad: list[BadSample]
    damaged: list[BadSample] = field(default_factory=list)


@dataclass(frozen=True)
class Hopeless:
    """What a data set gives instead of a sample when all its stand-ins are bad too.

    Attributes:
        bad: all of them.
    """

    bad: list[BadSample]

    def __str__(self) -> str:
        reasons = "; ".join(f"{sample.video_path}: {sample.reason}" for sample in self.bad)
        return f"{len(self.bad)} bad samples in a row (--max_retries): {reasons}"


class Batch(TypedDict, total=False):
    """Model inputs of a micro-batch; see `Collator`. `bad_samples` is for the trainer, not the model."""

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    pixel_values: Tensor
    grids: Tensor
    targets: list[HeadTargets]
    bad_samples: list[BadSample]


def first_good(
    index: int, attempt: Callable[[int], T | BadSample], stand_in: Callable[[], int], *, max_retries: int
) -> tuple[T, list[BadSample]] | Hopeless:
    """Make a sample, or the first good one of those that stand in for it.

    Args:
        index: of the sample.
        attempt: makes the sample of an index or says why it is bad.
        stand_in: draws another index.
        max_retries: how many stand-ins are tried.

    Returns:
        The sample, and the bad ones whose place it took; or what is hopeless.
    """
    bad: list[BadSample] = []
    while isinstance(sample := attempt(index), BadSample):
        bad.append(sample)
        if len(bad) > max_retries:
            return Hopeless(bad)
        index = stand_in()
    return sample, bad


class Mixture(Dataset):
    """The training set.

    Args:
        datasets: comma-separated `NAME[@SPLIT][:WEIGHT]`, concatenated in their order.
        encoder: makes tensors.
        data_root: folder of all data sets.
        filters: which annotations train.
        seed: of all random choices (crops, positive clips, stand-ins, parts of data sets).
        max_retries: how many stand-ins a bad sample gets before it is an error.
        budget: numbers that replace those of every role's budget.
        on_damage: whether samples of damaged videos are used (and recorded) or skipped.
        kept: frames of earlier epochs; None: all are decoded anew.
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
        budget: BudgetOverride = UNCHANGED,
        on_damage: str = USE,
        kept: FrameCache | None = None,
    ):
        self.on_damage, self.kept = on_damage, kept
        self.encoder, self.seed, self.max_retries, self.budget = encoder, seed, max_retries, budget
        self.parts = load_parts(parse_entries(datasets), data_root=data_root, filters=filters, seed=seed)
        for part in self.parts:
            open_source(part.entry.name, data_root).check_videos()
        self._ends = np.cumsum([len(part) for part in self.parts])
        if empty := [part.entry.name for part in self.parts if not len(part)]:
            raise ValueError(
                f"No sample is left of {', '.join(empty)} (--datasets), see why:\n{self.statistics()}"
            )
        self._shuffled: dict[int, tuple[int, np.ndarray]] = {}  # part: its epoch and order
        self._watch = MachineWatch(_video_folder(part) for part in self.parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def data_types(self) -> np.ndarray:
        """The data type of every sample, (len,) of str."""
        return np.repeat(
            [str(part.view.data_type) for part in self.parts], [len(part) for part in self.parts]
        )

    @property
    def sample_bytes(self) -> int:
        """Bytes of the largest sample that the roles' budgets allow."""
        units = self.encoder.backbone.units
        return max(
            self.budget.applied(get_role(part.view.role).budget).on(units).max_bytes for part in self.parts
        )

    def __getitem__(self, draw: Draw | int) -> Item | Hopeless:
        """Encode a sample; a bad one is recorded and another of its data type takes its place.

        Raises:
            RunError: it is the machine's fault.
        """
        index, epoch = draw if isinstance(draw, tuple) else (draw, 0)
        rng = random.Random(f"{self.seed}/{epoch}/{index}")

        damaged: list[BadSample] = []

        def attempt(index: int) -> Encoded | BadSample:
            part, anno = self.annotation(index, epoch)
            path = anno.video_path if isinstance(anno.video_path, str) else anno.video_path[0]
            text = anno.query or anno.question or ""
            bad = BadSample(source=anno.source, video_path=os.path.abspath(path), text=text, reason="")
            with Boundary() as sample:
                encoded, problems = self._encode(part.view, anno, rng)
            self._watch.see(sample.error)
            if sample.fault is not None:
                return replace(bad, reason=str(sample.fault))
            if problems:
                damaged.append(replace(bad, reason="; ".join(problems), is_used=True))
            return encoded

        data_type = self.annotation(index, epoch)[0].view.data_type
        made = first_good(
            index, attempt, lambda: self._stand_in(data_type, rng), max_retries=self.max_retries
        )
        if isinstance(made, Hopeless):
            return made
        encoded, bad = made
        return Item(encoded=encoded, bad=bad, damaged=damaged)

    def annotation(self, index: int, epoch: int = 0) -> tuple[Part, Annotation]:
        """Find what a sample is made of.

        An epoch goes through a part in whole rounds; weight 2.5 is two of them, then half a round of
        annotations that are drawn anew every epoch.
        """
        number = int(np.searchsorted(self._ends, index, side="right"))
        part = self.parts[number]
        offset = index - (int(self._ends[number]) - len(part))  # within the part
        full_rounds = len(part) // len(part.annotations)
        current_round, chosen = divmod(offset, len(part.annotations))
        if current_round == full_rounds:  # only a share of this round is used
            chosen = int(self._order(number, epoch)[chosen])
        return part, part.annotations[chosen]

    def _order(self, number: int, epoch: int) -> np.ndarray:
        """Permute a part's annotations, in the same way on every worker and rank."""
        if self._shuffled.get(number, (-1, None))[0] != epoch:
            generator = np.random.default_rng([self.seed, epoch, number])
            order = generator.permutation(len(self.parts[number].annotations)).astype(np.int32)
            self._shuffled[number] = (epoch, order)
        return self._shuffled[number][1]

    def _stand_in(self, data_type: str | None, rng: random.Random) -> int:
        """Draw a sample of a data type.

        Returns:
            Its index.
        """
        alike = [i for i, part in enumerate(self.parts) if part.view.data_type == data_type]
        (number,) = rng.choices(alike, weights=[len(self.parts[i]) for i in alike])
        return int(self._ends[number]) - 1 - rng.randrange(len(self.parts[number]))

    def _encode(self, view: View, anno: Annotation, rng: random.Random) -> tuple[Encoded, list[str]]:
        sample = view.sample(anno, rng)
        budget = self.budget.applied(sample.excerpt.budget)
        sample = replace(sample, excerpt=replace(sample.excerpt, budget=budget))
        excerpt = self.encoder.excerpt(sample)
        read = read_excerpt(excerpt) if self.kept is None else self.kept.read(excerpt)
        refuse_damage(read.problems, self.on_damage)
        return self.encoder(sample, read.frames, rng), read.problems

    def statistics(self) -> str:
        """Write tables of what was loaded, what was dropped and why, and how long videos and moments are."""
        return statistics(self.parts)


def _video_folder(part: Part) -> str | None:
    """Find the folder of a part's videos, by some of them."""
    step = max(len(part.annotations) // LOOKED_AT, 1)
    return common_folder(part.annotations[i].video_path for i in range(0, len(part.annotations), step))


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Makes a micro-batch.

    Attributes:
        pad_token_id: what ids are padded with on the right.
    """

    pad_token_id: int

    def __call__(self, items: list[Item]) -> Batch:
        """Pad ids and labels to the longest sample, concatenate patches, list the targets if there are any.

        Returns:
            input_ids, labels, attention_mask (B, L); pixel_values (N, V); grids (B, 3); targets, B of them.

        Raises:
            ValueError: Samples with and without moments would share a batch.
        """
        encoded = [item.encoded for item in items]
        ids = [e.input_ids for e in encoded]
        batch = Batch(
            input_ids=pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            labels=pad_sequence([e.labels for e in encoded], batch_first=True, padding_value=IGNORE_INDEX),
            attention_mask=pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
            pixel_values=torch.cat([e.pixel_values for e in encoded]),
            grids=torch.stack([e.grid for e in encoded]),
            bad_samples=[bad for item in items for bad in (*item.bad, *item.damaged)],
        )
        targets = [e.targets for e in encoded if e.targets is not None]
        if targets:
            if len(targets) < len(encoded):
                raise ValueError(
                    "A micro-batch mixes samples with and without moments (use --group_by_data_type)"
                )
            batch["targets"] = targets
        return batch
