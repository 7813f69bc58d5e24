"""The declaration of Qwen2-VL."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Qwen2VLConfig

from videomind.backbones.backbone import Backbone, Processor
from videomind.backbones.chatml import END_MARK, chatml
from videomind.backbones.qwen2_vl.config import flat_config
from videomind.backbones.qwen2_vl.model import PublishedQwen2VL
from videomind.backbones.qwen2_vl.processor import read_processor, write_processor
from videomind.roles import VisualUnits

PATCH = 14  # pixels
MERGE = 2  # patches of a visual token, along each side
IS_VIDEO = 2  # transformers' type of a video's tokens


class Qwen2VL(Backbone):
    """Qwen2-VL: patches of 14 pixels and two frames, of which 2 x 2 are one token."""

    name = "qwen2_vl"
    base_type = "qwen2_vl"
    role_type = "agent_qwen2_vl"
    conv_type = "chatml"
    units = VisualUnits(token_side=PATCH * MERGE, frames_per_step=2)
    video_text = "<|vision_start|><|video_pad|><|vision_end|>"
    video_token = "<|video_pad|>"
    end_mark = END_MARK
    model_class = PublishedQwen2VL
    published_names = {"model.visual": "visual", "model.language_model": "model"}
    language = "model.language_model"
    vision = "model.visual"
    merger = "model.visual.merger"
    final_norm = "model.language_model.norm"
    tables = ("embed_tokens", "lm_head")
    attention_layers = ("q_proj", "k_proj", "v_proj", "o_proj", "attn.qkv", "attn.proj")

    def load_processor(self, folder: Path) -> Processor:
        return read_processor(folder, self)

    def save_processor(self, processor: Processor, folder: Path) -> None:
        write_processor(processor, folder)

    def chat(self, turns: Sequence[tuple[str, str | None]]) -> str:
        return chatml(turns)

    def patches(self, processor: Processor, frames: Tensor) -> tuple[Tensor, Tensor]:
        return processor.patcher(frames)

    def normalized(self, processor: Processor, patches: Tensor) -> Tensor:
        return processor.patcher.normalized(patches)

    def tokens_per_step(self, grid: Sequence[int]) -> int:
        _, height, width = grid
        return height * width // MERGE**2

    def load_config(self, folder: Path) -> Qwen2VLConfig:
        config = Qwen2VLConfig.from_pretrained(folder)
        config.model_type = self.base_type
        return config

    def disk_config(self, config: Qwen2VLConfig, *, is_role: bool) -> dict[str, Any]:
        return flat_config(config, is_role=is_role)

    def model_inputs(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixel_values: Tensor,
        grids: Tensor,
        *,
        config: Qwen2VLConfig,
    ) -> dict[str, Tensor]:
        return {
            "input_ids": input_ids,
            **({} if attention_mask is None else {"attention_mask": attention_mask}),
            "mm_token_type_ids": (input_ids == config.video_token_id).int() * IS_VIDEO,
            "pixel_values_videos": pixel_values,
            "video_grid_thw": grids,
        }
