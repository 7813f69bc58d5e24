"""Video instructions: rows, what is bad about a sample and how that is recorded, batches."""

import json

import numpy as np
import pytest
import torch
from helpers.videochat import BASE

from videomind.faults import RunError
from videomind.video_chatgpt.features.store import write_features
from videomind.video_chatgpt.instructions import (
    InstructionDataset,
    collate,
    feature_shape,
    read_instructions,
)
from videomind.video_chatgpt.tokenizer import add_video_tokens, load_tokenizer

pytestmark = pytest.mark.golden
SHAPE = (5, 4)


def row(*texts: str, video: str | None = "a.pkl", name: str = "x") -> dict:
    turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": name, "conversations": turns} | ({"video": video} if video else {})


GOOD = row("What happens?\n<video>", "A dog runs.")
TEXT = row("What is a dog?", "An animal.", video=None)


@pytest.fixture
def dataset(tmp_path):
    for number, name in enumerate("ab"):
        write_features(tmp_path / f"features/{name}.pkl", np.full(SHAPE, number, np.float16))
    write_features(tmp_path / "features/wide.pkl", np.zeros((5, 3), np.float16))
    (tmp_path / "features/broken.pkl").write_bytes(b"cos\nsystem\n.")
    tokenizer = load_tokenizer(BASE)
    add_video_tokens(tokenizer, has_start_end=True)

    def make(*rows: dict, **settings) -> InstructionDataset:
        path = tmp_path / "train.json"
        path.write_text(json.dumps(rows))
        settings = {"max_length": 2048, "has_start_end": True, "shape": SHAPE} | settings
        return InstructionDataset(
            read_instructions(path),
            source="train",
            folder=tmp_path / "features",
            tokenizer=tokenizer,
            **settings,
        )

    return make


def test_the_number_of_tokens_is_that_of_the_features(dataset, tmp_path):
    made = dataset(GOOD)
    assert feature_shape(made.rows, tmp_path / "features") == SHAPE
    patch = made.tokenizer.convert_tokens_to_ids("<vid_patch>")
    assert (made[0].tokens.input_ids == patch).sum() == SHAPE[0]
    assert feature_shape(dataset(TEXT).rows, "nowhere") is None
    with pytest.raises(ValueError, match="No video of the training set has features.*none.pkl"):
        feature_shape(dataset(row("<video>", "a", video="none.pkl")).rows, tmp_path / "features")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("<video>", "a", video="none.pkl"), "No features of 'none.pkl'"),
        (row("<video>", "a", video="broken.pkl"), "broken.pkl is refused: it refers to os.system"),
        (
            row("<video>", "a", video="wide.pkl"),
            r"its features are \(5, 3\), those of the first video \(5, 4\)",
        ),
        (row("<video> or <video>", "a"), "it has 2 times <video> for its one video"),
        (row("no place for it", "a"), "it has 0 times <video> for its one video"),
        (row("<video>", ""), "nothing of it can be learned"),
        (row("<video>"), "nothing of it can be learned: it does not end with an answer"),
    ],
)
@pytest.mark.parametrize("is_lazy", [True, False])
def test_bad_samples_are_recorded_with_the_reason(dataset, bad, reason, is_lazy):
    """D608 and D610: they gave an IndexError, another video, or a loss that is no number. D620: `is_lazy`."""
    item = dataset(bad, *[GOOD] * 20, is_lazy=is_lazy)[0]
    assert len(item.bad) == 1 and item.bad[0].source == "train"
    assert torch.tensor([item.bad[0].video_path == (bad.get("video") or bad["id"])])
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(item.bad[0].reason)
    assert (item.tokens.labels >= 0).any() and item.features.shape == SHAPE


@pytest.mark.parametrize("words", ["<vid_patch>", "a <vid_start> b", "<vid_end>"])
def test_tokens_of_a_video_in_a_text_are_its_characters(dataset, words):
    item = dataset(row(words, "a", video=None), *[GOOD] * 2)[0]
    tokens = dataset(GOOD).tokenizer.decode(item.tokens.input_ids)
    assert not item.bad and f"USER: {words}" in tokens


def test_a_cut_within_the_video_is_recorded(dataset):
    """D608: wherever it falls, from behind the start to before the end."""
    made = dataset(GOOD)
    ids = made[0].tokens.input_ids.tolist()
    start, end = (ids.index(made.tokenizer.convert_tokens_to_ids(f"<vid_{at}>")) for at in ("start", "end"))
    assert end - start == SHAPE[0] + 1
    for length in range(start + 1, end + 1):
        place = f"cut within the video at {length} tokens .--model_max_length.: "
        with pytest.raises(RunError, match=place):
            dataset(GOOD, max_length=length, max_retries=2)[0]
    assert not dataset(GOOD, max_length=len(ids))[0].bad


def test_text_and_videos_share_a_batch(dataset):
    """D609: text alone gave a KeyError, or the videos behind it were dropped."""
    other = row("<video>\nWho?", "A dog.", video="b.pkl")
    for rows, values in (((GOOD, TEXT, other), [0, 1]), ((TEXT, other, GOOD), [1, 0])):
        made = dataset(*rows)
        batch = collate([made[i] for i in range(3)], pad_token_id=0)
        assert batch["video_features"].shape == (2 * SHAPE[0], SHAPE[1])
        assert batch["video_features"][:: SHAPE[0], 0].tolist() == values
        assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
        lengths = [len(made[i].tokens.input_ids) for i in range(3)]
        assert batch["attention_mask"].sum(dim=1).tolist() == lengths
        assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    assert "video_features" not in collate([dataset(TEXT)[0]], pad_token_id=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds no list of samples"),
        ([{"conversations": []}], "row 0 has no conversations"),
        ([GOOD, row("<video>", None)], "row 1: a turn is"),
        ([GOOD | {"video": 3}], "row 0: its video is 3"),
    ],
)
def test_files_that_are_no_instructions(tmp_path, content, words):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"train.json.*{words}"):
        read_instructions(path)
