"""Prompts, ids and labels as recorded; labels also for tokenizers that treat blanks in another way."""

import pytest
import torch
from helpers.videochat import GOLDEN, unrolled
from tokenizers import AddedToken, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from videomind.encoding.encoder import BadSampleError
from videomind.video_chatgpt.tokenizer import (
    VIDEO_END,
    VIDEO_PATCH,
    VIDEO_START,
    add_video_tokens,
    load_tokenizer,
)
from videomind.video_chatgpt.vicuna import CHAT_MODE, VideoBlock, chat_prompt, label, training_prompt

pytestmark = pytest.mark.golden
ROWS = 356
SAMPLES = {sample["name"]: sample for sample in GOLDEN.json("d_samples/samples.json")}


def recorded(variant: str) -> dict[str, dict]:
    return {row["name"]: row for row in GOLDEN.json(f"d_samples/expected_{variant}.json")}


def tokenizer(sample: dict, variant: str = "modern_legacy") -> PreTrainedTokenizerFast:
    """Ours, or one that treats blanks at special tokens as another version of transformers did."""
    made = load_tokenizer(GOLDEN.root / "tokenizer")
    add_video_tokens(made, has_start_end=sample["mm_use_vid_start_end"])
    backend = made.backend_tokenizer
    if variant == "modern_nonlegacy":
        backend.normalizer = None
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    if variant == "pinned":
        tokens = ["<s>", "</s>", "<unk>", VIDEO_PATCH, VIDEO_START, VIDEO_END]
        known = [token for token in tokens if token in made.get_vocab()]
        backend.add_special_tokens(
            [AddedToken(t, lstrip=True, rstrip=True, normalized=False, special=True) for t in known]
        )
    return made


def prompt_of(sample: dict) -> str:
    block = (
        VideoBlock(num_tokens=ROWS, has_start_end=sample["mm_use_vid_start_end"]) if sample["video"] else None
    )
    return training_prompt(sample["conversations"], block, is_video_first=sample["sep_video_conv_front"])


@pytest.mark.parametrize("name", SAMPLES)
def test_prompt_ids_and_labels(name):
    sample, expected = SAMPLES[name], recorded("modern_legacy")[name]
    prompt = prompt_of(sample)
    assert prompt.replace(VIDEO_PATCH * ROWS, f"{VIDEO_PATCH}{{*{ROWS}}}") == expected["prompt"]
    found = label(prompt, tokenizer(sample), max_length=sample["model_max_length"])
    assert found.input_ids.tolist() == unrolled(expected["input_ids_rle"])
    assert found.labels.tolist() == unrolled(expected["labels_rle"])
    assert (found.ignored is None) == (expected["n_supervised"] > 0)


@pytest.mark.parametrize("variant", ["pinned", "modern_nonlegacy"])
@pytest.mark.parametrize("name", SAMPLES)
def test_labels_of_other_tokenizers(name, variant):
    """D618: multi-turn samples learn every answer, where the original's counting lost its place."""
    sample, expected = SAMPLES[name], recorded(variant)[name]
    tok = tokenizer(sample, variant)
    found = label(prompt_of(sample), tok, max_length=sample["model_max_length"])
    assert found.input_ids.tolist() == unrolled(expected["input_ids_rle"])
    if expected["n_supervised"] or found.ignored:
        assert found.labels.tolist() == unrolled(expected["labels_rle"])
        return
    answers = [turn["value"] for turn in sample["conversations"] if turn["from"] == "gpt"]
    learned = tok.decode(found.labels[found.labels >= 0], skip_special_tokens=False)
    texts = [text.strip() for text in learned.split("</s>")[:-1]]
    assert texts == [answer.strip() for answer in answers]


@pytest.mark.parametrize("row", GOLDEN.json("d_samples/expected_prompts_modern.json"))
def test_chat_prompts(row):
    block = VideoBlock(num_tokens=ROWS, has_start_end=True)
    prompt = chat_prompt(row["question"], block, mode=row["conv_mode"])
    assert prompt.replace(VIDEO_PATCH * ROWS, f"{VIDEO_PATCH}{{*{ROWS}}}") == row["prompt"]
    variant = "modern_nonlegacy" if "nonlegacy" in row["tokenizer"] else "modern_legacy"
    ids = tokenizer({"mm_use_vid_start_end": True}, variant)(prompt)["input_ids"]
    assert ids == unrolled(row["input_ids_rle"])


def test_the_template_is_chosen_by_name_every_time():
    """D615: a copied conversation lost which template it was."""
    block = VideoBlock(num_tokens=1, has_start_end=False)
    assert chat_prompt("a", block) == chat_prompt("a", block, mode=CHAT_MODE)
    assert chat_prompt("a", block, mode="vicuna_v1_1") != chat_prompt("a", block)
    with pytest.raises(ValueError, match="Unknown conversation 'vicuna'.*vicuna_v1_1"):
        chat_prompt("a", block, mode="vicuna")


def turns(*texts: str, speakers: tuple[str, str] = ("human", "gpt")) -> list[dict]:
    return [{"from": speakers[i % 2], "value": text} for i, text in enumerate(texts)]


def test_speakers_must_alternate():
    with pytest.raises(BadSampleError, match="turn 2 is from 'human'"):
        training_prompt(turns("a", "b", speakers=("human", "human")), None)
    with pytest.raises(BadSampleError, match="'user'.*human"):
        training_prompt(turns("a", speakers=("user", "gpt")), None)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("q", "a", "q2"), "does not end with an answer"),
        (("q", "a", "q2", ""), "does not end with an answer"),
        (("", "a"), "round 1 has no answer"),
        (("q", "a</s>"), "round 2 has no answer"),
        (("q <unk>", "a"), "'<unk>', which pads"),
    ],
)
def test_why_nothing_is_learned(texts, reason):
    tok = load_tokenizer(GOLDEN.root / "tokenizer")
    found = label(training_prompt(turns(*texts), None), tok, max_length=999)
    assert reason in found.ignored
    assert (found.labels == -100).all()


def test_what_is_cut_off_does_not_count():
    tok = load_tokenizer(GOLDEN.root / "tokenizer")
    prompt = training_prompt(turns("q", "a long enough answer", "q", "an ASSISTANT: in it"), None)
    first = prompt.index("</s>") + len("</s>")
    length = len(tok(prompt[:first])["input_ids"])
    whole, cut = (label(prompt, tok, max_length=n) for n in (999, length))
    assert whole.ignored and cut.ignored is None
    assert torch.equal(cut.labels[-1], torch.tensor(tok.eos_token_id))
