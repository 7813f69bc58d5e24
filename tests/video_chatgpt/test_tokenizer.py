"""The tokenizer's ids, its files, and the text it makes of bytes that are none."""

import json
import re

import pytest
from helpers.videochat import BASE, GOLDEN

from videomind.video_chatgpt.tokenizer import (
    VideoTokens,
    add_video_tokens,
    decode_pieces,
    load_tokenizer,
    save_tokenizer,
)

SAMPLES = GOLDEN.json("d_samples/expected_modern_legacy.json")
pytestmark = pytest.mark.golden


def test_tokens_of_a_video_come_last():
    vocab = json.loads((BASE / "config.json").read_text())["vocab_size"]
    tokenizer = load_tokenizer(BASE)
    with pytest.raises(ValueError, match="no <vid_patch>"):
        VideoTokens.of(tokenizer)
    expected = VideoTokens(patch=vocab, start=vocab + 1, end=vocab + 2)
    assert add_video_tokens(tokenizer, has_start_end=True) == expected
    assert add_video_tokens(tokenizer, has_start_end=True) == expected
    assert add_video_tokens(load_tokenizer(BASE), has_start_end=False) == VideoTokens(patch=vocab)


def test_saved_files_give_the_same_tokens(tmp_path):
    tokenizer = load_tokenizer(BASE)
    add_video_tokens(tokenizer, has_start_end=True)
    save_tokenizer(tokenizer, tmp_path / "model", source=BASE)
    assert (tmp_path / "model/tokenizer.model").read_bytes() == (BASE / "tokenizer.model").read_bytes()
    pieces = tmp_path / "json"
    pieces.mkdir()
    tokenizer.backend_tokenizer.save(str(pieces / "tokenizer.json"))
    for folder in (tmp_path / "model", pieces):
        again = load_tokenizer(folder)
        assert VideoTokens.of(again) == VideoTokens.of(tokenizer)
        for sample in SAMPLES:
            text = sample["prompt"].replace("<vid_patch>{*356}", "<vid_patch>" * 3)
            assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.pad_token_id == tokenizer.pad_token_id == 0


def test_tokens_of_an_image_model_can_be_left_out(tmp_path):
    for path in BASE.glob("*token*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    vocab = json.loads((BASE / "config.json").read_text())["vocab_size"]
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<image>": vocab}))
    assert len(load_tokenizer(tmp_path)) == vocab + 1
    assert len(load_tokenizer(tmp_path, without=["<image>"])) == vocab


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="neither tokenizer.model nor tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ValueError, match="not a sentencepiece model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\xbdQ\xd1}", "a\N{REPLACEMENT CHARACTER}Q\N{REPLACEMENT CHARACTER}}"),
        (b"\xe2\x82", "\N{REPLACEMENT CHARACTER}" * 2),
        ("猫 é".encode(), "猫 é"),
    ],
)
def test_bytes_that_are_no_text_keep_their_neighbours(data, text):
    tokenizer = load_tokenizer(BASE)
    ids = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in data]
    assert decode_pieces(tokenizer, ids) == text


def test_decoding_gives_the_text_back():
    tokenizer = load_tokenizer(BASE)
    for sample in SAMPLES:
        text = re.split("<vid_|</s>", sample["prompt"])[0]
        assert decode_pieces(tokenizer, tokenizer(text)["input_ids"]) == text
