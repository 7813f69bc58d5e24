"""The steps of the agent at inference: prepared samples in, typed results out.

Shapes: L prompt tokens, S generated tokens, D hidden size, N candidates.
"""

from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig

from videomind.dataset.encoding import Encoded, Encoder
from videomind.dataset.phrases import clean_query
from videomind.dataset.schema import Annotation, Sample, VideoClip
from videomind.dataset.video import read_clip
from videomind.model.adapters import adapter, bare
from videomind.model.grounding_head import decode
from videomind.model.qwen2_vl import AgentQwen2VL, clip_states, record_states
from videomind.processing import Processor
from videomind.roles import GROUNDER_RESPONSE, VisualBudget, get_role
from videomind.spans import to_seconds

MAX_NEW_TOKENS = 256
_END = "<|im_end|>"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A sample ready for the model: decoded and encoded. Attributes: sample, encoded."""

    sample: Sample
    encoded: Encoded


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A response. Attributes: ids (S), text without the end mark, states (L + S - 1 or more, D)."""

    ids: list[int]
    text: str
    states: Tensor


@dataclass(frozen=True, kw_only=True)
class Grounding:
    """What the grounder says.

    Attributes: response; success, whether it pointed at a moment; boundaries (N, 3): start and end as
    fractions of the video (may exceed [0, 1]) and score, best first, (0, 3) without success.
    """

    response: str
    success: bool
    boundaries: Tensor

    def windows(self, duration_s: float, unit_s: float) -> tuple[list[list[float]], list[float]]:
        """Candidates in seconds and their scores; the whole video with score 0 without success."""
        if not self.success:
            return [[0.0, duration_s]], [0.0]
        spans = to_seconds(self.boundaries[:, :2], duration_s=duration_s, unit_s=unit_s)
        return spans.tolist(), self.boundaries[:, 2].tolist()


def grounding_query(anno: Annotation) -> str:
    """What the grounder is asked: the question where one is to be answered, else the query."""
    asked = anno.question if anno.question and anno.options else anno.query
    return clean_query(asked or "")


def grounder_sample(path: str | list[str], query: str, budget: VisualBudget | None = None) -> Sample:
    """The grounder's input. Args: path of the video; query, cleaned; budget instead of the role's."""
    role = get_role("grounder")
    clip = VideoClip(path=path, budget=budget or role.budget)
    return Sample(role=role.name, clip=clip, prompt=role.prompt(query))


def prepare(sample: Sample, encoder: Encoder) -> Prepared:
    """Decode and encode a sample; runs ahead of the model, in threads or workers. Raises: BadVideoError."""
    frames = read_clip(sample.clip).frames
    return Prepared(sample=sample, encoded=encoder(sample, frames))


def model_inputs(encoded: Encoded, model: AgentQwen2VL | PeftModel) -> dict[str, Tensor]:
    """A batch of one on the model's device."""
    inner = bare(model)
    ids = encoded.input_ids[None].to(inner.device)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == inner.config.video_token_id).int() * 2,
        "pixel_values_videos": encoded.pixel_values.to(inner.device),
        "video_grid_thw": encoded.grid[None].to(inner.device),
    }


class Pipeline:
    """Runs the roles of one model.

    Args: model with the adapters of its roles; processor; max_new_tokens.
    """

    def __init__(
        self,
        model: AgentQwen2VL | PeftModel,
        processor: Processor,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ):
        self.model, self.processor, self.max_new_tokens = model.eval(), processor, max_new_tokens
        tokenizer = processor.tokenizer
        ends = {processor.token_id(_END), tokenizer.pad_token_id}
        self._generation = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
        )
        self._grounder_draft = self._tokens(GROUNDER_RESPONSE + _END)

    def _tokens(self, text: str) -> list[int]:
        return self.processor.tokenizer.encode(text, add_special_tokens=False)

    @torch.inference_mode()
    def ground(self, prepared: Prepared) -> Grounding:
        """Find the moments of a query. Args: prepared, from a `grounder_sample`."""
        encoded = prepared.encoded
        with adapter(self.model, "grounder"):
            out = self.generate(encoded, draft=self._grounder_draft)
        inner = bare(self.model)
        reg = inner.config.reg_token_id
        if reg not in out.ids or inner.head is None:
            return Grounding(response=out.text, success=False, boundaries=torch.empty(0, 3))
        length = len(encoded.input_ids)
        query = out.states[length - 1 + out.ids.index(reg)]  # the state that predicts the token
        is_video = encoded.input_ids.to(query.device) == inner.config.video_token_id
        clips = clip_states(out.states[:length], is_video, encoded.grid.tolist())
        boundaries = decode(inner.head(clips, query[None]), clips.size(0))[0]
        return Grounding(response=out.text, success=True, boundaries=boundaries)

    def generate(self, encoded: Encoded, draft: list[int] | None = None) -> Generated:
        """Respond greedily.

        Args:
            draft: ids the model is expected to say. They are checked in the same forward pass that reads
                the prompt; if greedy decoding gives exactly them, nothing has to be decoded step by step.
        """
        inputs = model_inputs(encoded, self.model)
        if draft and (checked := self._check_draft(inputs, draft)):
            return checked
        with record_states(self.model) as states:
            sequence = self.model.generate(**inputs, generation_config=self._generation)
        ids = sequence[0, inputs["input_ids"].size(1) :].tolist()
        return self._generated(ids, torch.cat(states, dim=1)[0])

    def _check_draft(self, inputs: dict[str, Tensor], draft: list[int]) -> Generated | None:
        ids = inputs["input_ids"]
        length = ids.size(1)
        full = torch.cat((ids, ids.new_tensor([draft])), dim=1)
        inner = bare(self.model)
        with record_states(self.model) as states:
            logits = self.model(
                input_ids=full,
                attention_mask=torch.ones_like(full),
                mm_token_type_ids=(full == inner.config.video_token_id).int() * 2,
                pixel_values_videos=inputs["pixel_values_videos"],
                video_grid_thw=inputs["video_grid_thw"],
                logits_to_keep=torch.arange(length - 1, full.size(1) - 1, device=ids.device),
                use_cache=False,
            ).logits
        said = logits[0].argmax(-1).tolist()
        return self._generated(draft, states[0][0]) if said == draft else None

    def _generated(self, ids: list[int], states: Tensor) -> Generated:
        # Special tokens such as <|reg|> belong to the text; only the end marks do not.
        ends = set(self._generation.eos_token_id)
        body = ids[:-1] if ids and ids[-1] in ends else ids
        return Generated(ids=ids, text=self.processor.tokenizer.decode(body), states=states)
