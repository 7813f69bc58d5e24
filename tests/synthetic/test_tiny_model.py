"""The tiny base is what Qwen2-VL was published as, only small.

Covers `synthetic/tiny_tokenizer.py`.
"""

import json

import pytest
import torch
from helpers.goldens import golden_bases
from safetensors import safe_open
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

from videomind.backbones.registry import load_processor
from videomind.model.checkpoint import LoadSettings, load_base
from videomind.roles import ROLES, SPECIAL_TOKENS
from videomind.synthetic import TinySizes, make_tiny_base
from videomind.synthetic.phrases import corpus
from videomind.synthetic.tiny_tokenizer import SPECIAL_TOKENS as QWEN_SPECIAL


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def base(request, tmp_path):
    make_tiny_base(tmp_path / "base", is_tied=request.param)
    return tmp_path / "base"


def test_transformers_loads_it_whole(base):
    model, info = Qwen2VLForConditionalGeneration.from_pretrained(base, output_loading_info=True)
    assert not any(info.values())
    tied = json.loads((base / "config.json").read_text())["tie_word_embeddings"]
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    ids = torch.tensor([AutoTokenizer.from_pretrained(base).encode("a red ball slides")])
    assert model(input_ids=ids).logits.isfinite().all()


def test_our_loader_takes_it_and_the_table_has_room(base):
    processor = load_processor(base)
    model = load_base(base, LoadSettings(), processor)
    assert len(processor.tokenizer) <= model.config.text_config.vocab_size


def test_layout_is_the_golden_bases(base, golden):
    golden_base = golden.root / golden_bases()[0]
    names = {p.name for p in golden_base.iterdir()}
    assert {p.name for p in base.iterdir()} - {"synthetic.json"} == names
    for name in (
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer_config.json",
    ):
        ours, theirs = (json.loads((folder / name).read_text()) for folder in (base, golden_base))
        assert list(ours) == list(theirs)
    template = "chat_template.json"
    assert (base / template).read_text().split() == (golden_base / template).read_text().split()
    index = json.loads((base / "model.safetensors.index.json").read_text())
    for key, shard in index["weight_map"].items():
        with safe_open(base / shard, "pt") as file:
            assert key in file.keys()  # noqa: SIM118  (not a mapping)


def test_special_tokens_follow_the_vocabulary_in_order(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    first = len(json.loads((base / "vocab.json").read_text()))
    assert tokenizer.convert_tokens_to_ids(list(QWEN_SPECIAL)) == list(range(first, first + 14))
    processor = load_processor(base)
    assert [processor.token_id(t) for t in SPECIAL_TOKENS] == list(range(first + 14, first + 17))
    assert len(set(processor.verdict_ids)) == 2


def test_prompts_are_short_and_text_survives(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompt = ROLES["grounder"].prompt("a red ball slides")
    ids = tokenizer.encode(prompt)
    assert len(ids) < 115
    assert tokenizer.decode(ids) == prompt
    for text in ("Łódź 42?\n", corpus("test")[0], "日本"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_seed_decides_every_byte_and_finished_stays(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_tiny_base(tmp_path / name, seed=seed)
    names = [p.name for p in (tmp_path / "a").iterdir()]
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    weights = "model-00002-of-00002.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() != (tmp_path / "c" / weights).read_bytes()
    before = (tmp_path / "a" / weights).stat().st_mtime_ns
    make_tiny_base(tmp_path / "a", seed=0)
    assert (tmp_path / "a" / weights).stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="does not hold"):
        make_tiny_base(tmp_path / "a", seed=1)


@pytest.mark.parametrize(("hidden", "heads", "section"), [(64, 4, [2, 3, 3]), (128, 1, [16, 24, 24])])
def test_rotary_sections_fill_half_a_head(hidden, heads, section):
    assert TinySizes(hidden=hidden, heads=heads).mrope_section == section
