"""Views: what a role is asked to do with an annotation. Each turns an Annotation into a Sample.

A source registers its names with a view; training and inference use the same one.
"""

import json
import random
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

from videomind.dataset.schema import Annotation, GroundingTarget, Route, Sample
from videomind.roles import GROUNDER_RESPONSE, VERIFIER_NO, VERIFIER_YES, VisualBudget, get_role
from videomind.spans import fit, widen
from videomind.video.request import Excerpt

CROP_MIN_S = 16.0  # 32 frames at 2 fps
VERIFY_MIN_S = 2.0
NUM_CANDIDATES = 5  # the best ones of a query that the verifier judges


class View(ABC):
    """How annotations become samples of one role.

    Attributes:
        role: its name.
        data_type: of the samples; a micro-batch holds one type.
        required: the annotation's fields that training needs.
    """

    role: ClassVar[str]
    data_type: ClassVar[str | None] = "multimodal"
    required: ClassVar[tuple[str, ...]]

    @abstractmethod
    def sample(self, anno: Annotation, rng: random.Random) -> Sample:
        """Make the training sample of an annotation.

        Args:
            anno: of which `problem` finds nothing.
            rng: for crops; the same state gives the same.
        """

    @abstractmethod
    def text(self, anno: Annotation) -> str:
        """Give the text whose words the length filters count."""

    def num_words(self, anno: Annotation) -> int:
        """Count what the length filters count: pieces between single spaces."""
        return len(self.text(anno).split(" "))

    def problem(self, anno: Annotation) -> str | None:
        """Say why an annotation cannot train, or None."""
        lacking = [name for name in self.required if getattr(anno, name) in (None, [], "")]
        return f"no {', '.join(lacking)}" if lacking else None

    def is_outside(self, anno: Annotation) -> bool:
        """Tell whether a moment that is to be learned lies wholly outside its video."""
        return False

    def _sample(self, anno: Annotation, text: str, response: str, **fields: object) -> Sample:
        role = get_role(self.role)
        excerpt = fields.pop("excerpt", None) or Excerpt(path=anno.video_path, budget=role.budget)
        return Sample(
            role=self.role,
            excerpt=replace(excerpt, stated_s=anno.duration),
            prompt=role.prompt(text),
            response=response,
            source=anno.source,
            data_type=anno.data_type or self.data_type,
            **fields,
        )


class Grounding(View):
    """Find the moment that a query describes."""

    role = "grounder"
    data_type = "grounding"
    required = ("video_path", "duration", "query", "span")

    def text(self, anno: Annotation) -> str:
        return anno.query

    def is_outside(self, anno: Annotation) -> bool:
        return any(max(span) <= 0 or min(span) >= anno.duration for span in anno.span)

    def sample(self, anno: Annotation, rng: random.Random) -> Sample:
        target = GroundingTarget(spans=anno.span, duration_s=anno.duration)
        return self._sample(anno, anno.query, GROUNDER_RESPONSE, grounding=target)


class Answering(View):
    """Answer a question from the whole video; options are not shown in training."""

    role = "answerer"
    required = ("video_path", "question", "answer")

    def text(self, anno: Annotation) -> str:
        return f"{anno.question} {anno.answer}"

    def sample(self, anno: Annotation, rng: random.Random) -> Sample:
        return self._sample(anno, anno.question, anno.answer)


class AnsweringCrop(Answering):
    """Answer a question from a jittered crop about its moment."""

    required = ("video_path", "duration", "question", "answer", "span")

    def sample(self, anno: Annotation, rng: random.Random) -> Sample:
        """Draw the crop anew with every call."""
        start, end = anno.span[0]
        if not anno.no_aug:
            # At least 16 s, then each end moved by at most a quarter of that, by itself.
            start, end = fit((start, end), anno.duration, CROP_MIN_S)
            reach = (end - start) / 4
            start, end = (t + rng.uniform(-reach, reach) for t in (start, end))
            start, end = fit((start, end), anno.duration)
        budget = get_role(self.role).budget
        excerpt = Excerpt(path=anno.video_path, budget=budget, start_s=start, end_s=end)
        return self._sample(anno, anno.question, anno.answer, excerpt=excerpt)


class Verifying(View):
    """Judge whether a candidate moment is right, seen with its surroundings."""

    role = "verifier"
    required = ("video_path", "duration", "query", "pred", "positive")

    def text(self, anno: Annotation) -> str:
        return anno.query

    def sample(self, anno: Annotation, rng: random.Random) -> Sample:
        excerpt, segment = verifying_excerpt(anno.video_path, anno.pred, anno.duration)
        response = VERIFIER_YES if anno.positive else VERIFIER_NO
        return self._sample(anno, anno.query, response, excerpt=excerpt, segment=segment)


def verifying_excerpt(
    path: str | list[str], candidate: list[float], duration_s: float, budget: VisualBudget | None = None
) -> tuple[Excerpt, tuple[float, float]]:
    """Choose what the verifier sees: the candidate, at least 2 s long, widened by half of it on both sides.

    Args:
        path: of the video.
        candidate: [start, end], s.
        duration_s: of the video.
        budget: instead of the role's.

    Returns:
        The excerpt, and the candidate's place within it as fractions (start, end).
    """
    start, end = fit(candidate, duration_s, VERIFY_MIN_S)
    excerpt_start, excerpt_end = widen((start, end), duration_s)
    length = excerpt_end - excerpt_start
    budget = budget or get_role("verifier").budget
    excerpt = Excerpt(path=path, budget=budget, start_s=excerpt_start, end_s=excerpt_end)
    return excerpt, ((start - excerpt_start) / length, (end - excerpt_start) / length)


class Planning(View):
    """Say which roles are needed, as a JSON list."""

    role = "planner"
    required = ("video_path", "route", "question")

    def text(self, anno: Annotation) -> str:
        return f"{anno.question or ''} {anno.query or ''}"

    def problem(self, anno: Annotation) -> str | None:
        """Ask for a query too, where the route grounds it."""
        if problem := super().problem(anno):
            return problem
        if anno.route not in list(Route):
            return f"unknown route {anno.route!r}"
        return "no query" if Route(anno.route).has_query and not anno.query else None

    def sample(self, anno: Annotation, rng: random.Random) -> Sample:
        return self._sample(anno, anno.question, plan_response(anno))


def plan_response(anno: Annotation) -> str:
    """Write the plan of an annotation's route.

    Raises:
        ValueError: It has no known route.
    """
    verifier, answerer = {"type": "verifier"}, {"type": "answerer"}
    plans = {
        Route.REPHRASED: [{"type": "grounder", "value": anno.query}, verifier, answerer],
        Route.QUESTION: [{"type": "grounder", "value": anno.question}, verifier, answerer],
        Route.MOMENT: [{"type": "grounder", "value": anno.query}, verifier],
        Route.DIRECT: [answerer],
    }
    if anno.route not in plans:
        allowed = ", ".join(str(route) for route in Route)
        raise ValueError(f"Unknown route {anno.route!r} of {anno.video_path}. Allowed: {allowed}.")
    return json.dumps(plans[anno.route], ensure_ascii=False)
