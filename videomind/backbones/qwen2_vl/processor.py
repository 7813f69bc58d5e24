"""Tokenizer, chat template and pixel settings of Qwen2-VL, and their files in the layout of 2024."""

import json
from dataclasses import fields
from pathlib import Path

from transformers import Qwen2Tokenizer

from videomind.backbones.backbone import Backbone, Processor
from videomind.backbones.qwen2_vl.patches import Patcher
from videomind.files import atomic_path, copy_file, read_json, write_json
from videomind.roles import SPECIAL_TOKENS

_READ = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")
_COPIED = ("vocab.json", "merges.txt")
_PIXEL_FIELDS = tuple(entry.name for entry in fields(Patcher))


def read_processor(folder: Path, backbone: Backbone) -> Processor:
    """Read tokenizer, template and pixel settings.

    Args:
        folder: of a base model or a role checkpoint.
        backbone: whose they are.

    Raises:
        ValueError: A file is missing, or its visual tokens are not the backbone's.
    """
    for name in _READ:
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}: it is not a complete folder of {backbone.name}")
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    pixels = read_json(folder / "preprocessor_config.json")
    settings = {name: pixels[name] for name in _PIXEL_FIELDS if name in pixels}
    patcher = Patcher(**{name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()})
    stored = (patcher.patch_size * patcher.merge_size, patcher.temporal_patch_size)
    if stored != (backbone.units.token_side, backbone.units.frames_per_step):
        raise ValueError(
            f"{folder / 'preprocessor_config.json'}: a visual token of {stored[0]} pixels and {stored[1]} "
            f"frames, but {backbone.name} has {backbone.units}"
        )
    return Processor(
        backbone=backbone,
        tokenizer=tokenizer,
        patcher=patcher,
        chat_template=_read_template(folder),
        source=folder,
    )


def _read_template(folder: Path) -> str:
    """Read the chat template, from any of the places that it has been kept in."""
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file() and (template := read_json(folder / name).get("chat_template")):
            return template
    raise ValueError(f"{folder} has no chat template (chat_template.json)")


def write_processor(processor: Processor, folder: Path) -> None:
    """Write the files in the layout of 2024, so that the original system reads them too."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (processor.source / name).is_file():
            copy_file(processor.source / name, folder / name)
    tokenizer = processor.tokenizer
    with atomic_path(folder / "tokenizer.json") as temporary:
        tokenizer.backend_tokenizer.save(str(temporary))
    special = {name: _token_entry(name) for name in SPECIAL_TOKENS}
    write_json(folder / "added_tokens.json", tokenizer.get_added_vocab())
    write_json(
        folder / "special_tokens_map.json",
        {
            "additional_special_tokens": list(special.values()),
            "eos_token": _token_entry(tokenizer.eos_token),
            "pad_token": _token_entry(tokenizer.pad_token),
        },
    )
    write_json(folder / "tokenizer_config.json", _tokenizer_config(processor))
    write_json(folder / "chat_template.json", {"chat_template": processor.chat_template})
    write_json(folder / "preprocessor_config.json", _pixel_config(processor))


def _token_entry(content: str) -> dict:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": content, **flags}


def _tokenizer_config(processor: Processor) -> dict:
    tokenizer = processor.tokenizer
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    decoder = {
        str(entry["id"]): {k: v for k, v in entry.items() if k != "id"} for entry in backend["added_tokens"]
    }
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": list(SPECIAL_TOKENS),
        "bos_token": None,
        "chat_template": processor.chat_template,
        "clean_up_tokenization_spaces": False,
        "do_resize": False,
        "eos_token": tokenizer.eos_token,
        "errors": "replace",
        "model_max_length": tokenizer.model_max_length,
        "pad_token": tokenizer.pad_token,
        "padding_side": "left",
        "processor_class": "Qwen2VLProcessor",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _pixel_config(processor: Processor) -> dict:
    path = processor.source / "preprocessor_config.json"
    stored = read_json(path) if path.is_file() else {}
    patcher = processor.patcher
    values = {name: getattr(patcher, name) for name in _PIXEL_FIELDS}
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    bounds = {"min_pixels": stored.get("min_pixels", 3136), "max_pixels": stored.get("max_pixels", 12845056)}
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": False,  # frames are resized when they are read
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "resample": 3,
        **bounds,
        "size": bounds,
        **values,
    }
