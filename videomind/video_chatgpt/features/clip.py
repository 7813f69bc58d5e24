"""The vision tower: frames to spatio-temporal features, as Video-ChatGPT's projector reads them.

T frames, S pixels of a side, P patches of a frame, C channels. Sizes come from the tower's config: P is 256
for CLIP ViT-L/14 at 224 pixels and 576 at 336. Formulas: https://arxiv.org/abs/2306.05424, section 3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, PreTrainedConfig

from videomind.device import uploaded
from videomind.video_chatgpt.features.frames import MAX_FRAMES
from videomind.video_chatgpt.options import TOWER_BATCH

CLIP_TYPES = ("clip", "clip_vision_model")  # both towers, the vision tower alone


@dataclass(frozen=True, kw_only=True)
class TowerShape:
    """Sizes of a tower.

    Attributes:
        size: pixels of a side of its input.
        patches: of a frame, P.
        width: channels, C.
    """

    size: int
    patches: int
    width: int

    @classmethod
    def of(cls, config: CLIPVisionConfig) -> "TowerShape":
        """Read them from a config."""
        side = config.image_size // config.patch_size
        return cls(size=config.image_size, patches=side * side, width=config.hidden_size)

    @property
    def features(self) -> tuple[int, int]:
        """Shape of a video's features."""
        return MAX_FRAMES + self.patches, self.width


def tower_config(name: str) -> CLIPVisionConfig:
    """Read the config of a tower.

    Args:
        name: folder or hub id.

    Raises:
        ValueError: there is none, or it is not a CLIP's.
    """
    try:
        fields, _ = PreTrainedConfig.get_config_dict(name)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"No vision tower {name!r} (--vision_tower), neither as a folder nor on the hub: {reason}"
        ) from None
    if (kind := fields.get("model_type")) not in CLIP_TYPES:
        raise ValueError(f"{name!r} is a model of type {kind!r}. Allowed: {', '.join(CLIP_TYPES)}.")
    return CLIPVisionConfig.from_pretrained(name)


def pool(patches: Tensor) -> Tensor:
    """Average over patches and over frames.

    The first 100 rows are the frames, zeros below those there are; then comes one row per patch.

    Args:
        patches: (T, P, C).

    Returns:
        (100 + P, C).
    """
    temporal = patches.mean(dim=1)  # (T, C)
    empty = temporal.new_zeros(MAX_FRAMES - len(temporal), temporal.shape[1])
    return torch.cat([temporal, empty, patches.mean(dim=0)])


class _VisionModel(CLIPVisionModel):
    """Knows what else a whole CLIP holds, which otherwise fills the screen as unexpected."""

    _keys_to_ignore_on_load_unexpected = (r"^text_", r"^visual_projection", r"^logit_scale", r"position_ids$")


class ClipTower:
    """A CLIP vision tower up to the layer before its last.

    Args:
        model: the whole tower; its last layer is taken off.
        processor: scales pixels.
        batch: frames per forward pass.

    Attributes:
        shape: sizes of input and features.
    """

    def __init__(self, model: CLIPVisionModel, processor: CLIPImageProcessor, *, batch: int = TOWER_BATCH):
        self.shape = TowerShape.of(model.config)
        del model.encoder.layers[-1]  # the features are what enters it
        self._model, self._processor, self._batch = model.eval(), processor, batch

    @classmethod
    def from_pretrained(
        cls, name: str, *, device: torch.device, dtype: torch.dtype, batch: int = TOWER_BATCH
    ) -> "ClipTower":
        """Load a tower.

        Args:
            name: folder or hub id of a CLIP or of its vision tower.
            device: where it computes.
            dtype: of its weights.
            batch: frames per forward pass.

        Raises:
            ValueError: it cannot be loaded, or lacks tensors.
        """
        config = tower_config(name)
        try:
            processor = CLIPImageProcessor.from_pretrained(name)
            model, loading = _VisionModel.from_pretrained(
                name,
                config=config,
                dtype=dtype,
                key_mapping={r"^vision_model\.": ""},  # where a tower's tensors are in most checkpoints
                output_loading_info=True,
            )
        except (OSError, RuntimeError) as error:  # the latter: tensors of other sizes than the config's
            reason = str(error).splitlines()[0]
            raise ValueError(f"The vision tower {name!r} cannot be loaded: {reason}") from None
        if missing := sorted(loading["missing_keys"]):
            raise ValueError(f"The vision tower {name!r} lacks {len(missing)} tensors (first: {missing[0]})")
        return cls(model.to(device), processor, batch=batch)

    @torch.inference_mode()
    def patches(self, frames: Tensor) -> Tensor:
        """Compute the hidden states of the layer before the last.

        Args:
            frames: (T, S, S, 3) uint8, RGB.

        Returns:
            (T, P, C) float32, on the tower's device.
        """
        parts = []
        for part in frames.permute(0, 3, 1, 2).split(self._batch):
            pixels = self._processor(
                uploaded(part, self._model.device), do_resize=False, do_center_crop=False, return_tensors="pt"
            )["pixel_values"]
            states = self._model(pixels.to(self._model.dtype)).last_hidden_state  # (T, 1 + P, C)
            parts.append(states[:, 1:].float())
        return torch.cat(parts)

    def features(self, frames: Tensor) -> np.ndarray:
        """Compute a video's features.

        Args:
            frames: (T, S, S, 3) uint8, RGB.

        Returns:
            (100 + P, C) float32.
        """
        return pool(self.patches(frames)).cpu().numpy()
