"""The tokenizer of Llama language models, and the tokens that stand for a video.

Both the data path (to encode) and checkpoints (to save) use it, so it stands beside them. The ids are those
of the slow tokenizer of 2023 with `legacy=True`: after every special token the text starts anew, with a blank
before it. transformers 5 builds another tokenizer from the same files, so it is built here from the pieces.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import import_protobuf
from transformers.tokenization_utils_base import generate_merges

from videomind.files import atomic_path, copy_file, read_json, write_json

VIDEO_PATCH, VIDEO_START, VIDEO_END = "<vid_patch>", "<vid_start>", "<vid_end>"
BLANK = "▁"  # how the pieces write a space
_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
_DEFAULTS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_BPE = 2  # sentencepiece_model.proto, TrainerSpec.ModelType


@dataclass(frozen=True, kw_only=True)
class VideoTokens:
    """Ids of the tokens of a video.

    Attributes:
        patch: one row of features.
        start: before them; None without.
        end: after them; None without.
    """

    patch: int
    start: int | None = None
    end: int | None = None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> "VideoTokens":
        """Look them up.

        Raises:
            ValueError: the tokenizer has none.
        """
        known = tokenizer.get_added_vocab()
        if VIDEO_PATCH not in known:
            raise ValueError(
                f"The tokenizer has no {VIDEO_PATCH}: it is one of a language model without videos"
            )
        return cls(patch=known[VIDEO_PATCH], start=known.get(VIDEO_START), end=known.get(VIDEO_END))


def load_tokenizer(folder: str | Path, *, without: Collection[str] = ()) -> PreTrainedTokenizerFast:
    """Read a Llama tokenizer from `tokenizer.model`, or `tokenizer.json` where there is no such file.

    Without a padding token `<unk>` pads.

    Args:
        folder: of a model.
        without: added tokens to leave out.

    Raises:
        ValueError: names the file that is missing, or of another kind.
    """
    folder = Path(folder)
    settings = (
        read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    )
    stored = folder / "tokenizer.json"
    backend = read_json(stored) if stored.is_file() else {"added_tokens": []}
    if (folder / "tokenizer.model").is_file():
        vocab, merges = _pieces(folder / "tokenizer.model")
    elif stored.is_file():
        vocab, merges = _backend_pieces(backend["model"], stored)
    else:
        raise ValueError(f"{folder} has neither tokenizer.model nor tokenizer.json")
    names = _DEFAULTS | _special_names(folder, settings)
    added = {
        token: number
        for token, number in _added(folder, settings, backend).items()
        if token not in vocab and token not in without
    }
    if names.get("pad_token") not in vocab.keys() | added.keys():
        names["pad_token"] = names["unk_token"]
    if missing := [names[name] for name in _DEFAULTS if names[name] not in vocab]:
        raise ValueError(
            f"The tokenizer in {folder} has no {', '.join(missing)}: it is not one of Llama 1 or 2"
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_build(vocab, merges, names), **names)
    tokenizer.padding_side, tokenizer.truncation_side = "right", "right"
    for token, number in sorted(added.items(), key=lambda item: item[1]):
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=True)], special_tokens=True)
        if tokenizer.convert_tokens_to_ids(token) != number:
            raise ValueError(
                f"Token {token!r} in {folder} has id {number}, not the next one after the vocabulary"
            )
    return tokenizer


def _build(vocab: dict[str, int], merges: list[tuple[str, str]], names: dict[str, str]) -> Tokenizer:
    """Build a byte-pair encoder that starts the text anew, with a blank, after every special token."""
    model = BPE(vocab=vocab, merges=merges, fuse_unk=True, byte_fallback=True, unk_token=names["unk_token"])
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(BLANK), normalizers.Replace(pattern=" ", content=BLANK)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(BLANK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(names[n], normalized=False, special=True) for n in _DEFAULTS])
    start = names["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, vocab[start])]
    )
    return tokenizer


def _pieces(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Read vocabulary and merges of a sentencepiece file.

    Raises:
        ValueError: it is not one of Llama's kind.
    """
    proto = import_protobuf().ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError:
        raise ValueError(f"{path} is not a sentencepiece model") from None
    text = proto.normalizer_spec
    if proto.trainer_spec.model_type != _BPE or text.name != "identity" or text.remove_extra_whitespaces:
        raise ValueError(f"{path} is not a byte-pair model without normalisation, as those of Llama are")
    vocab = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    return vocab, generate_merges(vocab)


def _backend_pieces(model: dict[str, Any], path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Read the same of a `tokenizer.json`."""
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise ValueError(
            f"{path} is not a byte-pair model with single bytes as a last resort, as Llama's are"
        )
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return model["vocab"], [(left, right) for left, right in pairs]


def _special_names(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Read the special tokens that the files name."""
    path = folder / "special_tokens_map.json"
    entries = {**settings, **(read_json(path) if path.is_file() else {})}
    texts = {name: entries[name] for name in _NAMES if entries.get(name)}
    return {name: text["content"] if isinstance(text, dict) else text for name, text in texts.items()}


def _added(folder: Path, settings: dict[str, Any], backend: dict[str, Any]) -> dict[str, int]:
    """Read tokens beyond the pieces, with their ids, from any of the places that they are kept in."""
    path = folder / "added_tokens.json"
    ids = {entry["content"]: entry["id"] for entry in backend["added_tokens"]}
    ids |= {entry["content"]: int(key) for key, entry in settings.get("added_tokens_decoder", {}).items()}
    return ids | (read_json(path) if path.is_file() else {})


def add_video_tokens(tokenizer: PreTrainedTokenizerFast, *, has_start_end: bool) -> VideoTokens:
    """Append the tokens of a video that are not there yet: the patch, then start and end where wanted."""
    tokens = [VIDEO_PATCH, *([VIDEO_START, VIDEO_END] if has_start_end else [])]
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False, special=True) for token in tokens], special_tokens=True
    )
    return VideoTokens.of(tokenizer)


def decode_pieces(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """Write the text of tokens, without special ones.

    Bytes that are no text become one replacement character each, and keep their neighbours, as in
    sentencepiece; tokenizers would give up the whole run.
    """
    pieces = tokenizer.convert_ids_to_tokens(ids, skip_special_tokens=True)
    runs = groupby(pieces, key=lambda piece: _BYTE.fullmatch(piece) is not None)
    texts = [
        _text(bytes(int(piece[3:5], 16) for piece in run)) if is_bytes else "".join(run)
        for is_bytes, run in runs
    ]
    return "".join(texts).replace(BLANK, " ").removeprefix(" ")


def _text(data: bytes) -> str:
    """Decode UTF-8 with a replacement character for each byte that is none."""
    text = ""
    while data:
        try:
            return text + data.decode()
        except UnicodeDecodeError as error:
            text += data[: error.start].decode() + "\N{REPLACEMENT CHARACTER}"
            data = data[error.start + 1 :]
    return text


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, *, source: Path) -> None:
    """Write the tokenizer's files in the layout of 2023.

    Args:
        tokenizer: as it is now.
        folder: where they go.
        source: the folder that it was read from, whose pieces are copied.
    """
    if (source / "tokenizer.model").is_file():
        copy_file(source / "tokenizer.model", folder / "tokenizer.model")
    else:
        with atomic_path(folder / "tokenizer.json") as temporary:
            tokenizer.backend_tokenizer.save(str(temporary))
    names = {name: getattr(tokenizer, name) for name in _NAMES}
    pieces = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    added = {token: number for token, number in tokenizer.get_added_vocab().items() if number >= pieces}
    write_json(folder / "added_tokens.json", added)
    write_json(folder / "special_tokens_map.json", names)
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "legacy": True,
            "model_max_length": min(tokenizer.model_max_length, 2**31),
            "padding_side": "right",
            "sp_model_kwargs": {},
            "tokenizer_class": "LlamaTokenizer",
            **names,
        },
    )
