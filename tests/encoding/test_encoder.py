"""Samples to tensors, for every role's budget, against the original system's.

Covers `encoding/conversation.py`, `backbones/chatml.py` and `backbones/qwen2_vl/processor.py`.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from helpers.goldens import escaped_plan_fix, golden_bases, golden_ids
from helpers.videos import frames_that_fit
from PIL import Image

from videomind.backbones.backbone import Processor
from videomind.backbones.chatml import chatml
from videomind.backbones.registry import load_processor
from videomind.dataset.schema import Annotation, GroundingTarget, Sample
from videomind.dataset.views import Answering, AnsweringCrop, Grounding, Planning, Verifying
from videomind.encoding.conversation import render, to_messages
from videomind.encoding.encoder import BadSampleError, Encoder, salient_clips
from videomind.roles import get_role
from videomind.video.excerpts import BadVideoError, read_excerpt
from videomind.video.request import Excerpt

VIEWS = {
    "grounding": Grounding,
    "planning": Planning,
    "verifying": Verifying,
    "answering": Answering,
    "answering_crop": AnsweringCrop,
}


@pytest.fixture(scope="module")
def processors(golden_tree) -> Callable[[str], Processor]:
    return cache(lambda base: load_processor(golden_tree.root / base))


@pytest.fixture(scope="module")
def processor(processors) -> Processor:
    return processors(golden_bases()[0])


def sample_of(case: dict) -> Sample:
    """The view's sample; a random crop is taken from the case, and checked to be one that can be drawn."""
    anno = Annotation(**case["anno"])
    sample = VIEWS[case["role"]]().sample(anno, random.Random(0))
    video = case["meta"]["messages"][0]["content"][0]
    if case["role"] == "answering_crop" and not anno.no_aug:
        assert 0 <= sample.excerpt.start_s < sample.excerpt.end_s <= anno.duration
        excerpt = Excerpt(
            path=sample.excerpt.path,
            budget=sample.excerpt.budget,
            start_s=video["video_start"],
            end_s=video["video_end"],
        )
        sample = replace(sample, excerpt=excerpt)
    return escaped_plan_fix(sample, case["meta"]["messages"][1]["content"])


@pytest.mark.golden
@pytest.mark.parametrize("case_id", golden_ids("preproc"))
def test_preprocessing(golden, processors, case_id):
    processor = processors(golden.case("preproc", case_id)["inputs"]["base"])
    case, arrays = golden.recorded("preproc", case_id)
    if arrays is None:
        if "anno" in case:  # else only its video is known, which the test of frames reads
            check_failure_is_mended(case, processor)
        return
    sample = sample_of(case)
    assert to_messages(sample, processor.backbone) == case["meta"]["messages"]
    if "ss" in case["meta"]:
        assert sample.segment == pytest.approx((case["meta"]["ss"], case["meta"]["se"]), abs=1e-9)
    talk = render(sample, processor.backbone)
    assert talk.context + talk.response == case["text"]
    encoder = Encoder(processor)
    out = encoder(sample, read_excerpt(encoder.excerpt(sample)).frames, random.Random(case["seed"]))
    assert [out.grid.tolist()] == case["video_grid_thw"]
    assert list(out.pixel_values.shape) == case["pixel_values_shape"]
    np.testing.assert_array_equal(out.input_ids, arrays["input_ids"].squeeze())
    np.testing.assert_array_equal(out.labels, arrays["labels"].squeeze())
    flat = processor.normalized(out.pixel_values).flatten()
    np.testing.assert_allclose(flat[:64], arrays["pv_first64"], atol=2e-2)
    np.testing.assert_allclose(flat[:: len(flat) // 256][:256], arrays["pv_strided"], atol=2e-2)
    if "timestamps" not in case:
        assert out.targets is None
        return
    np.testing.assert_allclose(out.targets.spans[0], case["timestamps"][0], atol=1e-6)
    np.testing.assert_array_equal(out.targets.saliency.squeeze(), arrays["saliency"].squeeze())
    assert out.targets.saliency[0].nonzero()[:, 0].tolist() == case["pos_clip_candidates"]
    assert out.targets.pos_clip.tolist()[0] in case["pos_clip_candidates"]


def check_failure_is_mended(case: dict, processor: Processor) -> None:
    """D201: where the original wanted one frame more than there are and stopped, all that fit are encoded."""
    sample = VIEWS[case["role"]]().sample(Annotation(**case["anno"]), random.Random(0))
    encoder = Encoder(processor)
    if not (count := frames_that_fit(sample.excerpt)):
        with pytest.raises(BadVideoError, match="fewer than 2 frames remain"):
            read_excerpt(encoder.excerpt(sample))
        return
    frames = read_excerpt(encoder.excerpt(sample)).frames
    assert len(frames) == count
    out = encoder(sample, frames, random.Random(0))
    steps, height, width = out.grid.tolist()
    assert [steps * 2, height * 14, width * 14] == [count, *frames.shape[2:]]
    assert len(out.pixel_values) == steps * height * width
    is_video = out.input_ids == processor.token_id("<|video_pad|>")
    assert is_video.sum() == steps * height * width // 4
    learned = processor.tokenizer.decode(out.labels[out.labels >= 0])
    assert learned == sample.response.rstrip() + "<|im_end|>"


@pytest.mark.parametrize("count", [1, 19, 27])
@pytest.mark.parametrize("role", VIEWS)
def test_a_gif_that_the_original_could_not_read(golden, processor, tmp_path, role, count):
    """What a case records for which the original only gave an error: see `check_failure_is_mended`."""
    pictures = [Image.fromarray(np.full((40, 60, 3), 9 * i + 1, np.uint8)) for i in range(count)]
    path = tmp_path / "v.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    anno = {"video_path": str(path), "duration": float(count), "query": "it", "question": "what?"}
    anno |= {"answer": "a", "span": [[0, count]], "pred": [0, count], "positive": True, "route": 2}
    check_failure_is_mended({"role": role, "anno": anno, "error": "ValueError: ..."}, processor)


@pytest.mark.golden
def test_conversation(golden):
    prompt = golden.json("units/conversation.json")["prompt"]
    assert chatml([("user", "hi"), ("assistant", "yo"), ("user", None)]) == prompt


@pytest.mark.golden
def test_chatml_is_the_template_of_the_base(golden, processor):
    """Our text is what the model's own chat template gives."""
    sample = grounding_sample()
    text = processor.tokenizer.apply_chat_template(
        to_messages(sample, processor.backbone), chat_template=processor.chat_template, tokenize=False
    )
    talk = render(sample, processor.backbone)
    assert talk.context + talk.response == text.strip()


def grounding_sample(**changes) -> Sample:
    fields = {
        "role": "grounder",
        "excerpt": Excerpt(path="v.mp4", budget=get_role("grounder").budget),
        "prompt": "Find it.",
        "response": "The relevant moment happens in <|reg|>.",
        "grounding": GroundingTarget(spans=[[1.0, 3.0]], duration_s=8.0),
    }
    return Sample(**{**fields, **changes})


FRAMES = torch.randint(0, 255, (8, 3, 56, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.golden
def test_the_positive_clip_depends_on_the_seed_alone(golden, processor):
    sample = grounding_sample(grounding=GroundingTarget(spans=[[0.0, 8.0]], duration_s=8.0))
    encoder = Encoder(processor)
    draw = [int(encoder(sample, FRAMES, random.Random(s)).targets.pos_clip) for s in (1, 1, 2, 3, 4, 5)]
    assert draw[0] == draw[1] and len(set(draw)) > 1


@pytest.mark.golden
@pytest.mark.parametrize(
    ("changes", "encoder", "frames", "reason"),
    [
        ({}, {}, torch.zeros_like(FRAMES), "every pixel of the excerpt is zero"),
        ({}, {"max_length": 20}, FRAMES, r"tokens, more than --model_max_length 20"),
        ({}, {"is_learnable": lambda *_: False}, FRAMES, r"moments \[\[1.0, 3.0\]\] s"),
    ],
)
def test_bad_samples_say_why(golden, processor, changes, encoder, frames, reason):
    with pytest.raises(BadSampleError, match=reason):
        Encoder(processor, **encoder)(grounding_sample(**changes), frames, random.Random(0))


def test_a_short_moment_keeps_one_salient_clip():
    """D305: rounding could leave none."""
    assert salient_clips(3.2, 3.3, rate=0.5, steps=5) == slice(1, 2)
    assert salient_clips(9.99, 10.0, rate=0.5, steps=5) == slice(4, 5)
