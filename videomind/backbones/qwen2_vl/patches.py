"""Frames to patches, as Qwen2-VL takes them: cut so that those of one token stand together, then scaled.

The same as transformers' `Qwen2VLVideoProcessor` bit for bit, which needs torchvision for it: frames come
chosen and resized (see videomind/video/excerpts.py). Cutting and scaling are two steps here, so that patches
travel from process to process and to the device as bytes, a quarter of their size.

Shapes: F frames, T temporal steps, H x W the patch grid, N = T * H * W patches of V values.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from videomind.device import uploaded


@dataclass(frozen=True, kw_only=True)
class Patcher:
    """Cuts frames into patches; the defaults are the library's.

    Attributes:
        image_mean: of each colour, from 0 to 1.
        image_std: of each colour.
        patch_size: pixels of a side.
        temporal_patch_size: frames of a patch.
        merge_size: patches of a token, along each side.
        rescale_factor: of pixel values.
    """

    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    rescale_factor: float = 1 / 255

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Cut a video.

        Args:
            frames: (F, 3, h, w) uint8; the sides are multiples of a token's.

        Returns:
            Patches (N, V) uint8, and their grid (3,) of (T, H, W).
        """
        if missing := -len(frames) % self.temporal_patch_size:
            frames = torch.cat((frames, frames[-1:].expand(missing, -1, -1, -1)))
        count, colours, height, width = frames.shape
        side, merge, depth = self.patch_size, self.merge_size, self.temporal_patch_size
        grid = (count // depth, height // side, width // side)
        rows, columns = grid[1] // merge, grid[2] // merge
        cut = frames.view(grid[0], depth, colours, rows, merge, side, columns, merge, side)
        # By step, then token, then patch within the token; in a patch by colour, frame, row and column.
        cut = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
        return cut.reshape(grid[0] * grid[1] * grid[2], -1), torch.tensor(grid)

    def normalized(self, patches: Tensor) -> Tensor:
        """Scale patches (N, V), uint8, by the mean and the deviation of their colour; float32."""
        # Scaling to 0..1 is part of mean and deviation, as in the library, which decides the last digit.
        mean, std = (torch.tensor(x) * (1.0 / self.rescale_factor) for x in (self.image_mean, self.image_std))
        pixels = patches.float().unflatten(1, (len(mean), -1))  # (N, 3, V / 3)
        mean, std = (uploaded(x[:, None], pixels.device) for x in (mean, std))
        return pixels.sub_(mean).div_(std).flatten(1)
