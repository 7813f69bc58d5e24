"""A tiny Qwen2-VL with random weights, on disk exactly as Qwen2-VL-Instruct was published in 2024.

The flat config, two weight shards with an index, and the tokenizer in its three forms: whatever loads the
real base model loads this one.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videomind.model.tensors import save_tensors
from videomind.synthetic.folders import is_made, making
from videomind.synthetic.tiny_tokenizer import special_ids, train_tokenizer, write_tokenizer

_SPARE_ROWS = 16  # as in Qwen2-VL, the table is longer than the tokenizer
_SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
_PIXEL_MEAN = [0.48145466, 0.4578275, 0.40821073]
_PIXEL_STD = [0.26862954, 0.26130258, 0.27577711]


@dataclass(frozen=True, kw_only=True, slots=True)
class TinySizes:
    """Sizes of the tiny model; the defaults learn on two CPU cores (about 0.5 M parameters)."""

    hidden: int = 64
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 192
    vision_width: int = 64
    vision_layers: int = 2
    vision_heads: int = 4

    @property
    def mrope_section(self) -> list[int]:
        """Rotary pairs per axis (t, h, w), 1 : 1.5 : 1.5 as in Qwen2-VL; together half a head."""
        half = self.hidden // self.heads // 2
        side = (3 * half) // 8
        return [half - 2 * side, side, side]


def _config(sizes: TinySizes, vocab_rows: int, ids: dict[str, int], *, is_tied: bool) -> dict[str, Any]:
    """Write the flat `config.json` of 2024."""
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "hidden_act": "silu",
        "hidden_size": sizes.hidden,
        "initializer_range": 0.02,
        "intermediate_size": sizes.intermediate,
        "max_position_embeddings": 32768,
        "max_window_layers": sizes.layers,
        "model_type": "qwen2_vl",
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": is_tied,
        "torch_dtype": "float32",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": sizes.vision_layers,
            "embed_dim": sizes.vision_width,
            "mlp_ratio": 4,
            "num_heads": sizes.vision_heads,
            "in_chans": 3,
            "hidden_size": sizes.hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": sizes.mrope_section},
        "vocab_size": vocab_rows,
    }


class _Weights:
    """Draws weights in a fixed order: matrices at 1/sqrt(fan-in), which a short warm-up needs."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors: dict[str, Tensor] = {}

    def matrix(self, name: str, *shape: int) -> None:
        """Add a random matrix; its fan-in is the product of all dimensions but the first."""
        fan_in = math.prod(shape[1:])
        self.tensors[name] = torch.randn(shape, generator=self.generator) * fan_in**-0.5

    def linear(self, name: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        """Add a linear layer with a zero bias."""
        self.matrix(f"{name}.weight", outputs, inputs)
        if bias:
            self.tensors[f"{name}.bias"] = torch.zeros(outputs)

    def norm(self, name: str, width: int, *, bias: bool = True) -> None:
        """Add a norm that does nothing yet."""
        self.tensors[f"{name}.weight"] = torch.ones(width)
        if bias:
            self.tensors[f"{name}.bias"] = torch.zeros(width)


def _vision_weights(sizes: TinySizes, seed: int) -> dict[str, Tensor]:
    """Draw the vision tower under its 2024 names."""
    weights, width = _Weights(seed), sizes.vision_width
    weights.matrix("visual.patch_embed.proj.weight", width, 3, 2, 14, 14)
    for i in range(sizes.vision_layers):
        block = f"visual.blocks.{i}"
        weights.norm(f"{block}.norm1", width)
        weights.norm(f"{block}.norm2", width)
        weights.linear(f"{block}.attn.qkv", 3 * width, width)
        weights.linear(f"{block}.attn.proj", width, width)
        weights.linear(f"{block}.mlp.fc1", 4 * width, width)
        weights.linear(f"{block}.mlp.fc2", width, 4 * width)
    weights.norm("visual.merger.ln_q", width)
    weights.linear("visual.merger.mlp.0", 4 * width, 4 * width)
    weights.linear("visual.merger.mlp.2", sizes.hidden, 4 * width)
    return weights.tensors


def _language_weights(sizes: TinySizes, seed: int) -> dict[str, Tensor]:
    """Draw the language model's layers under their 2024 names."""
    weights, hidden = _Weights(seed), sizes.hidden
    kv_width = hidden // sizes.heads * sizes.kv_heads
    for i in range(sizes.layers):
        layer = f"model.layers.{i}"
        weights.norm(f"{layer}.input_layernorm", hidden, bias=False)
        weights.norm(f"{layer}.post_attention_layernorm", hidden, bias=False)
        weights.linear(f"{layer}.self_attn.q_proj", hidden, hidden)
        weights.linear(f"{layer}.self_attn.k_proj", kv_width, hidden)
        weights.linear(f"{layer}.self_attn.v_proj", kv_width, hidden)
        weights.linear(f"{layer}.self_attn.o_proj", hidden, hidden, bias=False)
        weights.linear(f"{layer}.mlp.gate_proj", sizes.intermediate, hidden, bias=False)
        weights.linear(f"{layer}.mlp.up_proj", sizes.intermediate, hidden, bias=False)
        weights.linear(f"{layer}.mlp.down_proj", hidden, sizes.intermediate, bias=False)
    weights.norm("model.norm", hidden, bias=False)
    return weights.tensors


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def write_shards(folder: Path, shards: list[dict[str, Tensor]]) -> None:
    """Write weights as the published files: two shards and the index that says which holds what."""
    for name, tensors in zip(_SHARDS, shards, strict=True):
        save_tensors(tensors, folder / name)
    size = sum(t.numel() * t.element_size() for shard in shards for t in shard.values())
    where = {key: name for name, shard in zip(_SHARDS, shards, strict=True) for key in shard}
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
    _write_json(folder / "model.safetensors.index.json", index)


def make_tiny_base(
    path: str | Path, *, is_tied: bool = True, seed: int = 0, sizes: TinySizes | None = None
) -> None:
    """Make a tiny base model; a finished one stays as it is. The same seed gives the same files.

    Args:
        path: its folder.
        is_tied: whether input and output embedding are one table (2B) or two (7B).
        seed: of the weights.
        sizes: None are the defaults.

    Raises:
        ValueError: the folder holds something else.
    """
    path, sizes = Path(path), sizes or TinySizes()
    settings = {"tied": is_tied, "seed": seed, **asdict(sizes)}
    if is_made(path, settings, "the tiny model"):
        return
    with making(path, settings) as partial:
        _write_base(partial, sizes, seed, is_tied=is_tied)


def _write_base(folder: Path, sizes: TinySizes, seed: int, *, is_tied: bool) -> None:
    tokenizer = train_tokenizer()
    write_tokenizer(tokenizer, folder)
    ids = special_ids(tokenizer)
    vocab_rows = -(-(tokenizer.get_vocab_size() + _SPARE_ROWS) // 16) * 16
    _write_json(folder / "config.json", _config(sizes, vocab_rows, ids, is_tied=is_tied))
    _write_json(folder / "generation_config.json", _generation_config(ids))
    _write_json(folder / "preprocessor_config.json", _PREPROCESSOR)
    tables = _Weights(seed)
    tables.matrix("model.embed_tokens.weight", vocab_rows, sizes.hidden)
    if not is_tied:
        tables.matrix("lm_head.weight", vocab_rows, sizes.hidden)
    head = {k: t for k, t in tables.tensors.items() if k == "lm_head.weight"}
    embedding = {k: t for k, t in tables.tensors.items() if k not in head}
    first = embedding | _vision_weights(sizes, seed + 1)
    write_shards(folder, [first, _language_weights(sizes, seed + 2) | head])


def _generation_config(ids: dict[str, int]) -> dict[str, Any]:
    """Set generation as published: greedy in effect."""
    return {
        "bos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "do_sample": True,
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "repetition_penalty": 1.0,
        "temperature": 0.01,
        "top_p": 0.001,
        "top_k": 1,
        "transformers_version": "4.37.0",
    }


_PREPROCESSOR: dict[str, Any] = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": _PIXEL_MEAN,
    "image_std": _PIXEL_STD,
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
}
