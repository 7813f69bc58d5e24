"""A backbone from outside of the package: a Llama that sees frames as tokens of 18 x 18 pixels.

It differs from the package's own in all that a backbone declares: classes, positions, patches, merging,
frames per step, chat format, end mark and names on disk.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

from videomind.backbones.backbone import Backbone, Processor
from videomind.roles import GROUNDER_RESPONSE, VisualUnits

PATCH, MERGE = 6, 3  # pixels; patches of a token along each side
TURN, END, VIDEO = "<turn>", "</turn>", "<film>"


class StripesConfig(LlamaConfig):
    model_type = "stripes"


class Eyes(nn.Module):
    """Patches to tokens: the mean over 3 x 3 of their projections."""

    def __init__(self, config: StripesConfig):
        super().__init__()
        self.look = nn.Linear(3 * PATCH**2, config.hidden_size)

    def forward(self, patches: Tensor) -> Tensor:
        return self.look(patches).unflatten(0, (-1, MERGE**2)).mean(dim=1)


class StripesModel(LlamaModel):
    def __init__(self, config: StripesConfig):
        super().__init__(config)
        self.eyes = Eyes(config)
        self.post_init()

    def forward(self, input_ids: Tensor, patches: Tensor | None = None, **inputs: Any):
        states = self.embed_tokens(input_ids)
        is_video = (input_ids == self.config.video_token_id)[..., None]
        if patches is not None and is_video.any():
            states = states.masked_scatter(is_video, self.eyes(patches).to(states.dtype))
        return super().forward(**inputs | {"inputs_embeds": states})


class StripesForCausalLM(LlamaForCausalLM):
    config_class = StripesConfig

    def __init__(self, config: StripesConfig):
        super().__init__(config)
        self.model = StripesModel(config)
        self.post_init()

    def forward(self, input_ids=None, patches=None, past_key_values=None, logits_to_keep=0, **inputs):
        inputs |= {"past_key_values": past_key_values, "logits_to_keep": logits_to_keep}
        return super().forward(input_ids=input_ids, patches=patches, **inputs)


class Stripes(Backbone):
    name = "stripes"
    base_type = "stripes"
    role_type = "agent_stripes"
    conv_type = "turns"
    units = VisualUnits(token_side=PATCH * MERGE, frames_per_step=1)
    video_text = f"{VIDEO}\n"
    video_token = VIDEO
    end_mark = END
    model_class = StripesForCausalLM
    published_names = {"model.eyes": "eyes", "model": "mind"}
    language = "model.layers"
    vision = "model.eyes"
    merger = "model.eyes.look"
    final_norm = "model.norm"
    tables = ("embed_tokens", "lm_head")
    attention_layers = ("q_proj", "v_proj")

    def load_processor(self, folder: Path) -> Processor:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        return Processor(backbone=self, tokenizer=tokenizer, patcher=None, chat_template="", source=folder)

    def save_processor(self, processor: Processor, folder: Path) -> None:
        processor.tokenizer.save_pretrained(folder)

    def chat(self, turns: Sequence[tuple[str, str | None]]) -> str:
        return "".join(f"{TURN}{who}: " + ("" if text is None else text + END) for who, text in turns)

    def patches(self, processor: Processor, frames: Tensor) -> tuple[Tensor, Tensor]:
        count, _, height, width = frames.shape
        grid = torch.tensor([count, height // PATCH, width // PATCH])
        side = self.units.token_side
        tokens = frames.unfold(2, side, side).unfold(3, side, side)  # (F, 3, rows, columns, 18, 18)
        patches = tokens.unfold(4, PATCH, PATCH).unfold(5, PATCH, PATCH)  # (..., 3, 3, 6, 6)
        patches = patches.permute(0, 2, 3, 4, 5, 1, 6, 7).reshape(-1, 3 * PATCH**2)
        return patches / 127.5 - 1, grid

    def tokens_per_step(self, grid: Sequence[int]) -> int:
        return grid[1] * grid[2] // MERGE**2

    def load_config(self, folder: Path) -> StripesConfig:
        return StripesConfig.from_pretrained(folder)

    def disk_config(self, config: StripesConfig, *, is_role: bool) -> dict[str, Any]:
        return config.to_dict()

    def model_inputs(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixel_values: Tensor,
        grids: Tensor,
        *,
        config: StripesConfig,
    ) -> dict[str, Tensor]:
        return {"input_ids": input_ids, "attention_mask": attention_mask, "patches": pixel_values}


def write_base(folder: Path) -> None:
    """A tiny base model with random weights: a token per byte, 32 channels."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token=END)
    tokenizer.add_tokens([TURN, VIDEO], special_tokens=True)
    tokenizer.add_tokens(["Yes", "No", GROUNDER_RESPONSE.split("<")[0]])
    tokenizer.save_pretrained(folder)
    config = StripesConfig(
        vocab_size=len(tokenizer) + 8, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    config.video_token_id = tokenizer.convert_tokens_to_ids(VIDEO)
    model = StripesForCausalLM(config)
    names = {"model.eyes.": "eyes.", "model.": "mind."}
    state = {}
    for name, value in model.state_dict().items():
        ours = next((prefix for prefix in names if name.startswith(prefix)), "")
        state[names.get(ours, "") + name.removeprefix(ours)] = value
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
