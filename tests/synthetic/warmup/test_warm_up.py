"""A few steps of warm-up learn, and give a base in the layout they began with.

Covers `synthetic/warmup/data.py` and `synthetic/warmup/loop.py`.
"""

import random
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from transformers import Qwen2VLForConditionalGeneration

from videomind.backbones.registry import load_processor
from videomind.encoding.encoder import Encoder
from videomind.model.checkpoint import LoadSettings, load_base
from videomind.synthetic import WarmupSettings, make_tiny_base, warm_up
from videomind.synthetic.phrases import COLOURS
from videomind.synthetic.tiny_model import _SHARDS as SHARDS
from videomind.synthetic.warmup.data import NOTHING, Tasks, load_videos
from videomind.synthetic.warmup.loop import SMALL_BUDGET, _encode, _loss
from videomind.synthetic.warmup.warm_up import LOSSES

SETTINGS = WarmupSettings(
    short_steps=16, long_steps=3, short_batch=16, long_batch=2, num_videos=6, processes=1, lr=3e-3
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "tiny"
    make_tiny_base(path)
    return path


@pytest.fixture(scope="module")
def videos(base, synthetic_root):
    return load_videos(synthetic_root, Encoder(load_processor(base)), budget=SMALL_BUDGET, limit=99, seed=0)


def test_videos_are_the_training_ones_and_colours_are_seen(videos):
    assert len(videos) == 6  # 3 of each data set
    for video in videos:
        assert len(video.patches) == len(video.colours)
        assert NOTHING in video.colours and set(video.colours) & set(COLOURS)
    # On average a step of a colour is nearer to that colour than a step without any.
    red_minus_blue = {"red": [], "blue": []}
    for video in videos:
        for patches, colour in zip(video.patches.float(), video.colours, strict=True):
            if colour in red_minus_blue:
                channels = patches.unflatten(1, (3, -1)).mean(dim=(0, 2))
                red_minus_blue[colour].append(channels[0] - channels[2])
    means = {colour: torch.tensor(v).mean() for colour, v in red_minus_blue.items() if v}
    assert means.get("red", torch.tensor(9.0)) > means.get("blue", torch.tensor(-9.0))


def test_tasks_are_answered_rightly(videos):
    tasks = Tasks(videos, random.Random(0))
    verdicts = Counter()
    for _ in range(200):
        task = tasks.long()
        asked = next(w for w in task.prompt.lower().replace("'", " ").split() if w in COLOURS)
        assert f"  {asked}." in task.reply
        verdicts["Yes" in task.reply] += 1
    assert min(verdicts.values()) > 40
    assert {t.patches is None for t in (tasks.short() for _ in range(50))} == {True, False}


def test_an_excerpt_has_the_features_of_its_video(base, videos):
    """What the second stage reads of a video encoded as a whole gives the loss of its patches."""
    processor = load_processor(base)
    model = load_base(base, LoadSettings(), processor)
    tasks = Tasks([replace(video) for video in videos], random.Random(0))
    tasks.encode(partial(_encode, model))
    drawn = [tasks.long() for _ in range(6)] + [tasks.short() for _ in range(6)]
    assert (
        {task.features is None for task in drawn} == {task.patches is None for task in drawn} == {True, False}
    )
    assert not any(task.features.requires_grad for task in drawn if task.features is not None)
    anew = [replace(task, features=None) for task in drawn]
    torch.testing.assert_close(_loss(model, drawn, processor), _loss(model, anew, processor))


def test_loss_falls_and_the_keys_stay(base, synthetic_root, tmp_path):
    losses = warm_up(base, synthetic_root, tmp_path / "warm", settings=SETTINGS)
    assert len(losses) == 19
    assert sum(losses[12:16]) < 0.7 * sum(losses[:4])
    model, info = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path / "warm", output_loading_info=True)
    assert not any(info.values())
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert {p.name for p in (tmp_path / "warm").iterdir()} == {p.name for p in base.iterdir()} | {LOSSES}
    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json"):
        assert (base / name).read_bytes() == (tmp_path / "warm" / name).read_bytes()
    for name in SHARDS:
        assert (base / name).read_bytes() != (tmp_path / "warm" / name).read_bytes()
    assert warm_up(base, synthetic_root, tmp_path / "warm", settings=SETTINGS) == losses
    for settings in (WarmupSettings(), replace(SETTINGS, seed=1)):
        with pytest.raises(ValueError, match="does not hold"):
            warm_up(base, synthetic_root, tmp_path / "warm", settings=settings)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_weights(base, synthetic_root, tmp_path, processes):
    few = WarmupSettings(
        short_steps=2, long_steps=1, short_batch=4, long_batch=2, num_videos=2, processes=processes
    )
    for name in "ab":
        warm_up(base, synthetic_root, tmp_path / name, settings=few)
    for name in SHARDS:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not [p for p in tmp_path.iterdir() if p.name not in "ab"]
