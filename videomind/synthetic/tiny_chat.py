"""What Video-ChatGPT starts from, tiny and with random weights: a CLIP vision tower and a Llama.

<path>/clip     CLIPVisionModel and its image processor, 56 pixels in patches of 14
<path>/llama    Llama with a byte-pair tokenizer of its kind
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from videomind.files import atomic_files
from videomind.synthetic.folders import is_made, making
from videomind.synthetic.instructions import instruction_texts
from videomind.video_chatgpt.options import SYSTEMS
from videomind.video_chatgpt.tokenizer import BLANK, load_tokenizer, save_tokenizer
from videomind.video_chatgpt.vicuna import ASSISTANT, USER

CLIP, LLAMA = "clip", "llama"
_SPECIAL = ("<unk>", "<s>", "</s>")  # in the order of their ids, as in Llama
_MAX_VOCAB = 1200
_TOWER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
# Drawn at 1/sqrt(fan-in), which a short training needs.
_LANGUAGE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
    "initializer_range": 64**-0.5,
}


def _write_tower(folder: Path) -> None:
    side = _TOWER["image_size"]
    processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    with atomic_files(folder) as temporary:
        CLIPVisionModel(CLIPVisionConfig(**_TOWER)).save_pretrained(temporary)
        processor.save_pretrained(temporary)


def _write_tokenizer(folder: Path) -> int:
    """Train and write a tokenizer of Llama's kind: pieces that begin at blanks, bytes as a last resort.

    Returns:
        How many tokens it has.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token=_SPECIAL[0]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(BLANK), normalizers.Replace(pattern=" ", content=BLANK)]
    )
    # For training alone: no piece spans words.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(BLANK, "merged_with_next"), pre_tokenizers.Punctuation()]
    )
    one_byte = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=_MAX_VOCAB, min_frequency=2, show_progress=False, special_tokens=[*_SPECIAL, *one_byte]
    )
    prompts = [*SYSTEMS.values(), f"{USER}:", f"{ASSISTANT}:"]
    tokenizer.train_from_iterator(prompts * 20 + instruction_texts(), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    whole = load_tokenizer(folder)
    save_tokenizer(whole, folder, source=folder)
    return len(whole)


def make_tiny_chat(path: str | Path, *, seed: int = 0) -> None:
    """Make both; finished ones stay as they are. The same seed gives the same files.

    Raises:
        ValueError: the folder holds something else.
    """
    path = Path(path)
    settings = {"seed": seed, CLIP: _TOWER, LLAMA: _LANGUAGE}
    if is_made(path, settings, "the tiny models"):
        return
    with making(path, settings) as partial, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        (partial / LLAMA).mkdir()
        _write_tower(partial / CLIP)
        config = LlamaConfig(vocab_size=_write_tokenizer(partial / LLAMA), **_LANGUAGE)
        with atomic_files(partial / LLAMA) as temporary:
            LlamaForCausalLM(config).save_pretrained(temporary)
