"""The role model: a backbone with a grounding head, state recording and the losses of a role.

Shapes: B batch, L tokens, D hidden size, T temporal steps of a video, Q `<|reg|>` tokens of a sample.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from videomind.backbones.backbone import Backbone
from videomind.model.grounding_head import STRIDES, GroundingHead
from videomind.model.losses import HeadTargets, LossWeights, grounding_loss

IGNORE_INDEX = -100


def num_positions(model: PreTrainedModel) -> float:
    """Read how many positions a model was made for; it would answer longer prompts all the same."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf


@dataclass
class AgentOutput(ModelOutput):
    """Result of a training step.

    Attributes:
        loss: the mean over samples of each sample's own loss.
        language_loss, classification_loss, regression_loss, saliency_loss: the parts of it, for the log
            (means over samples, detached).
    """

    loss: Tensor | None = None
    language_loss: Tensor | None = None
    classification_loss: Tensor | None = None
    regression_loss: Tensor | None = None
    saliency_loss: Tensor | None = None


class RoleModel(PreTrainedModel):
    """What roles add to a backbone's model; `role_class` puts the two together.

    Attributes:
        backbone: its declaration.
        head: for roles that ground.
        changed: names of parameters, without adapters, that are not as the base on disk has them; a
            checkpoint of the model must hold them.
        loss_weights: of the grounding losses.
    """

    backbone: ClassVar[Backbone]

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.head: GroundingHead | None = None
        self.changed: set[str] = set()
        self.loss_weights = LossWeights()

    def add_head(self) -> GroundingHead:
        """Attach a freshly initialised grounding head (float32, on the model's device)."""
        text = self.config.get_text_config()
        self.head = GroundingHead(text.hidden_size, text.hidden_act).to(self.device)
        return self.head

    def enable_input_require_grads(self) -> None:
        """Let gradients enter checkpointed layers, but not those of a vision tower where nothing trains.

        transformers hooks the inputs of every tower: a frozen one would then be run again, and a backward
        pass be made through all of it, in every step.
        """
        super().enable_input_require_grads()
        tower, merger = (self.get_submodule(name) for name in (self.backbone.vision, self.backbone.merger))
        merging = set(merger.parameters())
        if any(param.requires_grad and param not in merging for param in tower.parameters()):
            return
        for module in tower.modules():
            for handle in self._require_grads_hooks:
                if handle.id in module._forward_hooks:
                    handle.remove()
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = False

    def training_step(
        self,
        *,
        input_ids: Tensor,
        labels: Tensor,
        pixel_values: Tensor,
        grids: Tensor,
        attention_mask: Tensor | None = None,
        targets: list[HeadTargets] | None = None,
    ) -> AgentOutput:
        """Compute the losses of a batch.

        Logits are computed only where something is supervised: at 10k video tokens and 152k words the full
        table would be larger than the model.

        Args:
            input_ids, labels: (B, L), padded on the right.
            pixel_values: the normalised patches of all videos.
            grids: (B, 3), one video per sample.
            attention_mask: (B, L), which is not needed: no token sees what stands on its right. A mask would
                be made B x L x L, and keep the fast kernels away.
            targets: of the head, one per sample; None if the samples do not ground.
        """
        inputs = self.backbone.model_inputs(input_ids, None, pixel_values, grids, config=self.config)
        with record_states(self) as states:
            hidden = self.base_model(**inputs, use_cache=False).last_hidden_state
        language = self._language_loss(hidden, labels)  # (B,)
        if targets is None or self.head is None:
            loss = language.mean() + self._idle_head_loss()
            return AgentOutput(loss=loss, language_loss=language.detach().mean())
        classification, regression, sal = self._grounding_losses(
            states[-1], input_ids, labels, grids, targets
        )
        return AgentOutput(
            loss=language.mean() + classification + regression + sal,
            language_loss=language.detach().mean(),
            classification_loss=classification.detach(),
            regression_loss=regression.detach(),
            saliency_loss=sal.detach(),
        )

    def clip_states(self, states: Tensor, input_ids: Tensor, grid: list[int]) -> Tensor:
        """Average the states of each temporal step of a sequence's first video, in float32.

        Args:
            states: (L, D), of the sequence or of more that follows it.
            input_ids: (L,), of the sequence.
            grid: of its first video.

        Returns:
            (T, D).
        """
        is_video = input_ids.to(states.device) == self.config.video_token_id
        return states[self.backbone.step_places(is_video, grid)].float().mean(dim=1)

    def _language_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Average the cross-entropy over each sample's supervised tokens.

        Args:
            hidden: (B, L, D), the states after the last norm.
            labels: (B, L).

        Returns:
            (B,).
        """
        supervised = labels[:, 1:] != IGNORE_INDEX
        rows, places = supervised.nonzero(as_tuple=True)  # the one wait: by a mask, each index would be one
        logits = self.get_output_embeddings()(hidden[rows, places]).float()
        losses = F.cross_entropy(logits, labels[rows, places + 1], reduction="none")
        total = losses.new_zeros(len(labels)).index_add(0, rows, losses)
        return total / supervised.sum(1).clamp(min=1)

    def _idle_head_loss(self) -> Tensor | float:
        """Make a zero, with a gradient of zero for all of the head, in a batch without moments.

        Without it ZeRO-3 (DeepSpeed 0.19) updates the head with the gradient of an earlier batch, plain
        training leaves it as it is, and ZeRO-2 goes on with its momentum. With it all of them do as ZeRO-2.
        """
        if self.head is None or not any(param.requires_grad for param in self.head.parameters()):
            return 0.0
        width, device = self.config.get_text_config().hidden_size, next(self.head.parameters()).device
        clips, query = torch.zeros(max(STRIDES), width, device=device), torch.zeros(1, width, device=device)
        out = self.head([clips], [query], min_clips=max(STRIDES))
        outputs = (out.class_logits, out.offsets, out.clip_emb, out.query_emb)
        return 0.0 * torch.stack([tensor.float().sum() for tensor in outputs]).sum()

    def _grounding_losses(
        self,
        states: Tensor,
        input_ids: Tensor,
        labels: Tensor,
        grids: Tensor,
        targets: Sequence[HeadTargets],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Average the losses of the batch's samples, each a mean over its `<|reg|>` tokens."""
        predicts = labels[:, 1:] == self.config.reg_token_id
        counts = predicts.sum(1)  # (B,)
        queries = states[predicts.nonzero(as_tuple=True)].split(counts.tolist())  # B of (Q, D)
        samples = zip(states, input_ids, grids.tolist(), strict=True)
        clips = [self.clip_states(*sample) for sample in samples]  # B of (T, D)
        output = self.head(clips, queries, min_clips=max(STRIDES))
        loss = grounding_loss(output, targets, weights=self.loss_weights)
        parts = (loss.classification, loss.regression, loss.saliency)
        classification, regression, saliency = ((part / counts).mean() for part in parts)
        return classification, regression, saliency


@cache
def role_class(backbone: Backbone) -> type[RoleModel]:
    """Make the class of a backbone's role models."""

    class BackboneRoleModel(RoleModel, backbone.model_class):
        @wraps(backbone.model_class.forward)  # `generate` looks at the names of the arguments
        def forward(
            self, input_ids: Tensor | None = None, labels: Tensor | None = None, **inputs: Any
        ) -> ModelOutput:
            """Run the backbone's forward; with `labels` the role's training step.

            Args:
                input_ids, labels: (B, L); labels are -100 where nothing is learned.
                inputs: as the backbone's forward wants them, with labels as `training_step` does.

            Returns:
                AgentOutput with labels, else what the backbone gives.
            """
            if labels is None:
                return super().forward(input_ids=input_ids, **inputs)
            # PEFT's wrapper adds arguments of its own, unset.
            filled = {name: value for name, value in inputs.items() if value is not None}
            return self.training_step(input_ids=input_ids, labels=labels, **filled)

    BackboneRoleModel.backbone = backbone
    BackboneRoleModel.__name__ = BackboneRoleModel.__qualname__ = f"Role{backbone.model_class.__name__}"
    return BackboneRoleModel


@contextmanager
def record_states(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the states that enter the language model's last norm, one (B, L, D) tensor per forward.

    Args:
        model: a role model, bare or wrapped by PEFT.
    """
    inner = next(module for module in model.modules() if isinstance(module, RoleModel))
    norm = inner.get_submodule(inner.backbone.final_norm)
    states: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda _, args: states.append(args[0]))
    try:
        yield states
    finally:
        handle.remove()
