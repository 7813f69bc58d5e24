"""Patches of Qwen2-VL against the library's processor.

Covers `backbones/qwen2_vl/patches.py`.
"""

import pytest
import torch
from transformers import Qwen2VLVideoProcessor

from videomind.backbones.qwen2_vl.patches import Patcher

OFF = dict.fromkeys(("do_resize", "do_sample_frames", "cap_pixels_per_frame"), False)


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 28, 28), (2, 56, 84), (5, 84, 28), (8, 140, 196)]
)
@pytest.mark.parametrize("settings", [{}, {"image_mean": (0.5, 0.4, 0.3), "rescale_factor": 1 / 256}])
def test_patches_are_the_librarys_bit_for_bit(frames, height, width, settings):
    generator = torch.Generator().manual_seed(frames)
    video = torch.randint(0, 256, (frames, 3, height, width), dtype=torch.uint8, generator=generator)
    expected = Qwen2VLVideoProcessor(**OFF, **settings)(videos=[video], return_tensors="pt")
    patcher = Patcher(**settings)
    patches, grid = patcher(video)
    assert patches.dtype == torch.uint8  # as they travel
    assert torch.equal(patcher.normalized(patches), expected["pixel_values_videos"])
    assert torch.equal(grid, expected["video_grid_thw"][0])


def test_defaults_are_the_librarys():
    library, own = Qwen2VLVideoProcessor(), Patcher()
    for name, value in vars(own).items():
        known = getattr(library, name)
        assert value == (tuple(known) if isinstance(known, list) else known), name
