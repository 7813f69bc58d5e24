"""Qwen2-VL's config.json in the flat layout of 2024, which transformers 5 nests."""

from typing import Any

from transformers import Qwen2VLConfig

_TEXT_FIELDS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "max_window_layers",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "use_cache",
    "use_sliding_window",
    "vocab_size",
)
_TOP_FIELDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_VISION_FIELDS = (
    "depth",
    "embed_dim",
    "hidden_act",
    "hidden_size",
    "in_channels",
    "mlp_ratio",
    "num_heads",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
)


def flat_config(config: Qwen2VLConfig, *, is_role: bool) -> dict[str, Any]:
    """Flatten a config of transformers 5.

    Args:
        config: of a base or role model.
        is_role: whether it is to stand in a role checkpoint, whose rotary type is called otherwise.
    """
    text, vision = config.text_config, config.vision_config
    rope = dict(text.rope_parameters)
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {
            "mrope_section": list(rope["mrope_section"]),
            "rope_type": "default",
            "type": "default" if is_role else "mrope",
        },
        "sliding_window": getattr(config, "sliding_window", None) or text.sliding_window or 32768,
        "tie_word_embeddings": bool(config.tie_word_embeddings),
        "torch_dtype": str(config.dtype or "float32").removeprefix("torch."),
        "transformers_version": "4.45.2",  # the layout's version
        "vision_token_id": getattr(config, "vision_token_id", config.vision_end_token_id + 1),
        "vision_config": {
            **{name: getattr(vision, name) for name in _VISION_FIELDS},
            "in_chans": vision.in_channels,
            "model_type": "qwen2_vl",
            "spatial_patch_size": vision.patch_size,
        },
        **{name: getattr(text, name) for name in _TEXT_FIELDS},
        **{name: getattr(config, name) for name in _TOP_FIELDS},
    }
