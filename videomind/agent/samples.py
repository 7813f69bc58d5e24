"""What each role sees at inference, as samples: prompts, excerpts and budgets, before any decoding."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from videomind.dataset.base import Source
from videomind.dataset.phrases import clean_query, multiple_choice
from videomind.dataset.schema import Annotation, Sample, Span
from videomind.dataset.views import verifying_excerpt
from videomind.files import FALLBACK_ENCODING, read_foreign_text
from videomind.roles import MCQ_PREFIX, UNCHANGED, BudgetOverride, VisualBudget, get_role, nearest
from videomind.spans import fit
from videomind.video.request import Excerpt

log = logging.getLogger(__name__)

STYLES = ("mcq", "options", "direct")
MAX_SUBTITLES = 100
MAX_NEW_TOKENS = 256  # of a response
_TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->\s*(\d+):(\d\d):(\d\d)[,.](\d{1,3})")


@dataclass(frozen=True, kw_only=True)
class ChainSettings:
    """How the chain runs.

    Attributes:
        style: how options are asked for: `mcq` also starts the answer, `options` only lists them,
            `direct` asks the question alone.
        planning: a plan that answers at once skips grounding.
        rephrasing: the plan's query is used.
        use_subtitle: the answerer reads the excerpt's subtitles.
        open_ended: questions without options are answered too.
        verify_query: the verifier judges by the grounder's query instead of the question (published
            scores were made with the question).
        unit_s: the source's grid, s.
        min_len_s: shortest excerpt that is answered from, s.
        min_ratio: the same as a share of the video, instead.
        answer_budget: how finely the answerer sees it, instead of the role's budget.
        budget: numbers that replace those of every role's budget.
    """

    style: str = "mcq"
    planning: bool = False
    rephrasing: bool = False
    use_subtitle: bool = False
    open_ended: bool = False
    verify_query: bool = False
    unit_s: float = Source.unit_s
    min_len_s: float = Source.min_len_s
    min_ratio: float | None = None
    answer_budget: VisualBudget | None = None
    budget: BudgetOverride = UNCHANGED

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ValueError(f"Unknown style {self.style!r} (--style). {nearest(self.style, STYLES)}")

    def budget_of(self, role: str) -> VisualBudget:
        """Tell how finely a role sees videos.

        Raises:
            ValueError: the settings' numbers fit no role.
        """
        own = self.answer_budget if role == "answerer" and self.answer_budget else get_role(role).budget
        return self.budget.applied(own)


def should_answer(anno: Annotation, settings: ChainSettings) -> bool:
    """Tell whether there is a question to answer."""
    return bool(anno.question and (anno.options or settings.open_ended))


def asked_text(anno: Annotation, settings: ChainSettings) -> str:
    """Choose what is asked: the question where one is to be answered, else the query."""
    return (anno.question if should_answer(anno, settings) else anno.query) or ""


def planner_sample(anno: Annotation, settings: ChainSettings) -> Sample:
    """Make the planner's input."""
    role = get_role("planner")
    excerpt = Excerpt(path=anno.video_path, budget=settings.budget_of(role.name), stated_s=anno.duration)
    return Sample(role=role.name, excerpt=excerpt, prompt=role.prompt(asked_text(anno, settings)))


def grounder_sample(
    path: str | list[str], query: str, settings: ChainSettings, *, stated_s: float | None = None
) -> Sample:
    """Make the grounder's input.

    Args:
        path: of the video.
        query: cleaned here.
        settings: how the chain runs.
        stated_s: how long the video is by its annotation.
    """
    role = get_role("grounder")
    excerpt = Excerpt(path=path, budget=settings.budget_of(role.name), stated_s=stated_s)
    return Sample(role=role.name, excerpt=excerpt, prompt=role.prompt(clean_query(query)))


def verifier_samples(
    path: str | list[str], text: str, spans: Sequence[Span], duration_s: float, settings: ChainSettings
) -> list[Sample]:
    """Make one input per candidate.

    Args:
        path: of the video.
        text: to judge by.
        spans: the candidates, s.
        duration_s: of the video.
        settings: how the chain runs.
    """
    role = get_role("verifier")
    samples = []
    for span in spans:
        excerpt, segment = verifying_excerpt(path, list(span), duration_s, settings.budget_of(role.name))
        samples.append(Sample(role=role.name, excerpt=excerpt, prompt=role.prompt(text), segment=segment))
    return samples


def answer_span(span: Span, duration_s: float, settings: ChainSettings) -> Span:
    """Choose the excerpt that is answered from: the moment, at least as long as the source wants, s."""
    ratio = settings.min_ratio
    return fit(span, duration_s, settings.min_len_s if ratio is None else ratio * duration_s)


def answerer_sample(
    anno: Annotation, span: Span | None, settings: ChainSettings, duration_s: float | None = None
) -> Sample:
    """Make the answerer's input.

    Args:
        anno: the question.
        span: of the excerpt, s; None is the whole video.
        settings: how the chain runs.
        duration_s: of the video, read from it if subtitles need it.
    """
    start, end = span or (None, None)
    budget, stated = settings.budget_of("answerer"), anno.duration
    excerpt = Excerpt(path=anno.video_path, budget=budget, start_s=start, end_s=end, stated_s=stated)
    prompt = question_text(anno, settings.style)
    if settings.use_subtitle and anno.subtitle_path:
        from videomind.video.excerpts import video_duration

        shown = span or [0.0, duration_s or video_duration(anno.video_path)]
        prompt = subtitle_text(read_subtitles(anno.subtitle_path), shown) + prompt
    prefix = MCQ_PREFIX if settings.style == "mcq" and anno.options else None
    return Sample(role="answerer", excerpt=excerpt, prompt=prompt, response_prefix=prefix)


def question_text(anno: Annotation, style: str) -> str:
    """Word the question, with its options unless the style is direct."""
    if style == "direct" or not anno.options:
        return anno.question
    return multiple_choice(anno.question, anno.options)


@dataclass(frozen=True, kw_only=True)
class Subtitle:
    """One line of a subtitle file."""

    start_s: float
    end_s: float
    text: str


def read_subtitles(path: str | Path) -> list[Subtitle]:
    """Read an .srt file; one that is not there, or not in Unicode, is a warning.

    Raises:
        FileError: it cannot be read, or is no text file.
    """
    if not Path(path).exists():
        log.warning("No subtitles %s", path)
        return []
    text, encoding = read_foreign_text(path)
    if encoding == FALLBACK_ENCODING:
        log.warning("The subtitles %s are not UTF-8; they are read as %s", path, encoding)
    blocks = text.replace("\r\n", "\n").split("\n\n")
    subtitles = []
    for block in blocks:
        if times := _TIMES.search(block):
            start, end = (_seconds(times.groups()[i : i + 4]) for i in (0, 4))
            text = " ".join(block[times.end() :].split())
            subtitles.append(Subtitle(start_s=start, end_s=end, text=text))
    return subtitles


def _seconds(parts: Sequence[str]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def subtitle_text(subtitles: Sequence[Subtitle], span: Span) -> str:
    """Word what the answerer reads before the question: the first subtitles in an excerpt, in its time."""
    start, end = span
    inside = [s for s in subtitles if s.start_s >= start and s.end_s <= end][:MAX_SUBTITLES]
    lines = [f"{s.start_s - start:.1f}s - {s.end_s - start:.1f}s, {s.text}\n" for s in inside]
    return f"You are given a video with {end - start:.1f} seconds long.\nSubtitles:\n" + "".join(lines)
