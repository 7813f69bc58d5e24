"""What the warm-up learns from: training videos as patches, the colour seen at each step, and small tasks.

Only training rows and training phrasings are used; test videos, phrasings and answers never enter.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from videomind.dataset.base import get_source
from videomind.dataset.phrases import capitalize, letter, multiple_choice
from videomind.dataset.schema import Annotation
from videomind.encoding.encoder import Encoder
from videomind.files import read_json
from videomind.roles import MCQ_PREFIX, VisualBudget, get_role
from videomind.synthetic.phrases import ACTIONS, COLOURS, EVER, FLOORS, SHAPES, question, sentence
from videomind.synthetic.questions import TRUTH
from videomind.video.excerpts import read_excerpt, video_duration
from videomind.video.request import Excerpt

DATASETS = ("charades_sta", "qvhighlights")
NOTHING = "nothing"
_SHORT_STEPS = 2
_LONG_STEPS = (2, 8, 20, 40)  # temporal steps of 2 s


@dataclass(frozen=True, kw_only=True)
class Task:
    """One turn to learn.

    Attributes:
        patches: (T, H*W, V), or None for text alone.
        grid: (H, W) of the patches.
        prompt: the user's text.
        reply: what is learned.
        start: of the reply, not learned.
        features: (T, tokens, D) of the patches, where they are known.
    """

    patches: Tensor | None
    grid: tuple[int, int]
    prompt: str
    reply: str
    start: str = ""
    features: Tensor | None = None


@dataclass(kw_only=True)
class WarmupVideo:
    """A training video in memory.

    Attributes:
        patches: (T, H*W, V).
        grid: (H, W).
        colours: per temporal step the colour seen all through it, NOTHING between events, or None where an
            event starts or ends.
        floors: the one under each colour of a video with questions.
        features: (T, tokens, D), what a frozen vision tower makes of the patches.
    """

    patches: Tensor
    grid: tuple[int, int]
    colours: list[str | None]
    floors: dict[str, str] = field(default_factory=dict)
    features: Tensor | None = None

    def task(self, steps: slice, prompt: str, reply: str, start: str = "") -> Task:
        """Make a task on some of the temporal steps."""
        features = None if self.features is None else self.features[steps]
        patches = self.patches[steps]
        return Task(
            patches=patches, grid=self.grid, prompt=prompt, reply=reply, start=start, features=features
        )


def _colour(text: str) -> str:
    """Find the colour that a query names."""
    return next(word for word in text.lower().split() if word in COLOURS)


def _step_colours(annotations: list[Annotation], num_steps: int) -> list[str | None]:
    """Find the colour of each temporal step of a video.

    Args:
        annotations: of the video.
        num_steps: T.
    """
    step_s = annotations[0].duration / num_steps
    colours: list[str | None] = []
    for i in range(num_steps):
        start_s, end_s, colour = i * step_s, (i + 1) * step_s, NOTHING
        for annotation in annotations:
            for start, end in annotation.span:
                if start <= start_s and end_s <= end:
                    colour = _colour(annotation.query)
                elif start < end_s and start_s < end:
                    colour = None
        colours.append(colour)
    return colours


def load_videos(
    root: str | Path,
    encoder: Encoder,
    *,
    budget: VisualBudget,
    limit: int,
    seed: int,
    share: tuple[int, int] = (0, 1),
) -> list[WarmupVideo]:
    """Read training videos as the grounder will see them.

    Args:
        root: the data root.
        encoder: makes patches.
        budget: of the frames.
        limit: videos at most.
        seed: decides which.
        share: (rank, processes): every process reads its own part of them.
    """
    grouped: dict[str, list[Annotation]] = {}
    for name in DATASETS:
        for annotation in get_source(name, root).load("train").annotations:
            grouped.setdefault(annotation.video_path, []).append(annotation)
    paths = sorted(grouped)
    random.Random(seed).shuffle(paths)
    rank, processes = share
    videos = []
    for path in tqdm(paths[:limit][rank::processes], desc="warm-up videos", unit="video", disable=rank > 0):
        patches, grid = encoder.patches(
            read_excerpt(Excerpt(path=path, budget=budget.on(encoder.backbone.units))).frames
        )
        steps, height, width = grid.tolist()
        patches = encoder.processor.normalized(patches).half()  # half the memory
        patches = patches.unflatten(0, (steps, height * width))
        colours = _step_colours(grouped[path], steps)
        videos.append(WarmupVideo(patches=patches, grid=(height, width), colours=colours))
    return videos


def load_question_videos(
    root: str | Path, encoder: Encoder, *, budget: VisualBudget, share: tuple[int, int] = (0, 1)
) -> list[WarmupVideo]:
    """Read the training videos with questions; none when the data root has none."""
    folder = Path(root) / "nextqa"
    if not folder.is_dir():
        return []
    truth = read_json(folder / TRUTH)
    rank, processes = share
    videos = []
    for vid in tqdm(sorted(truth)[rank::processes], desc="question videos", unit="video", disable=rank > 0):
        path = str(folder / f"NExTVideo/{vid}.mp4")
        patches, grid = encoder.patches(
            read_excerpt(Excerpt(path=path, budget=budget.on(encoder.backbone.units))).frames
        )
        steps, height, width = grid.tolist()
        patches = encoder.processor.normalized(patches).half().unflatten(0, (steps, height * width))
        seen = [
            Annotation(duration=video_duration(path), query=event["colour"], span=[event["window"]])
            for event in truth[vid]
        ]
        floors = {event["colour"]: event["floor"] for event in truth[vid]}
        colours = _step_colours(seen, steps)
        videos.append(WarmupVideo(patches=patches, grid=(height, width), colours=colours, floors=floors))
    return videos


class Tasks:
    """Draws tasks.

    Args:
        videos: with moments.
        rng: draws.
        questioned: videos with questions.
    """

    def __init__(self, videos: list[WarmupVideo], rng: random.Random, questioned: Sequence[WarmupVideo] = ()):
        self.videos, self.rng, self.questioned = [*videos, *questioned], rng, questioned
        self.steps: dict[str, list[tuple[WarmupVideo, int]]] = {}  # colour -> where it is seen
        for video in self.videos:
            for i, colour in enumerate(video.colours):
                if colour is not None:
                    self.steps.setdefault(colour, []).append((video, i))

    def encode(self, tower: Callable[[Tensor, tuple[int, int]], Tensor]) -> None:
        """Run a vision tower that will not change any more once on every video.

        A temporal step's features depend on that step alone, so they are the same in every excerpt.

        Args:
            tower: makes features (T, tokens, D) of patches (T, H*W, V) and a grid (H, W).
        """
        for video in self.videos:
            video.features = tower(video.patches, video.grid)

    def short(self) -> Task:
        """Draw a task on a step or two of one colour, or on a phrase alone."""
        shown = self.rng.choice(sorted(self.steps))
        asked = self._agreeing(shown != NOTHING, [shown])
        make: Callable[[str, str], Task] = self.rng.choice((self._caption, self._name_colour, self._yes_no))
        return make(shown, asked)

    def long(self) -> Task:
        """Draw the grounder's prompt over a longer excerpt: name the colour asked for, say if it occurs.

        `<|reg|>` follows a token of its own for the space before it. So does the colour here (hence two
        spaces): the state that will predict `<|reg|>` learns to hold what was asked for.
        """
        video = self.rng.choice(self.videos)
        length = min(self.rng.choice(_LONG_STEPS), len(video.colours))
        start = self.rng.randint(0, len(video.colours) - length)
        seen = sorted({c for c in video.colours[start : start + length] if c not in (None, NOTHING)})
        asked = self._agreeing(bool(seen), seen)
        verdict = "Yes" if asked in seen else "No"
        prompt = get_role("grounder").prompt(self._phrase(asked))
        reply = f"The relevant moment happens in  {asked}. {verdict}."
        return video.task(slice(start, start + length), prompt, reply)

    def questions(self, count: int) -> list[Task]:
        """Draw questions with options as the answerer gets them; none without videos for them."""
        return [self.question() for _ in range(count)] if self.questioned else []

    def lists(self, count: int) -> list[Task]:
        """Draw steps to write as JSON, which a pretrained model could do; none without videos for them."""
        return [self._list() for _ in range(count)] if self.questioned else []

    def _list(self) -> Task:
        phrase = self._phrase(self.rng.choice(list(COLOURS)))
        grounder = {"type": "grounder", "value": phrase}
        verifier, answerer = {"type": "verifier"}, {"type": "answerer"}
        steps = self.rng.choice(([grounder, verifier, answerer], [grounder, verifier], [answerer]))
        named = "; ".join(" ".join(step.values()) for step in steps)
        return Task(patches=None, grid=(0, 0), prompt=f"As JSON: {named}", reply=json.dumps(steps))

    def question(self) -> Task:
        """Ask about an excerpt or a whole video."""
        video = self.rng.choice(self.questioned)
        return self._floor(video) if self.rng.random() < 0.4 else self._whole(video)

    def _floor(self, video: WarmupVideo) -> Task:
        """Ask what is under it, seen in an excerpt about one event, of a step or up to 16."""
        colour = self.rng.choice(sorted(video.floors))
        inside = [i for i, seen in enumerate(video.colours) if seen == colour]
        others = {i for i, seen in enumerate(video.colours) if seen not in (colour, None, NOTHING)}
        start = end = self.rng.choice(inside)
        length = self.rng.choice((1, 2, 6, 16))
        while end - start + 1 < length:
            grown = [i for i in (start - 1, end + 1) if 0 <= i < len(video.colours) and i not in others]
            if not grown:
                break
            added = self.rng.choice(grown)
            start, end = min(start, added), max(end, added)
        return self._asked(video, slice(start, end + 1), "floor", colour, tuple(FLOORS), video.floors[colour])

    def _whole(self, video: WarmupVideo) -> Task:
        """Ask whether it is ever seen, over the whole video, as sparsely as the answerer sees it."""
        is_shown = self.rng.random() < 0.5
        colour = self.rng.choice([c for c in COLOURS if (c in video.floors) == is_shown])
        sparse = slice(self.rng.randrange(4), None, max(len(video.colours) // 16, 1))
        return self._asked(video, sparse, "whole", colour, EVER, EVER[0] if is_shown else EVER[1])

    def _asked(
        self, video: WarmupVideo, steps: slice, kind: str, colour: str, options: tuple[str, ...], answer: str
    ) -> Task:
        about = {"colour": colour, "shape": self.rng.choice(SHAPES), "action": self.rng.choice(list(ACTIONS))}
        text = question(self.rng, kind=kind, split="train", **about)
        prompt = multiple_choice(f"{capitalize(text)}?", options)
        reply = f"{letter(options.index(answer))})"
        return video.task(steps, prompt, reply, MCQ_PREFIX)

    def _agreeing(self, is_possible: bool, seen: list[str]) -> str:
        """Draw one of the colours seen, half of the time if that is possible, else any."""
        should_agree = is_possible and self.rng.random() < 0.5
        return self.rng.choice(seen if should_agree else list(COLOURS))

    def _phrase(self, colour: str) -> str:
        shape, action = self.rng.choice(SHAPES), self.rng.choice(list(ACTIONS))
        text = sentence(self.rng, split="train", colour=colour, shape=shape, action=action)
        return text[0].upper() + text[1:] if self.rng.random() < 0.5 else text

    def _on_excerpt(self, colour: str, prompt: str, reply: str) -> Task:
        """Make a task on an excerpt of one or two steps of a colour."""
        video, start = self.rng.choice(self.steps[colour])
        end = start + self.rng.randint(1, _SHORT_STEPS)
        if set(video.colours[start:end]) != {colour}:
            end = start + 1
        return video.task(slice(start, end), prompt, reply)

    def _caption(self, shown: str, _: str) -> Task:
        return self._on_excerpt(shown, "What is shown?", f"{shown}.")

    def _name_colour(self, _: str, asked: str) -> Task:
        prompt = f"Which colour: '{self._phrase(asked)}'"
        return Task(patches=None, grid=(0, 0), prompt=prompt, reply=f"{asked}.")

    def _yes_no(self, shown: str, asked: str) -> Task:
        prompt = f"Is this shown: '{self._phrase(asked)}'"
        return self._on_excerpt(shown, prompt, "Yes." if asked == shown else "No.")
