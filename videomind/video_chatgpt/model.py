"""The second model family: a Llama language model that reads a projected video (arXiv 2306.05424).

Names of modules are those of the published checkpoints. B batch, L tokens, N rows of a video's features, C
their width, H hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from videomind.video_chatgpt.options import LINEAR, MLP, PROJECTORS
from videomind.video_chatgpt.tokenizer import VideoTokens


class VideoChatGPTConfig(LlamaConfig):
    """Sizes of the language model, and what is set about videos.

    Attributes:
        use_mm_proj: whether there is a projector.
        mm_projector_type: one of PROJECTORS.
        mm_hidden_size: C.
        mm_use_vid_start_end: whether two tokens enclose a video.
        tune_mm_mlp_adapter: whether only projector and those two train.
        mm_vision_tower: name of the CLIP that the features are from.
        num_video_tokens: N in training.
        vid_patch_id: of the tokenizer; not on disk.
        vid_start_id: the same.
        vid_end_id: the same.
    """

    model_type = "VideoChatGPT"

    use_mm_proj: bool = False
    mm_projector_type: str = LINEAR
    mm_hidden_size: int | None = None
    mm_use_vid_start_end: bool = False
    tune_mm_mlp_adapter: bool = False
    mm_vision_tower: str | None = None
    num_video_tokens: int | None = None
    vid_patch_id: int | None = None
    vid_start_id: int | None = None
    vid_end_id: int | None = None

    def set_tokens(self, tokens: VideoTokens) -> None:
        """Take over the ids of a tokenizer."""
        self.vid_patch_id, self.vid_start_id, self.vid_end_id = tokens.patch, tokens.start, tokens.end


def make_projector(kind: str, width: int, hidden_size: int) -> nn.Module:
    """Make a projector from features (N, C) to embeddings (N, H).

    Args:
        kind: one of PROJECTORS.
        width: C.
        hidden_size: H.

    Raises:
        ValueError: another kind.
    """
    if kind == LINEAR:
        return nn.Linear(width, hidden_size)
    if kind == MLP:
        return nn.Sequential(nn.Linear(width, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size))
    raise ValueError(f"Unknown projector {kind!r} (mm_projector_type). Allowed: {', '.join(PROJECTORS)}.")


class VideoChatGPT(LlamaForCausalLM):
    """A language model whose embeddings of `<vid_patch>` are replaced by a projected video."""

    config_class = VideoChatGPTConfig

    def __init__(self, config: VideoChatGPTConfig):
        super().__init__(config)
        self.loss_type = "ForCausalLM"  # transformers tells it from the name of the class
        if config.use_mm_proj:
            self.add_projector(config.mm_projector_type, config.mm_hidden_size)
            self.post_init()

    def add_projector(self, kind: str, width: int) -> None:
        """Give the model a new projector.

        Args:
            kind: one of PROJECTORS.
            width: C.
        """
        self.model.mm_projector = make_projector(kind, width, self.config.hidden_size)
        self.config.use_mm_proj, self.config.mm_projector_type, self.config.mm_hidden_size = True, kind, width

    @property
    def projector(self) -> nn.Module:
        """From features to embeddings."""
        return self.model.mm_projector

    def embed(self, input_ids: Tensor, video_features: Tensor | None) -> Tensor:
        """Embed text and videos.

        While only the adapter trains, the rows of ordinary tokens learn from samples without a video alone
        (as published).

        Args:
            input_ids: (B, L).
            video_features: (sum of N, C), the batch's videos one after the other; None without any.

        Returns:
            (B, L, H).

        Raises:
            ValueError: there is not one row for every `<vid_patch>`.
        """
        embeds = self.model.embed_tokens(input_ids)
        patches = input_ids == self.config.vid_patch_id
        count = 0 if video_features is None else len(video_features)
        if (num_patches := int(patches.sum())) != count:
            raise ValueError(f"{count} rows of video features for {num_patches} patch tokens")
        weight = next(self.projector.parameters())
        if not count:  # keeps the projector in every process's graph
            unused = self.projector(weight.new_zeros(1, self.config.mm_hidden_size)).sum() * 0
            return embeds + unused.to(embeds.dtype)
        if self.config.tune_mm_mlp_adapter and self.config.mm_use_vid_start_end:
            learns = (input_ids == self.config.vid_start_id) | (input_ids == self.config.vid_end_id)
            learns |= ~patches.any(dim=1, keepdim=True)
            embeds = torch.where(learns[..., None], embeds, embeds.detach())
        projected = self.projector(video_features.to(weight.dtype)).to(embeds.dtype)
        return embeds.masked_scatter(patches[..., None], projected)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        video_features: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Predict tokens; those being generated come alone, without a video.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L).
            video_features: (sum of N, C), the batch's videos one after the other.
            inputs_embeds: (B, L, H), instead of ids.
            **kwargs: further ones of LlamaForCausalLM.
        """
        if inputs_embeds is None and (video_features is not None or self.training):
            input_ids, inputs_embeds = None, self.embed(input_ids, video_features)
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )
