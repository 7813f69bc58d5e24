"""What a backbone declares: the facts and the few functions in which families of models differ.

The rooms above ask the declaration, and name no family. A backbone from outside of the package is a subclass
of `Backbone` that is handed to `register` (see `videomind.backbones.registry`).

Shapes: B batch, L tokens of a sequence, T temporal steps of a video, N patches of V values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from videomind.roles import VERIFIER_NO, VERIFIER_YES, VisualUnits

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_BACKBONE = "qwen2_vl"  # the published agents'


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What turns text and frames into inputs of one backbone.

    Attributes:
        backbone: whose inputs they are.
        tokenizer: with the special tokens of the roles.
        patcher: what cuts frames into patches, without resizing them.
        chat_template: as stored beside the tokenizer.
        source: the folder it was read from.
    """

    backbone: Backbone
    tokenizer: PreTrainedTokenizerBase
    patcher: Any
    chat_template: str
    source: Path

    def token_id(self, token: str) -> int:
        """Look up the id of a token.

        Raises:
            ValueError: The tokenizer lacks it or splits it.
        """
        ids = self.tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(f"{token!r} is not one token of the tokenizer in {self.source}: it gives {ids}")
        return ids[0]

    def normalized(self, patches: Tensor) -> Tensor:
        """Make inputs of the model of patches (N, V) as they travel; see `Backbone.normalized`."""
        return self.backbone.normalized(self, patches)

    @property
    def verdict_ids(self) -> tuple[int, int]:
        """Ids of the words Yes and No."""
        return self.token_id(VERIFIER_YES.strip(".")), self.token_id(VERIFIER_NO.strip("."))


class Backbone(ABC):
    """One family of models.

    Attributes:
        name: as in `--base_model` and, in a role checkpoint's config.json, `base_model`.
        base_type: `model_type` in the config.json of a base model.
        role_type: `model_type` in the config.json of a role checkpoint.
        conv_type: name of the chat format, as in `--conv_type`.
        units: pixels and frames of one visual token.
        video_text: what a prompt has in the video's place; holds `video_token` once.
        video_token: what repeats once for every visual token; its id is `video_token_id` in the config.
        end_mark: ends the assistant's turn.
        model_class: transformers' model for generation. With the inputs of `model_inputs` its inner model
            gives `last_hidden_state`, and places tokens as the published weights were trained.
        published_names: prefixes of our module names, and what they are called on disk.
        language, vision: our names of the language model and the vision tower.
        merger: our name of the module between them.
        final_norm: our name of the language model's last norm.
        tables: last parts of the names of input and output table.
        attention_layers: endings of the names of the projections of attention, in both towers.
        feed_forward: last part of the names of the feed-forward layers, which see each token by itself.
    """

    name: ClassVar[str]
    base_type: ClassVar[str]
    role_type: ClassVar[str]
    conv_type: ClassVar[str]
    units: ClassVar[VisualUnits]
    video_text: ClassVar[str]
    video_token: ClassVar[str]
    end_mark: ClassVar[str]
    model_class: ClassVar[type[PreTrainedModel]]
    published_names: ClassVar[Mapping[str, str]]
    language: ClassVar[str]
    vision: ClassVar[str]
    merger: ClassVar[str]
    final_norm: ClassVar[str]
    tables: ClassVar[tuple[str, str]]
    attention_layers: ClassVar[tuple[str, ...]]
    feed_forward: ClassVar[str] = "mlp"

    # ---- text and frames ----

    @abstractmethod
    def load_processor(self, folder: Path) -> Processor:
        """Read tokenizer, template and pixel settings.

        Raises:
            ValueError: A file is missing, or says something else than this declaration.
        """

    @abstractmethod
    def save_processor(self, processor: Processor, folder: Path) -> None:
        """Write the files of a processor."""

    @abstractmethod
    def chat(self, turns: Sequence[tuple[str, str | None]]) -> str:
        """Render turns of (speaker, text); a last text of None leaves its turn open."""

    @abstractmethod
    def patches(self, processor: Processor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Cut frames (F, 3, h, w), uint8, into patches (N, V) as they travel, and their grid (3,)."""

    def normalized(self, processor: Processor, patches: Tensor) -> Tensor:
        """Make inputs of the model of patches (N, V), on the device; as they are where `patches` does all."""
        return patches

    # ---- where a video's tokens are ----

    @abstractmethod
    def tokens_per_step(self, grid: Sequence[int]) -> int:
        """Count the visual tokens of one temporal step of a grid (T, H, W)."""

    def step_places(self, is_video: Tensor, grid: Sequence[int]) -> Tensor:
        """Find the tokens of every temporal step of a sequence's first video.

        Args:
            is_video: (L,), whether a token is a visual one.
            grid: (T, H, W).

        Returns:
            Their places in the sequence, (T, tokens of a step).
        """
        per_step = self.tokens_per_step(grid)
        return is_video.nonzero()[: grid[0] * per_step, 0].view(grid[0], per_step)

    # ---- the model ----

    @abstractmethod
    def load_config(self, folder: Path) -> PreTrainedConfig:
        """Read the config of a base model."""

    @abstractmethod
    def disk_config(self, config: PreTrainedConfig, *, is_role: bool) -> dict[str, Any]:
        """Make the config.json of a base model, or what a role checkpoint's has of it."""

    @abstractmethod
    def model_inputs(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixel_values: Tensor,
        grids: Tensor,
        *,
        config: PreTrainedConfig,
    ) -> dict[str, Tensor]:
        """Name the inputs of the model's forward as it wants them.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L); None where padding stands on the right alone, of which a causal model with
                positions of its own sees nothing.
            pixel_values: (N, V), the normalised patches of all videos.
            grids: (B, 3), one video per sequence.
        """
