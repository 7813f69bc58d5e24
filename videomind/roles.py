"""The roles one backbone plays, each a declaration: prompt, visual budget, adapter and what trains.

The prompt strings live in `prompts.json`; published adapters only work with exactly those strings.
Budgets are those the published checkpoints were trained with.
"""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from videomind.faults import RunError

PROMPTS: dict = json.loads(resources.files("videomind").joinpath("prompts.json").read_text(encoding="utf-8"))

REG_TOKEN: str = PROMPTS["reg_token"]
SEG_START_TOKEN: str = PROMPTS["seg_start_token"]
SEG_END_TOKEN: str = PROMPTS["seg_end_token"]
SPECIAL_TOKENS = (REG_TOKEN, SEG_START_TOKEN, SEG_END_TOKEN)  # in the order of their ids


@dataclass(frozen=True, kw_only=True)
class VisualUnits:
    """What one visual token of a backbone covers.

    Attributes:
        token_side: pixels along each side.
        frames_per_step: frames that make one temporal step; every count of frames is a multiple.
    """

    token_side: int
    frames_per_step: int

    @property
    def pixels_per_token(self) -> int:
        """Area of a token in a frame."""
        return self.token_side**2


@dataclass(frozen=True, kw_only=True)
class VisualBudget:
    """How finely a video is sampled.

    Attributes:
        min_tokens, max_tokens: visual tokens per frame.
        min_frames, max_frames: of the excerpt.
        fps: frames per second of video.
        square_pixels: whether frames whose pixels are not square are stretched as players do.
        units: of the backbone that will see the frames; None as long as it is open which one that is
            (a role's budget is the same for all).
    """

    min_tokens: int
    max_tokens: int
    max_frames: int
    fps: float
    min_frames: int = 4
    square_pixels: bool = False
    units: VisualUnits | None = None

    def __post_init__(self) -> None:
        if not 0 < self.min_tokens <= self.max_tokens:
            raise RunError(
                f"The visual budget needs 0 < min <= max tokens per frame, not {self.min_tokens} and "
                f"{self.max_tokens} (--min_tokens_per_frame, --max_tokens_per_frame)"
            )
        if not self.fps > 0:
            raise RunError(f"The visual budget needs more than {self.fps} frames per second (--fps)")
        step = 1 if self.units is None else self.units.frames_per_step
        if self.max_frames < step:
            raise RunError(
                f"The visual budget needs at least {step} frames, not {self.max_frames} (--max_frames)"
            )

    def on(self, units: VisualUnits) -> "VisualBudget":
        """Give the same budget in the units of a backbone.

        Raises:
            ValueError: It has not even one step of frames.
        """
        return replace(self, units=units)

    def known_units(self) -> VisualUnits:
        """Give the backbone's units.

        Raises:
            ValueError: No backbone has been chosen, so that tokens have no size.
        """
        if self.units is None:
            raise ValueError(f"{self} is not in the units of a backbone yet (see VisualBudget.on)")
        return self.units

    @property
    def min_pixels(self) -> int:
        """Lower bound of a resized frame's area, pixels."""
        return self.min_tokens * self.known_units().pixels_per_token

    @property
    def max_pixels(self) -> int:
        """Upper bound of a resized frame's area, pixels."""
        return self.max_tokens * self.known_units().pixels_per_token

    @property
    def max_bytes(self) -> int:
        """Upper bound of an excerpt's pixels, three colours of a byte each."""
        return self.max_frames * self.max_pixels * 3


@dataclass(frozen=True, kw_only=True)
class BudgetOverride:
    """Numbers that replace those of every role's budget; None leaves one as it is.

    Attributes:
        min_tokens, max_tokens: visual tokens per frame.
        max_frames: of an excerpt.
        fps: frames per second of video.
        square_pixels: whether frames are stretched.
    """

    min_tokens: int | None = None
    max_tokens: int | None = None
    max_frames: int | None = None
    fps: float | None = None
    square_pixels: bool | None = None

    @classmethod
    def of_arguments(cls, arguments: Any) -> "BudgetOverride":
        """Read what a command line says, of training or of inference, by its options' names."""
        return cls(
            min_tokens=arguments.min_tokens_per_frame,
            max_tokens=arguments.max_tokens_per_frame,
            max_frames=arguments.max_frames,
            fps=arguments.fps,
            square_pixels=arguments.square_pixels or None,
        )

    def applied(self, budget: VisualBudget) -> VisualBudget:
        """Give a budget with the numbers that are set here.

        Raises:
            ValueError: They do not fit the others.
        """
        return replace(budget, **{name: value for name, value in vars(self).items() if value is not None})


UNCHANGED = BudgetOverride()


@dataclass(frozen=True, kw_only=True)
class Role:
    """One role.

    Attributes:
        name: as in `--role`, the adapter's name and its folder.
        budget: frames and pixels of its input.
        trains_tables: whether full copies of the embedding and output tables train with the adapter.
        has_head: whether the grounding head belongs to it.
    """

    name: str
    budget: VisualBudget
    trains_tables: bool
    has_head: bool

    def prompt(self, text: str) -> str:
        """Write the user's text of this role for a query or question; the answerer's is the text itself."""
        template = PROMPTS.get(self.name)
        return text if template is None else template.format(text)


_PLANNER = VisualBudget(min_tokens=36, max_tokens=64, max_frames=100, fps=1.0)
_GROUNDER = VisualBudget(min_tokens=36, max_tokens=64, max_frames=150, fps=1.0)
_VERIFIER = VisualBudget(min_tokens=36, max_tokens=64, max_frames=64, fps=2.0)
_ANSWERER = VisualBudget(min_tokens=128, max_tokens=256, max_frames=32, fps=2.0)

ALL_IN_ONE = "all_in_one"
ROLES: dict[str, Role] = {
    role.name: role
    for role in (
        Role(name="planner", budget=_PLANNER, trains_tables=False, has_head=False),
        Role(name="grounder", budget=_GROUNDER, trains_tables=True, has_head=True),
        Role(name="verifier", budget=_VERIFIER, trains_tables=True, has_head=False),
        Role(name="answerer", budget=_ANSWERER, trains_tables=False, has_head=False),
        # Trains on samples of every view, each with its own role's prompt and budget.
        Role(name=ALL_IN_ONE, budget=_ANSWERER, trains_tables=True, has_head=True),
    )
}

GROUNDER_RESPONSE: str = PROMPTS["grounder_response"]
VERIFIER_YES, VERIFIER_NO = PROMPTS["verifier_responses"]


MCQ_PREFIX: str = PROMPTS["answerer_mcq"]["generation_prefix_mcq"]


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Write the end of an error message: what is allowed, and the closest match if there is one."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Allowed: {', '.join(allowed)}.{hint}"


def get_role(name: str) -> Role:
    """Look a role up by name.

    Raises:
        ValueError: There is none of this name; lists the roles.
    """
    if name not in ROLES:
        raise ValueError(f"Unknown role {name!r} (--role). {nearest(name, ROLES)}")
    return ROLES[name]
