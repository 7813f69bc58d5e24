"""Tokenizer, chat template and pixel patching of a backbone, and their files in the 2024 layout.

Both the data path (to encode) and checkpoints (to save) use it, so it stands beside them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer, Qwen2VLVideoProcessor

from videomind.files import atomic_path, copy_file, read_json, write_json
from videomind.roles import SPECIAL_TOKENS, VERIFIER_NO, VERIFIER_YES

_COPIED = ("vocab.json", "merges.txt")
_PIXEL_FIELDS = (
    "image_mean",
    "image_std",
    "patch_size",
    "temporal_patch_size",
    "merge_size",
    "rescale_factor",
)


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What turns text and frames into model inputs.

    Attributes: tokenizer, with the three special tokens; patcher, frames to patches without resizing;
    chat_template; source, the folder it was read from.
    """

    tokenizer: PreTrainedTokenizerBase
    patcher: Qwen2VLVideoProcessor
    chat_template: str
    source: Path

    def token_id(self, token: str) -> int:
        """The id of a token. Raises ValueError when the tokenizer lacks it or splits it."""
        ids = self.tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(f"{token!r} is not one token of the tokenizer in {self.source}: it gives {ids}")
        return ids[0]

    @property
    def verdict_ids(self) -> tuple[int, int]:
        """Ids of the words Yes and No."""
        return self.token_id(VERIFIER_YES.strip(".")), self.token_id(VERIFIER_NO.strip("."))


def load_processor(folder: str | Path) -> Processor:
    """Read tokenizer, template and pixel settings; the special tokens are added if they are not there yet.

    Args: folder, of a base model or a role checkpoint.
    Raises: ValueError that names the file that is missing.
    """
    folder = Path(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}: it is not a complete Qwen2-VL folder")
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
    pixels = read_json(folder / "preprocessor_config.json")
    settings = {name: pixels[name] for name in _PIXEL_FIELDS if name in pixels}
    # Frames come chosen and resized (see dataset/video.py): only patching is left.
    off = dict.fromkeys(("do_resize", "do_sample_frames", "cap_pixels_per_frame"), False)
    patcher = Qwen2VLVideoProcessor(**off, **settings)
    return Processor(
        tokenizer=tokenizer, patcher=patcher, chat_template=_read_template(folder), source=folder
    )


def _read_template(folder: Path) -> str:
    """The chat template, from any of the places that it has been kept in."""
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file() and (template := read_json(folder / name).get("chat_template")):
            return template
    raise ValueError(f"{folder} has no chat template (chat_template.json)")


def save_processor(processor: Processor, folder: Path) -> None:
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
