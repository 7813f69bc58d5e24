"""The chain of roles on one sample: plan, ground, verify, answer, and what it found.

The chain is a generator: it asks for samples to be prepared and gets them back, so that whoever drives it
decides where decoding happens: at once (`drive`), or in threads while the model works on other samples.
"""

import json
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from videomind.agent.pipeline import Pipeline, Prepared
from videomind.agent.samples import (
    ChainSettings,
    answer_span,
    answerer_sample,
    asked_text,
    grounder_sample,
    planner_sample,
    should_answer,
    verifier_samples,
)
from videomind.dataset.schema import Annotation, Sample, Span
from videomind.dataset.views import NUM_CANDIDATES
from videomind.encoding.encoder import BadSampleError, Encoder
from videomind.prediction import Prediction

TIE = 1e-6  # scores that differ by no more keep the grounder's order


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the planner said.

    Attributes:
        response: its text.
        should_ground: whether a moment is to be found first.
        query: what its plan wants found instead of the question, as it stood there, or None.
        is_readable: whether the response could be parsed.
    """

    response: str
    should_ground: bool = True
    query: Any = None
    is_readable: bool = True


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A candidate moment.

    Attributes:
        span: [start, end], s.
        score: the grounder's.
        verdict: the verifier's, None where it did not judge it.
    """

    span: Span
    score: float
    verdict: float | None = None


@dataclass(kw_only=True)
class Result:
    """What the chain found for one sample.

    Attributes:
        agents: the roles that ran.
        plan: what the planner said.
        query: what the grounder was asked.
        grounder_response: what it said.
        is_grounded: whether it pointed at a moment; None when it was not asked.
        proposed: the grounder's candidates, best first.
        candidates: the final order, reordered by the verifier (then the best five).
        ranks: places of the final candidates among the proposed, when a verifier ran.
        excerpt: what was answered from, s; None is the whole video.
        answer: what the answerer said.
        duration: of the video, s.
        problems: of the video as the roles saw it, one line each.
        memory_fallbacks: steps that were made smaller because the device's memory was too small.
        timings: seconds by step; `decode` is work of the preparing threads.
    """

    agents: list[str] = field(default_factory=list)
    plan: Plan | None = None
    query: str | None = None
    grounder_response: str | None = None
    is_grounded: bool | None = None
    proposed: list[Candidate] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    ranks: list[int] | None = None
    excerpt: Span | None = None
    answer: str | None = None
    duration: float | None = None
    problems: list[str] = field(default_factory=list)
    memory_fallbacks: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    def prediction(self, anno: Annotation) -> Prediction:
        """Make the line of output.jsonl: the annotation, and what was found, by the published names."""
        fields = annotation_fields(anno)
        if self.duration is not None:
            fields["duration"] = self.duration
        said: dict[str, Any] = {
            "video_problems": self.problems or None,
            "memory_fallbacks": self.memory_fallbacks or None,
            "agents": self.agents,
            "answerer_response": self.answer,
            "response": self.answer,
        }
        if self.plan is not None:
            said |= {"planner_response": self.plan.response, "planner_parsed_query": self.plan.query}
            said["planner_unparsable"] = None if self.plan.is_readable else True
        if self.is_grounded is not None:
            said |= {"grounder_response": self.grounder_response, "grounder_success": self.is_grounded}
            said |= {"pred": [c.span for c in self.candidates], "conf": [c.score for c in self.candidates]}
        if self.ranks is not None:
            said["probs"] = [c.verdict for c in self.proposed[: len(self.ranks)]]
            said |= {"ranks": self.ranks, "pred_ori": [c.span for c in self.proposed]}
            said["conf_ori"] = [c.score for c in self.proposed]
        return Prediction(annotation=fields, **said)


def annotation_fields(anno: Annotation) -> dict[str, Any]:
    """Pick what a prediction keeps of its annotation: all but a candidate to judge, its own `pred`."""
    return {name: value for name, value in anno.to_dict().items() if name != "pred"}


Chain = Generator[list[Sample], list[Prepared], Result]


def chain(pipeline: Pipeline, encoder: Encoder, anno: Annotation, settings: ChainSettings) -> Chain:
    """Run all roles that the model has on one sample.

    It is sent the samples that it yielded, prepared.

    Args:
        pipeline: the model's steps.
        encoder: makes their inputs.
        anno: what is asked about which video.
        settings: how the chain runs.

    Yields:
        Samples to prepare, of one video.

    Returns:
        What was found.
    """
    result = Result(duration=anno.duration)
    asked = asked_text(anno, settings)
    if not asked:
        raise BadSampleError("nothing to ask: neither query nor question")
    should_plan = pipeline.has("planner") and (settings.planning or settings.rephrasing)
    should_ground = pipeline.has("grounder")
    # 1. Planner and grounder see the whole video: asked for together, it is decoded once (D508).
    requests = {"planner": planner_sample(anno, settings)} if should_plan else {}
    if should_ground:
        requests["grounder"] = grounder_sample(anno.video_path, asked, settings, stated_s=anno.duration)
    inputs: dict[str, Prepared] = {}
    if requests:
        inputs = dict(zip(requests, _received(result, (yield list(requests.values()))), strict=True))
    # 2. The plan may have another query found, or nothing at all.
    if should_plan:
        response = _timed(pipeline, result, "planner", lambda: pipeline.plan(inputs["planner"]))
        result.plan = parse_plan(response, rephrasing=settings.rephrasing, planning=settings.planning)
        should_ground = should_ground and result.plan.should_ground
    if should_ground:
        # 3. The same frames under the plan's query give the candidates.
        result.query = _plain_query(result.plan, asked)
        if result.query != asked:
            inputs["grounder"] = _with_query(inputs["grounder"], result.query, encoder, settings)
        _ground(pipeline, result, inputs["grounder"], settings)
        # 4. The verifier judges the best of them, by the question as it stands (K502).
        if pipeline.has("verifier") and len(result.proposed) > 1:
            text = result.query if settings.verify_query else asked
            spans = [candidate.span for candidate in result.proposed[:NUM_CANDIDATES]]
            samples = verifier_samples(anno.video_path, text, spans, result.duration, settings)
            judged = _received(result, (yield samples))
            _apply(result, _timed(pipeline, result, "verifier", lambda: pipeline.verify(judged)))
    # 5. The best candidate is answered from, or the whole video.
    if should_answer(anno, settings):
        if result.candidates:
            result.excerpt = answer_span(result.candidates[0].span, result.duration, settings)
        sample = answerer_sample(anno, result.excerpt, settings, result.duration)
        (seen,) = _received(result, (yield [sample]))
        result.answer = _timed(pipeline, result, "answerer", lambda: pipeline.answer(seen))
    return result


def drive(steps: Chain, prepare: Callable[[list[Sample]], list[Prepared]]) -> Result:
    """Drive a chain to its end, preparing in place."""
    ready: list[Prepared] | None = None  # what starts a generator
    while True:
        try:
            samples = steps.send(ready)
        except StopIteration as end:
            return end.value
        ready = prepare(samples)


def _received(result: Result, prepared: list[Prepared]) -> list[Prepared]:
    """Take what the chain asked for; note its cost, and the video's length where it was not known."""
    if result.duration is None:
        result.duration = prepared[0].duration_s
    said = dict.fromkeys(problem for item in prepared for problem in item.problems)
    result.problems += [problem for problem in said if problem not in result.problems]
    spent = sum(item.seconds for item in prepared)
    result.timings["decode"] = result.timings.get("decode", 0.0) + spent
    return prepared


def _timed(pipeline: Pipeline, result: Result, role: str, step: Callable[[], Any]) -> Any:
    """Run a role's step and note that it ran, for how long, and whether it had to be made smaller."""
    result.agents.append(role)
    start = time.perf_counter()
    try:
        value = step()
    finally:
        shrunk = pipeline.take_shrunk()  # of one that fails too, or the next question would have it
    result.timings[role] = time.perf_counter() - start
    result.memory_fallbacks += shrunk
    return value


def parse_plan(response: str, *, rephrasing: bool, planning: bool) -> Plan:
    """Read a plan: only its first action counts. One that cannot be read changes nothing, and says so.

    Args:
        response: what the planner said.
        rephrasing: whether a grounder's value becomes the query.
        planning: whether an answerer that comes first skips grounding.
    """
    try:
        plan = json.loads(response)
        action = plan[0] if isinstance(plan, list) else plan
        role = action["type"].lower() if rephrasing or planning else None
        if rephrasing and role == "grounder":
            return Plan(response=response, query=action["value"] or None)
        return Plan(response=response, should_ground=not (planning and role == "answerer"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Plan(response=response, is_readable=False)


def _plain_query(plan: Plan | None, asked: str) -> str:
    """Make the text that the grounder is asked; a planner's value that is no text is written as JSON."""
    if plan is None or plan.query is None:
        return asked
    return plan.query if isinstance(plan.query, str) else json.dumps(plan.query, ensure_ascii=False)


def _with_query(ready: Prepared, query: str, encoder: Encoder, settings: ChainSettings) -> Prepared:
    """Put another query under the grounder's frames, which need not be decoded again."""
    excerpt = ready.sample.excerpt
    sample = grounder_sample(excerpt.path, query, settings, stated_s=excerpt.stated_s)
    return replace(ready, sample=sample, encoded=encoder.with_text(sample, ready.encoded))


def _ground(pipeline: Pipeline, result: Result, prepared: Prepared, settings: ChainSettings) -> None:
    """Find candidates. Without a moment a verifier chooses among five spans, else it is the whole video."""
    output = _timed(pipeline, result, "grounder", lambda: pipeline.ground(prepared))
    result.grounder_response, result.is_grounded = output.response, output.success
    spans, scores = output.scored_spans(result.duration, settings.unit_s)
    if not output.success and pipeline.has("verifier"):
        spans, scores = even_spans(result.duration), [0] * NUM_CANDIDATES
    result.proposed = [Candidate(span=s, score=c) for s, c in zip(spans, scores, strict=True)]
    result.candidates = result.proposed


def even_spans(duration_s: float) -> list[Span]:
    """Make five spans of a third of the video, one every sixth, s."""
    step = duration_s / (NUM_CANDIDATES + 1)
    return [[i * step, (i + 2) * step] for i in range(NUM_CANDIDATES)]


def _apply(result: Result, verdicts: Sequence[float]) -> None:
    """Reorder the judged candidates; the others are no longer candidates."""
    judged = [
        Candidate(span=c.span, score=c.score, verdict=v)
        for c, v in zip(result.proposed, verdicts, strict=False)
    ]
    result.proposed = judged + result.proposed[len(judged) :]
    result.ranks = ranking(verdicts)
    result.candidates = [judged[i] for i in result.ranks]


def ranking(verdicts: Sequence[float]) -> list[int]:
    """List the places of the verdicts from the best to the worst; those within 1e-6 keep their order."""
    order = sorted(range(len(verdicts)), key=lambda i: -verdicts[i])
    groups: list[list[int]] = []
    for i in order:
        if groups and verdicts[groups[-1][-1]] - verdicts[i] <= TIE:
            groups[-1].append(i)
        else:
            groups.append([i])
    return [i for group in groups for i in sorted(group)]
