"""The backbone: Qwen2-VL with the published position rule, state recording and the role losses.

Shapes: B batch, L tokens, D hidden size, T temporal steps of a video, H x W its patch grid.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLModel
from transformers.modeling_outputs import ModelOutput

from videomind.model.grounding_head import STRIDES, GroundingHead
from videomind.model.losses import LossWeights, grounding_loss

IGNORE_INDEX = -100


def rope_index(
    input_ids: Tensor,
    *,
    config: Qwen2VLConfig,
    grids: dict[int, Tensor | None],
    attention_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """M-RoPE positions by the rule the published weights were trained with (transformers 4.45 to 5.2).

    Text that follows a vision block starts at 1 + the largest position used so far over all three axes.
    Whether a block follows is decided by the token right after `<|vision_start|>`; the block starts at the
    first pad token and takes as many *consecutive* positions as its grid has tokens. Segment tokens inside
    a video therefore shift the grid, and one that directly follows `<|vision_start|>` turns the block into
    plain text. Weights expect this.

    Args:
        input_ids: (B, L).
        grids: for the image and the video pad token their grids (N, 3) of (T, H, W) in patches, or None.
        attention_mask: (B, L), 0 on padding at either side.
    Returns: positions (3, B, L) of the axes (t, h, w), 1 on padding; deltas (B, 1), what to add to a
        token's index to get its position in decoding.
    """
    merge = config.vision_config.spatial_merge_size
    starts = (input_ids == config.vision_start_token_id).sum(dim=1).tolist()
    queues = _row_queues({token: grid for token, grid in grids.items() if grid is not None}, starts)
    positions = torch.ones(3, *input_ids.shape, dtype=torch.long)
    deltas = []
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    for row, (ids, keep) in enumerate(zip(input_ids.cpu(), mask.bool().cpu(), strict=True)):
        placed = _row_positions(ids[keep].tolist(), config.vision_start_token_id, queues[row], merge)
        positions[:, row, keep] = placed
        deltas.append(int(placed.max()) + 1 - placed.size(1))
    delta = torch.tensor(deltas, device=input_ids.device)[:, None]
    return positions.to(input_ids.device), delta


def _row_queues(grids: dict[int, Tensor], starts: list[int]) -> list[dict[int, Iterator]]:
    """Each row's grids: a block that became plain text uses none, and must not leave it to the next row.

    Args: grids (N, 3) by pad token; starts, vision blocks of each row. With images and videos together, where
    the kind of a block is not known beforehand, the rows draw from one queue.
    """
    if len(grids) != 1:
        shared = {token: iter(grid.tolist()) for token, grid in grids.items()}
        return [shared] * len(starts)
    ((token, grid),) = grids.items()
    ends = [sum(starts[: row + 1]) for row in range(len(starts))]
    return [{token: iter(grid[end - n : end].tolist())} for n, end in zip(starts, ends, strict=True)]


def _row_positions(ids: list[int], start_token: int, queues: dict[int, Iterator], merge: int) -> Tensor:
    """Positions (3, L) of one sequence without padding."""
    follows = [ids[i + 1] for i, token in enumerate(ids[:-1]) if token == start_token]
    remaining = {token: follows.count(token) for token in queues}
    pieces: list[Tensor] = []
    cursor = next_position = 0
    for _ in range(sum(remaining.values())):
        candidates = {t: ids.index(t, cursor) for t, n in remaining.items() if n and t in ids[cursor:]}
        token = min(candidates, key=candidates.__getitem__)
        text = candidates[token] - cursor
        pieces.append(torch.arange(text).expand(3, -1) + next_position)
        t, h, w = next(queues[token])
        grid = torch.cartesian_prod(torch.arange(t), torch.arange(h // merge), torch.arange(w // merge))
        pieces.append(grid.T + next_position + text)  # (3, t*h*w)
        next_position = int(pieces[-1].max()) + 1
        cursor += text + grid.size(0)
        remaining[token] -= 1
    pieces.append(torch.arange(len(ids) - cursor).expand(3, -1) + next_position)
    return torch.cat(pieces, dim=1)


class AgentBackbone(Qwen2VLModel):
    """Qwen2-VL without the language head, with the published positions in forward and generation."""

    def get_rope_index(
        self,
        input_ids: Tensor,
        mm_token_type_ids: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """See `rope_index`; the token types that newer transformers pass are not needed."""
        grids = {self.config.image_token_id: image_grid_thw, self.config.video_token_id: video_grid_thw}
        return rope_index(input_ids, config=self.config, grids=grids, attention_mask=attention_mask)


@dataclass
class AgentOutput(ModelOutput):
    """Result of a training step.

    Attributes: loss, the mean over samples of each sample's own loss; the parts of it, for the log:
    language, classification, regression, saliency (means over samples, detached).
    """

    loss: Tensor | None = None
    language_loss: Tensor | None = None
    classification_loss: Tensor | None = None
    regression_loss: Tensor | None = None
    saliency_loss: Tensor | None = None


class AgentQwen2VL(Qwen2VLForConditionalGeneration):
    """The role model: Qwen2-VL, and for roles that ground a GroundingHead as `head`."""

    def __init__(self, config: Qwen2VLConfig):
        super(Qwen2VLForConditionalGeneration, self).__init__(
            config
        )  # the parent would build its own backbone
        self.model = AgentBackbone(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.head: GroundingHead | None = None
        self.loss_weights = LossWeights()
        self.post_init()

    def add_head(self) -> GroundingHead:
        """Attach a freshly initialised grounding head (float32, on the model's device)."""
        text = self.config.text_config
        self.head = GroundingHead(text.hidden_size, text.hidden_act).to(self.device)
        return self.head

    @wraps(Qwen2VLForConditionalGeneration.forward)  # `generate` looks at the names of the arguments
    def forward(
        self, input_ids: Tensor | None = None, labels: Tensor | None = None, **inputs: Any
    ) -> ModelOutput:
        """Qwen2-VL's forward; with `labels` the role's training step.

        Args:
            input_ids, labels: (B, L); labels are -100 where nothing is learned.
            inputs: as Qwen2-VL's, and for grounding samples timestamps, saliency and pos_clip (see
                `training_step`).
        Returns: AgentOutput with labels, else CausalLMOutputWithPast.
        """
        if labels is None:
            return super().forward(input_ids=input_ids, **inputs)
        # PEFT's wrapper adds arguments of its own, unset.
        given = {name: value for name, value in inputs.items() if value is not None}
        return self.training_step(input_ids=input_ids, labels=labels, **given)

    def training_step(
        self,
        *,
        input_ids: Tensor,
        labels: Tensor,
        attention_mask: Tensor,
        video_grid_thw: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        timestamps: list[list[Tensor]] | None = None,
        saliency: list[Tensor] | None = None,
        pos_clip: list[Tensor] | None = None,
    ) -> AgentOutput:
        """Losses of a batch.

        Logits are computed only where something is supervised: at 10k video tokens and 152k words the full
        table would be larger than the model.

        Args:
            input_ids, labels, attention_mask: (B, L). pixel_values_videos: (patches, 1176).
            video_grid_thw: (B, 3), one video per sample.
            timestamps: per sample, per `<|reg|>` the true moments (M, 2), fractions of the video.
            saliency: per sample (Q, T). pos_clip: per sample (Q,).
        """
        positions, _ = self.model.get_rope_index(
            input_ids, video_grid_thw=video_grid_thw, attention_mask=attention_mask
        )
        with record_states(self) as states:
            hidden = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=positions,
                pixel_values_videos=pixel_values_videos,
                video_grid_thw=video_grid_thw,
                use_cache=False,
            ).last_hidden_state
        language = self._language_loss(hidden, labels)  # (B,)
        if timestamps is None or self.head is None:
            loss = language.mean() + self._idle_head_loss()
            return AgentOutput(loss=loss, language_loss=language.detach().mean())
        parts = [
            self._sample_grounding_loss(
                states[-1][row],
                input_ids[row],
                labels[row],
                video_grid_thw[row],
                moments=timestamps[row],
                saliency=saliency[row],
                pos_clip=pos_clip[row],
            )
            for row in range(len(labels))
        ]
        classification, regression, sal = (torch.stack(part).mean() for part in zip(*parts, strict=True))
        return AgentOutput(
            loss=language.mean() + classification + regression + sal,
            language_loss=language.detach().mean(),
            classification_loss=classification.detach(),
            regression_loss=regression.detach(),
            saliency_loss=sal.detach(),
        )

    def _language_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over each sample's supervised tokens. Args: (B, L, D), (B, L). Returns: (B,)."""
        supervised = labels[:, 1:] != IGNORE_INDEX
        logits = self.lm_head(hidden[:, :-1][supervised]).float()
        losses = F.cross_entropy(logits, labels[:, 1:][supervised], reduction="none")
        rows = supervised.nonzero()[:, 0]
        total = losses.new_zeros(len(labels)).index_add(0, rows, losses)
        return total / supervised.sum(1).clamp(min=1)

    def _idle_head_loss(self) -> Tensor | float:
        """Zero, with a gradient of zero for all of the head, in a batch without moments.

        Without it ZeRO-3 (DeepSpeed 0.19) updates the head with the gradient of an earlier batch, plain
        training leaves it as it is, and ZeRO-2 goes on with its momentum. With it all of them do as ZeRO-2.
        """
        if self.head is None or not any(param.requires_grad for param in self.head.parameters()):
            return 0.0
        width, place = self.config.text_config.hidden_size, next(self.head.parameters()).device
        clips, query = torch.zeros(max(STRIDES), width, device=place), torch.zeros(1, width, device=place)
        out = self.head(clips, query, min_clips=max(STRIDES))
        outputs = (out.class_logits, out.offsets, out.clip_emb, out.query_emb)
        return 0.0 * torch.stack([tensor.float().sum() for tensor in outputs]).sum()

    def _sample_grounding_loss(
        self,
        states: Tensor,
        input_ids: Tensor,
        labels: Tensor,
        grid: Tensor,
        *,
        moments: list[Tensor],
        saliency: Tensor,
        pos_clip: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted losses of one sample's `<|reg|>` tokens, divided by their number."""
        queries = states[:-1][labels[1:] == self.config.reg_token_id]  # (Q, D)
        clips = clip_states(states, input_ids == self.config.video_token_id, grid.tolist())
        output = self.head(clips, queries, min_clips=max(STRIDES))
        loss = grounding_loss(
            output,
            moments=moments,
            num_clips=clips.size(0),
            saliency=saliency,
            pos_clip=pos_clip,
            weights=self.loss_weights,
        )
        count = queries.size(0)
        return loss.classification / count, loss.regression / count, loss.saliency / count


def clip_states(states: Tensor, is_video: Tensor, grid: list[int], merge: int = 2) -> Tensor:
    """Mean state of each temporal step of a sequence's first video, in float32.

    Args: states (L, D); is_video (L,), where the video's tokens are; grid (T, H, W) in patches.
    Returns: (T, D).
    """
    t, h, w = grid
    per_step = h * w // merge**2
    video = states[is_video][: t * per_step]
    return video.float().unflatten(0, (t, per_step)).mean(dim=1)


@contextmanager
def record_states(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the states that enter the language model's last norm, one (B, L, D) tensor per forward.

    Args: model, an AgentQwen2VL, bare or wrapped by PEFT.
    """
    backbone = next(m for m in model.modules() if isinstance(m, AgentBackbone))
    states: list[Tensor] = []
    handle = backbone.language_model.norm.register_forward_pre_hook(lambda _, args: states.append(args[0]))
    try:
        yield states
    finally:
        handle.remove()
