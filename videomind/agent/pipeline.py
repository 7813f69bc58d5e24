"""The steps of the agent at inference: prepared samples in, results out. One method per step.

Shapes: B batch, L prompt tokens, S generated tokens, D hidden size, N candidates.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessorList

from videomind.agent.finite import FiniteLogits, check_finite
from videomind.agent.memory import at_its_smallest, in_pieces, unless_too_large
from videomind.agent.samples import MAX_NEW_TOKENS
from videomind.backbones.backbone import Processor
from videomind.dataset.schema import Sample
from videomind.dataset.views import NUM_CANDIDATES
from videomind.device import uploaded
from videomind.encoding.encoder import BadSampleError, Encoded, Encoder
from videomind.model.adapters import adapter, bare
from videomind.model.grounding_head import decode
from videomind.model.role_model import RoleModel, num_positions, record_states
from videomind.roles import ALL_IN_ONE, GROUNDER_RESPONSE
from videomind.spans import to_seconds
from videomind.video.excerpts import Frames, read_excerpts, video_duration
from videomind.video.reader import refuse_damage
from videomind.video.readers import is_gif
from videomind.video.request import USE

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A sample ready for the model.

    Attributes:
        sample: what it was made of.
        encoded: its tensors.
        duration_s: of the whole video.
        seconds: that decoding and encoding took.
        problems: of its video, one line each.
    """

    sample: Sample
    encoded: Encoded
    duration_s: float
    seconds: float
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A response.

    Attributes:
        ids: (S).
        text: without the end mark.
        states: (L + S - 1 or more, D).
    """

    ids: list[int]
    text: str
    states: Tensor


@dataclass(frozen=True, kw_only=True)
class GrounderOutput:
    """What the grounder says.

    Attributes:
        response: its text.
        success: whether it pointed at a moment.
        boundaries: (N, 3), start and end as fractions of the video (may exceed [0, 1]) and score, best first;
            (0, 3) without success.
    """

    response: str
    success: bool
    boundaries: Tensor

    def scored_spans(self, duration_s: float, unit_s: float) -> tuple[list[list[float]], list[float]]:
        """Give candidates in seconds and their scores; the whole video with score 0 without success."""
        if not self.success:
            return [[0, duration_s]], [0]
        spans = to_seconds(self.boundaries[:, :2], duration_s=duration_s, unit_s=unit_s)
        return spans.tolist(), self.boundaries[:, 2].tolist()


def prepare(sample: Sample, encoder: Encoder) -> Prepared:
    """Decode and encode a sample.

    Raises:
        BadVideoError: its video cannot be used.
    """
    return prepare_all([sample], encoder)[0]


def prepare_all(samples: Sequence[Sample], encoder: Encoder, *, on_damage: str = USE) -> list[Prepared]:
    """Decode and encode samples of one video; runs ahead of the model, in threads.

    Neighbours of the same pixels per frame are decoded in one pass.

    Args:
        samples: of the video.
        encoder: makes their tensors.
        on_damage: `use` or `skip`, what becomes of a video that has problems.

    Raises:
        BadVideoError: their video cannot be used.
    """
    prepared: list[Prepared] = []
    for _, alike in groupby(samples, key=_decoded_alike):
        group, start = list(alike), time.perf_counter()
        read = read_excerpts([encoder.excerpt(sample) for sample in group])
        for frames in read:
            refuse_damage(frames.problems, on_damage)
        encoded = [encoder(sample, frames.frames) for sample, frames in zip(group, read, strict=True)]
        duration, seconds = _duration(group[0], read[0]), time.perf_counter() - start
        prepared += [
            Prepared(
                sample=sample,
                encoded=e,
                duration_s=duration,
                seconds=seconds / len(group),
                problems=tuple(frames.problems),
            )
            for sample, e, frames in zip(group, encoded, read, strict=True)
        ]
    return prepared


def _duration(sample: Sample, frames: Frames) -> float:
    """Tell the length of the sample's video, s. A .gif's own rate is that of the budget which read it."""
    path = sample.excerpt.path
    if isinstance(path, str) and is_gif(path):
        return video_duration(path)
    return frames.total_frames / frames.fps


def _decoded_alike(sample: Sample) -> tuple:
    excerpt, budget = sample.excerpt, sample.excerpt.budget
    return excerpt.path, budget.min_tokens, budget.max_tokens, budget.fps, budget.square_pixels


def model_inputs(
    encoded: Sequence[Encoded], model: RoleModel | PeftModel, processor: Processor, *, has_mask: bool = False
) -> dict[str, Tensor]:
    """Make a batch on the model's device, padded on the right, as the backbone's forward wants it.

    Args:
        encoded: of the batch.
        model: whose device it is.
        has_mask: whether to give the mask, which `generate` would otherwise guess from the ids.

    Raises:
        BadSampleError: a prompt is longer than what the model was made for.
    """
    inner = bare(model)
    _check_length(encoded, inner)
    ids = pad_sequence([e.input_ids for e in encoded], batch_first=True)
    mask = pad_sequence([torch.ones_like(e.input_ids) for e in encoded], batch_first=True)
    patches = torch.cat([e.pixel_values for e in encoded])
    grids = torch.stack([e.grid for e in encoded])
    parts = (ids, mask if has_mask else None, patches, grids)
    ids, mask, patches, grids = (None if part is None else uploaded(part, inner.device) for part in parts)
    pixels = processor.normalized(patches)
    return inner.backbone.model_inputs(ids, mask, pixels, grids, config=inner.config)


def _check_length(encoded: Sequence[Encoded], model: RoleModel) -> None:
    """Refuse a prompt that is longer than what the model was made for."""
    longest, limit = max(len(e.input_ids) for e in encoded), num_positions(model)
    if longest > limit:
        raise BadSampleError(
            f"its prompt has {longest} tokens, the model has {limit} positions (max_position_embeddings): "
            "show it fewer frames or smaller ones (--max_frames, --max_tokens_per_frame)"
        )


class Pipeline:
    """Runs the steps of one model, each under its role's adapter.

    Without an answerer's adapter the base model answers.

    Args:
        model: with the adapters of its roles.
        processor: of its base.
        roles: that it was trained for (a merged model has no adapter to tell), by default those that have
            an adapter.
        max_new_tokens: of a response.

    Attributes:
        roles: that it plays.
        grounder_draft: ids of what the grounder is expected to say.
    """

    def __init__(
        self,
        model: RoleModel | PeftModel,
        processor: Processor,
        *,
        roles: Sequence[str] | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ):
        self.model, self.processor, self.max_new_tokens = model.eval(), processor, max_new_tokens
        self._adapters = tuple(model.peft_config) if isinstance(model, PeftModel) else ()
        self.roles = self._adapters if roles is None else tuple(roles)
        tokenizer = processor.tokenizer
        end_mark = processor.backbone.end_mark
        ends = {processor.token_id(end_mark), tokenizer.pad_token_id}
        # What is not set here is taken from the checkpoint, whose published values are those of a chat.
        self._generation = GenerationConfig(
            do_sample=False,
            temperature=1.0,
            top_p=1.0,
            top_k=50,
            repetition_penalty=1.0,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
        )
        self._judged_at_once = NUM_CANDIDATES
        self._shrunk: list[str] = []  # steps that had to be made smaller
        self.grounder_draft = self._tokens(GROUNDER_RESPONSE + end_mark)

    def _tokens(self, text: str) -> list[int]:
        return self.processor.tokenizer.encode(text, add_special_tokens=False)

    def _as(self, role: str) -> AbstractContextManager:
        """Open a block under a role's adapter; an all-in-one adapter plays every role."""
        if role not in self._adapters and ALL_IN_ONE in self._adapters:
            role = ALL_IN_ONE
        return adapter(self.model, role if role in self._adapters else None)

    def has(self, role: str) -> bool:
        """Tell whether the model was trained for a role."""
        return role in self.roles or ALL_IN_ONE in self.roles

    @torch.inference_mode()
    def plan(self, prepared: Prepared) -> str:
        """Say which roles are needed, in a response that `parse_plan` reads."""
        with self._as("planner"):
            return self._fitted("planner", lambda: self.generate(prepared.encoded)).text

    @torch.inference_mode()
    def verify(self, prepared: Sequence[Prepared]) -> list[float]:
        """Judge candidates, all in one batch, or as many as the device's memory holds.

        Returns:
            sigmoid(p(Yes) - p(No)) of the next-token probabilities of each, as published scores were made;
            it lies within (0.27, 0.73).
        """
        verdicts: list[float] = []
        while len(verdicts) < len(prepared):
            batch = prepared[len(verdicts) : len(verdicts) + self._judged_at_once]
            if len(batch) == 1:
                verdicts += self._fitted("verifier", lambda batch=batch: self._verdicts(batch))
                continue
            judged = unless_too_large(lambda batch=batch: self._verdicts(batch))
            if isinstance(judged, list):
                verdicts += judged
                continue
            self._judged_at_once = len(batch) // 2
            log.warning("Too little memory to judge %d candidates at once; from now on %d",
                        len(batch), self._judged_at_once)  # fmt: skip
        if self._judged_at_once < min(len(prepared), NUM_CANDIDATES):
            self._shrunk.append(f"verifier: {self._judged_at_once} candidates at once")
        return verdicts

    def _fitted(self, role: str, step: Callable[[], T]) -> T:
        """Run a role's step; where the device's memory is too small for it, once more in pieces.

        Raises:
            OutOfMemoryError: it is too small for those, too.
        """
        result = unless_too_large(step)
        if not isinstance(result, RuntimeError):
            return result
        log.warning("Too little memory for the %s's step: once more in smaller pieces", role)
        self._shrunk.append(f"{role}: in smaller pieces")
        with in_pieces(self.model):
            return at_its_smallest(step)

    def take_shrunk(self) -> list[str]:
        """Tell which steps were made smaller, for want of memory, since this was last asked; a line each."""
        taken, self._shrunk = self._shrunk, []
        return list(dict.fromkeys(taken))

    def _verdicts(self, prepared: Sequence[Prepared]) -> list[float]:
        inputs = model_inputs([p.encoded for p in prepared], self.model, self.processor)
        inner = bare(self.model)
        with self._as("verifier"):
            hidden = inner.base_model(**inputs, use_cache=False).last_hidden_state
            last = torch.stack([hidden[i, len(p.encoded.input_ids) - 1] for i, p in enumerate(prepared)])
            words = inner.get_output_embeddings()
            logits = words(last)
            verdict_ids = list(self.processor.verdict_ids)
            if logits.dtype != torch.float32:  # equal windows would be told apart by rounding
                rows = words.weight[verdict_ids].float()
                logits = logits.float()
                logits[:, verdict_ids] = last.to(rows.device).float() @ rows.T
        check_finite(logits, "the verifier's verdicts")
        yes, no = logits.float().softmax(dim=-1)[:, verdict_ids].unbind(dim=1)
        return (yes - no).sigmoid().tolist()

    @torch.inference_mode()
    def answer(self, prepared: Prepared) -> str:
        """Answer a question about an excerpt, with the answerer's adapter or the base model."""
        with self._as("answerer"):
            return self._fitted("answerer", lambda: self.generate(prepared.encoded)).text

    @torch.inference_mode()
    def ground(self, prepared: Prepared) -> GrounderOutput:
        """Find the moments of a query.

        Args:
            prepared: from a `grounder_sample`.
        """
        encoded = prepared.encoded
        # 1. Let the grounder answer. What it is trained to say is known, so that is checked first.
        with self._as("grounder"):
            out = self._fitted("grounder", lambda: self.generate(encoded, draft=self.grounder_draft))
        # 2. It points at a moment by saying <|reg|>; without one there is nothing to decode.
        inner = bare(self.model)
        reg = inner.config.reg_token_id
        if reg not in out.ids or inner.head is None:
            return GrounderOutput(response=out.text, success=False, boundaries=torch.empty(0, 3))
        # 3. The query is the state that *predicts* the first <|reg|>, one place before it, as in training.
        query = out.states[len(encoded.input_ids) - 1 + out.ids.index(reg)]
        # 4. The clips are the video's states of the same pass, averaged per temporal step.
        clips = inner.clip_states(out.states, encoded.input_ids, encoded.grid.tolist())
        # 5. The head may be on another device than the last layer when the model is spread. Nothing is
        #    padded, unlike in training (K302).
        device = next(inner.head.parameters()).device
        boundaries = decode(inner.head([clips.to(device)], [query[None].to(device)]), clips.size(0))[0]
        check_finite(boundaries, "the grounder's moments")
        return GrounderOutput(response=out.text, success=True, boundaries=boundaries)

    def generate(self, encoded: Encoded, draft: list[int] | None = None) -> Generated:
        """Respond greedily.

        Args:
            encoded: the prompt.
            draft: ids the model is expected to say. They are checked in the same forward pass that reads
                the prompt; if greedy decoding gives exactly them, nothing has to be decoded step by step.
        """
        _check_length([encoded], bare(self.model))
        if draft and (checked := self._check_draft(encoded, draft)):
            return checked
        inputs = model_inputs([encoded], self.model, self.processor, has_mask=True)
        watch = FiniteLogits()
        with record_states(self.model) as states:
            sequence = self.model.generate(
                **inputs, generation_config=self._generation, logits_processor=LogitsProcessorList([watch])
            )
        watch.check()
        ids = sequence[0, inputs["input_ids"].size(1) :].tolist()
        return self._generated(ids, torch.cat(states, dim=1)[0])

    def _check_draft(self, encoded: Encoded, draft: list[int]) -> Generated | None:
        ids = encoded.input_ids
        full = torch.cat((ids, ids.new_tensor(draft)))
        inputs = model_inputs([replace(encoded, input_ids=full)], self.model, self.processor)
        # The last ones, and one more for what comes behind the draft. A count, as an index would have to lie
        # where the last layer does.
        with record_states(self.model) as states:
            logits = self.model(**inputs, logits_to_keep=len(draft) + 1, use_cache=False).logits
        check_finite(logits, "what the model says")
        said = logits[0, :-1].argmax(-1).tolist()
        return self._generated(draft, states[0][0]) if said == draft else None

    def _generated(self, ids: list[int], states: Tensor) -> Generated:
        # Special tokens such as <|reg|> belong to the text; only the end marks do not.
        ends = set(self._generation.eos_token_id)
        body = ids[:-1] if ids and ids[-1] in ends else ids
        return Generated(ids=ids, text=self.processor.tokenizer.decode(body), states=states)
