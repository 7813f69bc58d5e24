"""Video-ChatGPT on disk: what training starts from, and whole models; every tensor is accounted for.

A start is a LLaVA checkpoint (its original layout or that of transformers), a plain Llama or a whole model
saved here. Adapters are in `adapter.py`.
"""

import logging
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from videomind.files import atomic_files, read_json, write_json
from videomind.model.checkpoint import LoadSettings, resolve_folder
from videomind.model.tensors import compare, copy_to_cpu, gathered, refuse
from videomind.video_chatgpt.model import VideoChatGPT, VideoChatGPTConfig
from videomind.video_chatgpt.options import CLIP, CLIP_336, MLP
from videomind.video_chatgpt.tokenizer import (
    VideoTokens,
    add_video_tokens,
    load_tokenizer,
    save_tokenizer,
)

log = logging.getLogger(__name__)

TABLES = HEAD_TABLE, INPUT_TABLE = ("lm_head.weight", "model.embed_tokens.weight")
PROJECTOR = "model.mm_projector."
WEIGHTS = "pytorch_model{suffix}.bin"
# Tensors of image models that a video model has no use for, and buffers that are computed today.
_UNUSED = re.compile(r"(^|\.)vision_tower\.|(^|\.)image_newline$|rotary_emb\.inv_freq$")
_MODEL_TYPES = ("VideoChatGPT", "llava", "llava_llama", "llama")
# The layout of transformers: its names, and the two tokens it adds to Llama's.
_HF_KEYS = {
    r"^(?:model\.)?multi_modal_projector\.linear_1": "model.mm_projector.0",
    r"^(?:model\.)?multi_modal_projector\.linear_2": "model.mm_projector.2",
    r"^language_model\.lm_head": "lm_head",
    r"^language_model\.model": "model",
    r"^model\.language_model": "model",
}
_HF_TOKENS = ("<image>", "<pad>")
_FIELDS = (
    "attention_bias",
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "mm_hidden_size",
    "mm_projector_type",
    "mm_use_vid_start_end",
    "mm_vision_tower",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_video_tokens",
    "pad_token_id",
    "rms_norm_eps",
    "tie_word_embeddings",
    "tune_mm_mlp_adapter",
    "use_cache",
    "use_mm_proj",
    "vocab_size",
)


@dataclass(frozen=True, kw_only=True)
class LoadedVideoModel:
    """A model and its tokenizer.

    Attributes:
        folder: what both were read from.
    """

    model: VideoChatGPT
    tokenizer: PreTrainedTokenizerFast
    folder: Path


def load_start(path: str | Path, settings: LoadSettings) -> LoadedVideoModel:
    """Load a LLaVA checkpoint of either layout, a plain Llama, or a whole Video-ChatGPT.

    An image projector becomes the video projector, as in the original, whose name it shares. The embedding
    tables have as many rows as the tokenizer has tokens.

    Args:
        path: folder or hub id.
        settings: type of the weights, attention.

    Raises:
        ValueError: says what is missing, unexpected or unknown, and where.
    """
    folder = resolve_folder(path, "model", "Give another path with --model_name_or_path.")
    raw = read_json(folder / "config.json")
    is_nested = "text_config" in raw
    config = _nested_config(raw, folder) if is_nested else _flat_config(raw, folder)
    tokenizer = load_tokenizer(folder, without=_HF_TOKENS if is_nested else ())
    if is_nested:
        config.pad_token_id = tokenizer.pad_token_id
    try:
        model, problems = settings.read(
            VideoChatGPT, folder, config=config, key_mapping=_HF_KEYS if is_nested else None
        )
    except (OSError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(f"The weights in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    unused = [name for name in problems["unexpected"] if _UNUSED.search(name)]
    problems["unexpected"] = [name for name in problems["unexpected"] if name not in unused]
    refuse(problems, folder)
    if unused:
        log.info("%s: %d tensors of its image model are not used (first: %s)", folder, len(unused), unused[0])
    if (rows := config.vocab_size) > len(tokenizer):
        log.info("%s: rows %d to %d of its tables have no token: left out", folder, len(tokenizer), rows - 1)
        model.resize_token_embeddings(len(tokenizer))
    return LoadedVideoModel(model=model, tokenizer=tokenizer, folder=folder)


def _flat_config(raw: Mapping[str, Any], folder: Path) -> VideoChatGPTConfig:
    """Read the config of an original LLaVA, a Llama, or a model saved here."""
    if raw.get("model_type") not in _MODEL_TYPES:
        raise ValueError(
            f"{folder} holds a model of type {raw.get('model_type')!r}. Allowed: {', '.join(_MODEL_TYPES)}."
        )
    if raw.get("tie_word_embeddings"):
        raise ValueError(f"{folder} has one table for input and output (tie_word_embeddings): not supported")
    apart = ("model_type", "architectures", "torch_dtype", "dtype", "quantization_config")
    return VideoChatGPTConfig.from_dict({name: value for name, value in raw.items() if name not in apart})


def _nested_config(raw: Mapping[str, Any], folder: Path) -> VideoChatGPTConfig:
    """Read the config of a LLaVA in the layout of transformers."""
    text, vision = raw["text_config"], raw.get("vision_config", {})
    if (act := raw.get("projector_hidden_act", "gelu")) != "gelu":
        raise ValueError(f"{folder}: its projector has {act!r} (projector_hidden_act). Allowed: gelu.")
    config = _flat_config({"model_type": "llama", **text}, folder)
    config.use_mm_proj, config.mm_projector_type = True, MLP
    config.mm_hidden_size = vision.get("hidden_size")
    config.mm_vision_tower = CLIP_336 if vision.get("image_size") == 336 else CLIP
    return config


def add_videos(loaded: LoadedVideoModel, *, has_start_end: bool) -> VideoTokens:
    """Give tokenizer and tables the tokens of a video that they lack.

    Args:
        loaded: changed in place.
        has_start_end: whether two more tokens enclose a video.

    Returns:
        The tokens' ids.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    old = len(tokenizer)
    tokens = add_video_tokens(tokenizer, has_start_end=has_start_end)
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            with torch.no_grad(), gathered([table], modify=True):
                fill_new_rows(
                    table, first=old, has_start_end=has_start_end, std=model.config.initializer_range
                )
        log.info("Grew the embedding tables to %d rows for the tokens of a video", len(tokenizer))
    model.config.set_tokens(tokens)
    return tokens


def fill_new_rows(table: Tensor, *, first: int, has_start_end: bool, std: float) -> None:
    """Set the rows of new tokens: random for the patch, the mean of all rows before them for start and end.

    Args:
        table: (V, H), of which the last rows are new.
        first: the first new row.
        has_start_end: whether the last two are those of start and end.
        std: of the random rows.
    """
    table[first:].normal_(std=std)
    if has_start_end:
        table[-2:] = table[:-2].float().mean(dim=0).to(table.dtype)


def read_bin(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.bin` file; nothing else in it is built or run.

    They are the file's own pages where its format allows that: a whole model need not fit once per process.

    Raises:
        ValueError: it is not there, or holds anything else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except FileNotFoundError:
        raise ValueError(f"No such file: {path}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is refused: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} does not hold named tensors alone")
    return state


def copy_state(state: Mapping[str, Tensor], model: nn.Module, prefix: str, where: Path) -> None:
    """Copy tensors into parameters.

    Args:
        state: tensors by the parameters' names.
        model: whose parameters they become.
        prefix: of parameters all of which have to be there; empty asks for none.
        where: where the tensors are from, for messages.

    Raises:
        ValueError: lists what does not fit.
    """
    params = dict(model.named_parameters())
    expected = {
        name: p for name, p in params.items() if name in state or (prefix and name.startswith(prefix))
    }
    refuse(compare(expected, state), where)
    for name, value in state.items():  # one at a time: a sharded model may not fit on one device
        with torch.no_grad(), gathered([params[name]], modify=True):
            params[name].copy_(value)


def whole_state(model: VideoChatGPT, dtype: torch.dtype, *, should_keep: bool = True) -> dict[str, Tensor]:
    """Collect all parameters, whole and on the CPU.

    Args:
        model: perhaps sharded.
        dtype: of the copies.
        should_keep: off where the state is not written; every process takes part in collecting it.
    """
    return copy_to_cpu(dict(model.named_parameters()), dtype, should_keep=should_keep)


def save_whole(state: Mapping[str, Tensor], loaded: LoadedVideoModel, folder: Path) -> None:
    """Write a whole model with config and tokenizer, so that it loads here and in the original."""
    with atomic_files(folder, replaces=f"{WEIGHTS.format(suffix='*')}*") as temporary:
        save_torch_state_dict(
            dict(state), temporary, filename_pattern=WEIGHTS, max_shard_size="10GB", safe_serialization=False
        )
    write_json(folder / "config.json", _disk_config(loaded.model.config, next(iter(state.values())).dtype))
    source = loaded.folder / "generation_config.json"
    write_json(folder / "generation_config.json", read_json(source) if source.is_file() else {})
    save_tokenizer(loaded.tokenizer, folder, source=loaded.folder)


def restore_whole(model: VideoChatGPT, folder: Path) -> None:
    """Take over all parameters of a whole model on disk.

    Raises:
        ValueError: lists what does not fit.
    """
    state: dict[str, Tensor] = {}
    for path in sorted(folder.glob(WEIGHTS.format(suffix="*"))):
        state |= read_bin(path)
    refuse(compare(dict(model.named_parameters()), state), folder)
    copy_state(state, model, "", folder)


def _disk_config(config: VideoChatGPTConfig, dtype: torch.dtype) -> dict[str, Any]:
    rope = dict(config.rope_parameters)
    kind = rope.pop("rope_type", "default")
    theta = rope.pop("rope_theta")
    return {
        **{name: getattr(config, name, None) for name in _FIELDS},
        "architectures": ["VideoChatGPTLlamaForCausalLM"],
        "model_type": config.model_type,
        "rope_theta": theta,
        "rope_scaling": None if kind == "default" else {"type": kind, "rope_type": kind, **rope},
        "torch_dtype": str(dtype).removeprefix("torch."),
        "transformers_version": "4.28.1",  # the layout's version
    }
