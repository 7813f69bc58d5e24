"""Adapters of Video-ChatGPT on disk, and models that answer with one.

An adapter is one `.bin`: both embedding tables and the projector, under published names. Beside it lies a
`.json` with what it was trained with.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from videomind.files import atomic_path, found_from, read_json, write_json
from videomind.model.checkpoint import LoadSettings
from videomind.model.tensors import copy_to_cpu, gathered
from videomind.video_chatgpt.disk import (
    HEAD_TABLE,
    INPUT_TABLE,
    PROJECTOR,
    TABLES,
    LoadedVideoModel,
    add_videos,
    copy_state,
    load_start,
    read_bin,
)
from videomind.video_chatgpt.model import VideoChatGPT, VideoChatGPTConfig
from videomind.video_chatgpt.options import LINEAR, MLP
from videomind.video_chatgpt.tokenizer import VIDEO_PATCH, VideoTokens

log = logging.getLogger(__name__)

_SIDE_FIELDS = ("mm_projector_type", "mm_use_vid_start_end", "mm_vision_tower", "num_video_tokens")


def video_adapter_state(model: VideoChatGPT, *, should_keep: bool = True) -> dict[str, Tensor]:
    """Collect what an adapter file holds, whole and on the CPU.

    The output table comes first: the original reduces names to their last part when it trains on, so the
    projector's has to be the last `weight`.

    Args:
        model: perhaps sharded.
        should_keep: off where the state is not written; every process takes part in collecting it.
    """
    params = dict(model.named_parameters())
    names = [*TABLES, *(name for name in params if name.startswith(PROJECTOR))]
    return copy_to_cpu({name: params[name] for name in names}, None, should_keep=should_keep)


def save_video_adapter(state: Mapping[str, Tensor], config: VideoChatGPTConfig, path: Path) -> None:
    """Write an adapter file, and beside it what it was trained with (`.json`)."""
    with atomic_path(path) as temporary:
        torch.save(dict(state), temporary)
    write_json(path.with_suffix(".json"), {name: getattr(config, name, None) for name in _SIDE_FIELDS})


def read_adapter(path: Path) -> dict[str, Tensor]:
    """Read an adapter's tensors under the model's names.

    Raises:
        ValueError: it holds tensors of another kind, or no projector.
    """
    state = {}
    for name, value in read_bin(path).items():
        known = re.search(r"(mm_projector\..+|embed_tokens\.weight)$|^(lm_head\.weight)$", name)
        if known is None:
            raise ValueError(f"{path} holds {name}, which is not part of an adapter")
        state[f"model.{known[1]}" if known[1] else known[2]] = value
    if not any(name.startswith(PROJECTOR) for name in state):
        raise ValueError(f"{path} holds no projector (mm_projector.*)")
    return state


def load_projector(model: VideoChatGPT, state: Mapping[str, Tensor], path: Path) -> None:
    """Take the projector of an adapter, whatever its kind and width.

    Args:
        model: gets another projector where its own does not fit.
        state: the adapter's tensors.
        path: where they are from, for messages.

    Raises:
        ValueError: it is of no kind that is known.
    """
    tensors = {name.removeprefix(PROJECTOR): value for name, value in state.items() if PROJECTOR in name}
    kind, first = (LINEAR, "weight") if "weight" in tensors else (MLP, "0.weight")
    if first not in tensors or tensors[first].ndim != 2:
        raise ValueError(f"{path} holds a projector of {sorted(tensors)}: neither {LINEAR} nor {MLP}")
    width, config = tensors[first].shape[1], model.config
    if not config.use_mm_proj or (config.mm_projector_type, config.mm_hidden_size) != (kind, width):
        new_projector(model, kind, width)
    copy_state({f"{PROJECTOR}{name}": value for name, value in tensors.items()}, model, PROJECTOR, path)


def new_projector(model: VideoChatGPT, kind: str, width: int) -> None:
    """Give a loaded model a projector that starts at random."""
    like = model.get_input_embeddings().weight
    model.add_projector(kind, width)
    model.projector.to(device=like.device, dtype=like.dtype)


def continue_adapter(loaded: LoadedVideoModel, path: Path) -> None:
    """Start training from an adapter: its projector and the rows of the tokens of a video.

    Of the input table the last two rows count (start and end; a file may hold these alone), of the output
    table, which the original does not save, the video's.
    """
    model, state = loaded.model, read_adapter(path)
    load_projector(model, state, path)
    tokens = VideoTokens.of(loaded.tokenizer)
    rows = {INPUT_TABLE: 2, HEAD_TABLE: len(loaded.tokenizer) - tokens.patch}
    for name, table in zip(TABLES, (model.lm_head.weight, model.get_input_embeddings().weight), strict=True):
        if name not in state or tokens.start is None:
            continue
        trained = state[name][-rows[name] :]
        if trained.shape[1:] != table.shape[1:] or len(trained) != rows[name]:
            raise ValueError(
                f"{path}: {name} is {tuple(state[name].shape)}, the model's {tuple(table.shape)}"
            )
        with torch.no_grad(), gathered([table], modify=True):
            table[-rows[name] :] = trained.to(table)


def load_chat(path: str | Path, adapter: str | Path | None, settings: LoadSettings) -> LoadedVideoModel:
    """Load a model that answers: a whole one, or a start and an adapter trained on it.

    Args:
        path: folder or hub id.
        adapter: an `mm_projector.bin`, or None for a whole model.
        settings: type of the weights, attention.

    Raises:
        ValueError: there is no projector, or the adapter is one of another language model.
    """
    loaded = load_start(path, settings)
    model = loaded.model
    if adapter is None:
        if not model.config.use_mm_proj:
            raise ValueError(f"{path} has no projector: give the adapter too (--projection_path)")
        add_videos(loaded, has_start_end=model.config.mm_use_vid_start_end)
        return loaded
    adapter = Path(adapter)
    state = read_adapter(adapter)
    if rows := len(state.get(INPUT_TABLE, ())):
        patch = loaded.tokenizer.get_added_vocab().get(VIDEO_PATCH, len(loaded.tokenizer))
        model.config.mm_use_vid_start_end = rows == 2 or rows - patch > 1
    add_videos(loaded, has_start_end=model.config.mm_use_vid_start_end)
    if rows in (0, 2):
        continue_adapter(loaded, adapter)
    else:
        load_projector(model, state, adapter)
        copy_state({name: state[name] for name in TABLES if name in state}, model, "", adapter)
    if HEAD_TABLE not in state:
        log.warning("%s has no output rows for the tokens of a video: they are as untrained", adapter)
    side = adapter.with_suffix(".json")
    for name, value in (read_json(side) if side.is_file() else {}).items():
        is_place = name == "mm_vision_tower" and value is not None
        setattr(model.config, name, found_from(adapter.parent, value) if is_place else value)
    return loaded
