"""Features of the recorded videos, and towers of other sizes."""

import numpy as np
import pytest
import torch
from helpers.goldens import Golden, golden_root
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from videomind.video_chatgpt.features.clip import ClipTower, TowerShape, pool, tower_config
from videomind.video_chatgpt.features.frames import read_frames

GOLDEN = Golden(golden_root("video_chatgpt"))
CPU = torch.device("cpu")
VISION = {
    "hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "image_size": 42, "patch_size": 14,
}  # fmt: skip
TEXT = {
    "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.mark.golden
@pytest.mark.parametrize(
    ("dtype", "kind", "tolerance"),
    [("float32", "f32", 1e-4), ("float32", "f16", 0.016), ("float16", "f16_half_model", 0.05)],
)
def test_the_recorded_features(dtype, kind, tolerance):
    tower = ClipTower.from_pretrained(
        str(GOLDEN.root / "c_features/clip"), device=CPU, dtype=getattr(torch, dtype)
    )
    expected = GOLDEN.npz("c_features/expected_features.npz")
    for video in GOLDEN.json("c_features/videos.json"):
        frames, _ = read_frames(GOLDEN.root / "c_features" / video["video"], size=tower.shape.size)
        recorded = expected[f"{video['pickle_name'].removesuffix('.pkl')}__{kind}"]
        found = tower.features(frames).astype(recorded.dtype)
        np.testing.assert_allclose(found, recorded, rtol=0, atol=tolerance, err_msg=video["video"])


def test_pooling_pads_frames_and_averages_over_the_real_ones():
    patches = torch.arange(2 * 3 * 2, dtype=torch.float32).view(2, 3, 2)
    found = pool(patches)
    assert found.shape == (103, 2)
    assert found[:2].tolist() == [[2, 3], [8, 9]]
    assert not found[2:100].any()
    assert found[100:].tolist() == [[3, 4], [5, 6], [7, 8]]


@pytest.fixture
def whole(tmp_path) -> CLIPModel:
    """A CLIP of both towers, saved in the test's folder as `whole`."""
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION)).eval()
    model.save_pretrained(tmp_path / "whole")
    CLIPImageProcessor(image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path / "whole")
    return model


@pytest.mark.parametrize("kind", ["whole", "vision"])
def test_sizes_and_weights_come_from_the_tower(kind, whole, tmp_path):
    """D602: no number of patches, pixels or channels is written into the code."""
    if kind == "vision":
        vision = CLIPVisionModel(CLIPVisionConfig(**VISION))
        vision.load_state_dict(
            {k.removeprefix("vision_model."): v for k, v in whole.state_dict().items() if "vision_" in k}
        )
        vision.save_pretrained(tmp_path / kind)
        CLIPImageProcessor(image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path / kind)
    tower = ClipTower.from_pretrained(str(tmp_path / kind), device=CPU, dtype=torch.float32, batch=2)
    assert tower.shape == TowerShape(size=42, patches=9, width=12)
    frames = torch.randint(0, 256, (5, 42, 42, 3), dtype=torch.uint8)
    pixels = (frames.permute(0, 3, 1, 2) / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        CLIPImageProcessor().image_std
    ).view(3, 1, 1)
    states = whole.vision_model(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    torch.testing.assert_close(tower.patches(frames), states, atol=1e-5, rtol=1e-5)
    assert tower.features(frames).shape == tower.shape.features == (109, 12)


@pytest.mark.parametrize(("size", "rows"), [(224, 356), (336, 676)])
def test_the_published_towers_rows(size, rows):
    config = CLIPVisionConfig(hidden_size=1024, num_attention_heads=16, image_size=size, patch_size=14)
    assert TowerShape.of(config).features == (rows, 1024)


def test_towers_that_cannot_be_used_are_named(whole, tmp_path):
    with pytest.raises(ValueError, match="No vision tower '/none'"):
        tower_config("/none")
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ValueError, match="type 'siglip'. Allowed: clip"):
        tower_config(str(tmp_path))
    weights = load_file(tmp_path / "whole/model.safetensors")
    del weights["vision_model.pre_layrnorm.weight"]
    save_file(weights, tmp_path / "whole/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"whole' lacks 1 tensors \(first: pre_layrnorm\.weight\)"):
        ClipTower.from_pretrained(str(tmp_path / "whole"), device=CPU, dtype=torch.float32)
