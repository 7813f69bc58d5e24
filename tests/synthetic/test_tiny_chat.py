"""The tiny CLIP and Llama load wherever real ones do, and their tokenizer is of Llama's kind."""

import pytest
import torch
from transformers import CLIPVisionModel, LlamaForCausalLM

from videomind.model.checkpoint import LoadSettings
from videomind.synthetic import make_tiny_chat
from videomind.synthetic.instructions import instruction_texts
from videomind.synthetic.phrases import COLOURS, FLOORS
from videomind.video_chatgpt.disk import load_start
from videomind.video_chatgpt.features.clip import ClipTower
from videomind.video_chatgpt.tokenizer import decode_pieces, load_tokenizer
from videomind.video_chatgpt.vicuna import SYSTEMS


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("chat") / "base"
    make_tiny_chat(path)
    return path


def test_transformers_loads_both_whole(base):
    for kind, folder in ((CLIPVisionModel, "clip"), (LlamaForCausalLM, "llama")):
        _, info = kind.from_pretrained(base / folder, output_loading_info=True)
        assert not any(info.values())


def test_our_loaders_take_them(base):
    tower = ClipTower.from_pretrained(str(base / "clip"), device=torch.device("cpu"), dtype=torch.float32)
    assert tower.features(torch.zeros(3, 56, 56, 3, dtype=torch.uint8)).shape == (116, 64)
    loaded = load_start(base / "llama", LoadSettings())
    assert len(loaded.tokenizer) == loaded.model.config.vocab_size
    assert not loaded.model.config.use_mm_proj


def test_the_tower_tells_colours_apart(base):
    tower = ClipTower.from_pretrained(str(base / "clip"), device=torch.device("cpu"), dtype=torch.float32)
    frames = torch.stack([torch.tensor(rgb, dtype=torch.uint8).expand(56, 56, 3) for rgb in COLOURS.values()])
    means = tower.patches(frames).mean(dim=1)
    assert torch.pdist(means).min() > 1


def test_words_are_single_tokens_and_text_survives(base):
    tokenizer = load_tokenizer(base / "llama")
    for word in (*COLOURS, *FLOORS, "floor", "video"):
        assert len(tokenizer(f"is {word}.", add_special_tokens=False)["input_ids"]) == 3, word
    for text in (*SYSTEMS.values(), instruction_texts()[0], "Łódź 42?\n", "日本"):
        assert decode_pieces(tokenizer, tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(SYSTEMS["vicuna_v1_1"])["input_ids"]) < 40


def test_seed_decides_every_byte_and_finished_stays(base, tmp_path):
    make_tiny_chat(tmp_path / "same")
    make_tiny_chat(tmp_path / "other", seed=1)
    names = [p.relative_to(base) for p in base.rglob("*") if p.is_file()]
    assert all((base / n).read_bytes() == (tmp_path / "same" / n).read_bytes() for n in names)
    for folder in ("clip", "llama"):
        weights = f"{folder}/model.safetensors"
        assert (base / weights).read_bytes() != (tmp_path / "other" / weights).read_bytes()
    make_tiny_chat(base)
    with pytest.raises(ValueError, match="does not hold"):
        make_tiny_chat(base, seed=1)
