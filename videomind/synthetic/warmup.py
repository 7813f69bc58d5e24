"""A short full-parameter warm-up of the tiny base model with the language loss.

A random frozen base learns nothing a LoRA can use. So it first learns to name colours in clips of one or
two steps and in phrases, and to say whether they agree; then to name, after the grounder's long prompt,
the colour that the query asks for. The result is a base model in the published layout again.
"""

import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

from videomind.model.qwen2_vl import IGNORE_INDEX, rope_index
from videomind.roles import get_role
from videomind.synthetic.phrases import ACTIONS, COLOURS, SHAPES, sentence
from videomind.synthetic.tiny_model import write_shards
from videomind.synthetic.warmup_data import NOTHING, WarmupVideo, load_videos

_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


@dataclass(frozen=True, kw_only=True)
class Example:
    """One turn to learn: frames (N, 3, H, W) uint8 or None, the user's text, the reply."""

    frames: Tensor | None
    text: str
    reply: str


def _random_phrase(rng, colour):
    return sentence(
        rng, split="train", colour=colour, shape=rng.choice(SHAPES), action=rng.choice(list(ACTIONS))
    )


def _short_clip(rng, videos):
    """A clip of one or two steps of one colour."""
    while True:
        video = rng.choice(videos)
        length = rng.randint(1, 2)
        start = rng.randint(0, len(video.colours) - length)
        colours = set(video.colours[start : start + length])
        if len(colours) == 1 and None not in colours:
            colour = colours.pop()
            if colour != NOTHING or rng.random() < 0.3:
                return video.clip(start, length), colour


def caption(rng, videos):
    frames, colour = _short_clip(rng, videos)
    return Example(frames=frames, text="What is shown?", reply=f"{colour}.")


def _styled(rng, phrase):
    return phrase[0].upper() + phrase[1:] if rng.random() < 0.5 else phrase


def phrase_colour(rng, videos):
    colour = rng.choice(list(COLOURS))
    return Example(
        frames=None, text=f"Which colour: '{_styled(rng, _random_phrase(rng, colour))}'", reply=f"{colour}."
    )


def yes_no(rng, videos):
    frames, colour = _short_clip(rng, videos)
    asked = colour if rng.random() < 0.5 and colour != NOTHING else rng.choice(list(COLOURS))
    return Example(
        frames=frames,
        text=f"Is this shown: '{_styled(rng, _random_phrase(rng, asked))}'",
        reply="Yes." if asked == colour else "No.",
    )


def long_prompt(rng, videos, prompt):
    frames, colour = _short_clip(rng, videos)
    asked = colour if rng.random() < 0.5 and colour != NOTHING else rng.choice(list(COLOURS))
    agree = "Yes" if asked == colour else "No"
    return Example(
        frames=frames,
        text=prompt(_styled(rng, _random_phrase(rng, asked))),
        reply=f"The relevant moment shows {asked}. {agree}.",
    )
