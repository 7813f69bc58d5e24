"""How parameters and modules are called here, by PEFT and on disk, and the config.json of a role.

    | what             | ours                   | PEFT's, in memory                     | published        |
    |------------------|------------------------|---------------------------------------|------------------|
    | a layer          | model.language_model.x | P.model.language_model.x.base_layer   | model.x          |
    | its adapter      |                        | P.model.language_model.x.lora_A.ROLE  | P.model.x.lora_A |
    | a table          | lm_head                | P.lm_head.original_module, or         | lm_head          |
    |                  |                        | P.lm_head.token_adapter.base_layer    |                  |
    | its trained copy |                        | P.lm_head.modules_to_save.ROLE        | P.lm_head        |
    | grounding head   | head.coef              | P.head.coef                           | P.coef           |

P is PEFT's prefix, base_model.model. What a backbone's modules are called on disk (model for our
model.language_model) is the backbone's: the published files have the layout of 2024, transformers 5 nests it.
"""

import re
from typing import Any

from transformers import PreTrainedConfig

from videomind.backbones.backbone import Backbone

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
ROLE_FIELDS = (
    "role",
    "base_model",
    "conv_type",
    "base_model_path",
    "model_name_or_path",
    "reg_token_id",
    "seg_s_token_id",
    "seg_e_token_id",
)
BASE_FIELDS = ("base_revision", "base_fingerprint")  # ours, in a role's config.json where they are known
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


def ours_to_published(name: str, backbone: Backbone) -> str:
    """Rename a parameter or module for a file; PEFT's prefix stays where there is one."""
    prefix, name = _split_prefix(name)
    for ours, published in backbone.published_names.items():
        if _is_below(name, ours):
            return prefix + published + name.removeprefix(ours)
    return prefix + name.removeprefix("head.")


def published_to_ours(name: str, backbone: Backbone) -> str:
    """Rename a parameter or module of a file; names that are ours already stay, and so does PEFT's prefix."""
    prefix, name = _split_prefix(name)
    if name.partition(".")[0] in HEAD_MODULES:
        return f"{prefix}head.{name}"
    if any(_is_below(name, ours) for ours in backbone.published_names):
        return prefix + name
    for ours, published in backbone.published_names.items():
        if _is_below(name, published):
            return prefix + ours + name.removeprefix(published)
    return prefix + name


def peft_to_ours(name: str) -> str:
    """Rename a parameter of a model that PEFT has wrapped as it was called before."""
    name = name.removeprefix(PEFT_PREFIX)
    for wrapper in (".token_adapter.base_layer", ".base_layer", ".original_module"):
        name = name.replace(wrapper, "")
    return name


def base_key_mapping(backbone: Backbone) -> dict[str, str]:
    """Map published keys to ours as `from_pretrained` wants it: patterns, and our names for them."""
    ours = "|".join(map(re.escape, backbone.published_names))
    return {
        rf"^(?!(?:{ours})\.){re.escape(published)}(?=\.)": name
        for name, published in backbone.published_names.items()
    }


def _is_below(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _split_prefix(name: str) -> tuple[str, str]:
    if name.startswith(PEFT_PREFIX):
        return PEFT_PREFIX, name[len(PEFT_PREFIX) :]
    return "", name


def base_config(config: PreTrainedConfig, backbone: Backbone) -> dict[str, Any]:
    """Make the config.json of a base model."""
    return {**backbone.disk_config(config, is_role=False), "model_type": backbone.base_type}


def role_config(config: PreTrainedConfig, backbone: Backbone, **fields: object) -> dict[str, Any]:
    """Make the config.json of a role checkpoint.

    Args:
        config: of the role model.
        backbone: on which it stands.
        fields: all of `ROLE_FIELDS`, and those of `BASE_FIELDS` that are known.
    """
    fields = {name: value for name, value in fields.items() if name not in BASE_FIELDS or value is not None}
    if set(fields) - set(BASE_FIELDS) != set(ROLE_FIELDS):
        raise ValueError(f"A role's config.json has the fields {sorted(ROLE_FIELDS)}, not {sorted(fields)}")
    base = backbone.disk_config(config, is_role=True)
    return {
        **base,
        "model_type": backbone.role_type,
        **fields,
        "_name_or_path": fields["base_model_path"],
    }
