"""The roles one backbone plays, each a declaration: prompt, visual budget, adapter and what trains.

The prompt strings live in `prompts.json`; published adapters only work with exactly those strings.
Budgets are those the published checkpoints were trained with.
"""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

from videomind.faults import RunError

PROMPTS: dict = json.loads(resources.files("videomind").joinpath("prompts.json").read_text(encoding="utf-8"))

REG_TOKEN: str = PROMPTS["reg_token"]
SEG_START_TOKEN: str = PROMPTS["seg_start_token"]
SEG_END_TOKEN: str = PROMPTS["seg_end_token"]
SPECIAL_TOKENS = (REG_TOKEN, SEG_START_TOKEN, SEG_END_TOKEN)  # in the order of their ids

PIXELS_PER_TOKEN = 28 * 28  # patch 14, merged 2 x 2


@dataclass(frozen=True, kw_only=True)
class VisualBudget:
    """How finely a video is sampled.

    Attributes: min_tokens, max_tokens per frame (units of 28 x 28 pixels); min_frames, max_frames;
    fps, frames per second of video.
    """

    min_tokens: int
    max_tokens: int
    max_frames: int
    fps: float
    min_frames: int = 4

    @property
    def min_pixels(self) -> int:
        """Lower bound of a resized frame's area, pixels."""
        return self.min_tokens * PIXELS_PER_TOKEN

    @property
    def max_pixels(self) -> int:
        """Upper bound of a resized frame's area, pixels."""
        return self.max_tokens * PIXELS_PER_TOKEN


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
        """The user's text of this role for a query or question; the answerer's is the question itself."""
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
    """The end of an error message: what is allowed, and the closest match if there is one."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Allowed: {', '.join(allowed)}.{hint}"


def get_role(name: str) -> Role:
    """Look a role up by name. Raises ValueError that lists the roles."""
    if name not in ROLES:
        raise ValueError(f"Unknown role {name!r} (--role). {nearest(name, ROLES)}")
    return ROLES[name]


_BUDGET_FLAGS = {
    "min_tokens": "min_tokens_per_frame",
    "max_tokens": "max_tokens_per_frame",
    "max_frames": "max_frames",
    "fps": "fps",
}


BUDGET_FLAGS = tuple(_BUDGET_FLAGS.values())


def budget_numbers(arguments: object) -> dict[str, float | None]:
    """What a command line says of visual budgets, for `budget_override`. Args: arguments, with its flags."""
    return {name: getattr(arguments, flag) for name, flag in _BUDGET_FLAGS.items()}


def budget_override(
    budget: VisualBudget,
    *,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    max_frames: int | None = None,
    fps: float | None = None,
) -> VisualBudget | None:
    """A budget with some numbers replaced; None when nothing is. Raises: ValueError."""
    given = {"min_tokens": min_tokens, "max_tokens": max_tokens, "max_frames": max_frames, "fps": fps}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return None
    budget = VisualBudget(**{**vars(budget), **given})
    if not 0 < budget.min_tokens <= budget.max_tokens:
        raise RunError(
            f"The visual budget needs 0 < min <= max tokens per frame, not {budget.min_tokens} and "
            f"{budget.max_tokens} (--min_tokens_per_frame, --max_tokens_per_frame)"
        )
    return budget
