"""The published disk format: names of tensors and modules, and the flat config of 2024.

transformers 5 nests the language model and the config; this module is the only place that knows both.
"""

import re

from transformers import Qwen2VLConfig

# Sub-modules of the grounding head lie at the top of a published model, here they are below `head`.
HEAD_MODULES = (
    "vis_proj",
    "reg_proj",
    "vis_emb",
    "reg_emb",
    "vis_fuse",
    "vis_norm",
    "pyramid",
    "class_head",
    "coord_head",
    "coef",
)
PEFT_PREFIX = "base_model.model."

# What `from_pretrained` needs to read a published base model into today's modules.
BASE_KEY_MAPPING = {
    r"^visual": "model.visual",
    r"^model(?!\.(language_model|visual))": "model.language_model",
}

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
_ROLE_FIELDS = (
    "role",
    "base_model",
    "conv_type",
    "base_model_path",
    "model_name_or_path",
    "reg_token_id",
    "seg_s_token_id",
    "seg_e_token_id",
)

# The fields of adapter_config.json that the published adapters have; older PEFT refuses newer ones.
ADAPTER_FIELDS = (
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
)
# The ones that an adapter is rebuilt from.
LORA_FIELDS = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "target_modules",
    "modules_to_save",
    "trainable_token_indices",
    "task_type",
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
)


def to_disk(name: str) -> str:
    """The published name of a parameter or module of ours (with or without PEFT's prefix)."""
    prefix, name = _split_prefix(name)
    name = re.sub(r"^model\.language_model(?=\.|$)", "model", name)
    name = re.sub(r"^model\.visual(?=\.|$)", "visual", name)
    return prefix + name.removeprefix("head.")


def from_disk(name: str) -> str:
    """Our name of a published parameter or module; names that are ours already stay."""
    prefix, name = _split_prefix(name)
    if name.split(".")[0] in HEAD_MODULES:
        return f"{prefix}head.{name}"
    name = re.sub(r"^visual(?=\.|$)", "model.visual", name)
    return prefix + re.sub(r"^model(?!\.(language_model|visual)(\.|$))(?=\.|$)", "model.language_model", name)


def _split_prefix(name: str) -> tuple[str, str]:
    if name.startswith(PEFT_PREFIX):
        return PEFT_PREFIX, name[len(PEFT_PREFIX) :]
    return "", name


def flat_config(config: Qwen2VLConfig, **role_fields: object) -> dict:
    """config.json in the flat layout of 2024.

    Args: config, of a base or role model; role_fields (role, base_model_path, token ids, ...) make it an
    `agent_qwen2_vl` config, without any it is a plain `qwen2_vl` base.
    """
    text, vision = config.text_config, config.vision_config
    if unknown := set(role_fields) - set(_ROLE_FIELDS):
        raise ValueError(f"Unknown role fields for config.json: {sorted(unknown)}")
    rope = dict(text.rope_parameters)
    flat = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "agent_qwen2_vl" if role_fields else "qwen2_vl",
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {
            "mrope_section": list(rope["mrope_section"]),
            "rope_type": "default",
            "type": "default" if role_fields else "mrope",
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
        **role_fields,
    }
    if role_fields:
        flat["_name_or_path"] = role_fields.get("base_model_path")
    return flat
