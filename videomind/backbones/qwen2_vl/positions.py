"""Qwen2-VL with the positions (M-RoPE) that the published weights were trained with.

Shapes: B batch, L tokens, T temporal steps of a video, H x W its patch grid.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2VLConfig, Qwen2VLModel

from videomind.device import uploaded


def rope_index(
    input_ids: Tensor,
    *,
    config: Qwen2VLConfig,
    grids: dict[int, Tensor | None],
    attention_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute M-RoPE positions by the rule of transformers 4.45 to 5.2 (K301).

    Text that follows a vision block starts at 1 + the largest position used so far over all three axes.
    From 5.3 on transformers starts it at max(H, W) of the block instead, which moves all text behind a long
    video: 40 steps of 4 x 5 tokens, and it would start at 9 instead of 44.

    Args:
        input_ids: (B, L).
        config: of the model, for the ids of its vision tokens.
        grids: for the image and the video pad token their grids (N, 3) of (T, H, W) in patches, or None.
        attention_mask: (B, L), 0 on padding at either side.

    Returns:
        Positions (3, B, L) of the axes (t, h, w), 1 on padding, and deltas (B, 1), what to add to a token's
        index to get its position in decoding.
    """
    merge, device, start = (
        config.vision_config.spatial_merge_size,
        input_ids.device,
        config.vision_start_token_id,
    )
    # The rule is sequential: ids and grids are fetched once, and the positions are made here.
    ids = input_ids.cpu()
    known = {token: grid.cpu() for token, grid in grids.items() if grid is not None}
    queues = _row_queues(known, (ids == start).sum(dim=1).tolist())
    mask = torch.ones_like(ids).bool() if attention_mask is None else attention_mask.bool().cpu()
    positions = torch.ones(3, *ids.shape, dtype=torch.long)
    deltas = []
    for row, (row_ids, keep) in enumerate(zip(ids, mask, strict=True)):
        placed = _row_positions(row_ids[keep].tolist(), start, queues[row], merge)
        positions[:, row, keep] = placed
        deltas.append(int(placed.max()) + 1 - placed.size(1))
    return uploaded(positions, device), uploaded(torch.tensor(deltas)[:, None], device)


def _row_queues(grids: dict[int, Tensor], starts: list[int]) -> list[dict[int, Iterator]]:
    """Deal each row its grids: a block that became plain text must not leave its own to the next row.

    This departs from transformers, whose rows draw from one queue: there a batch of candidates shifts from
    the first one that starts with the video. With images and videos together, where the kind of a block is
    not known beforehand, the rows draw from one queue here too.

    Args:
        grids: (N, 3), by pad token.
        starts: vision blocks of each row.
    """
    if len(grids) != 1:
        shared = {token: iter(grid.tolist()) for token, grid in grids.items()}
        return [shared] * len(starts)
    ((token, grid),) = grids.items()
    ends = [sum(starts[: row + 1]) for row in range(len(starts))]
    return [{token: iter(grid[end - n : end].tolist())} for n, end in zip(starts, ends, strict=True)]


def _row_positions(ids: list[int], start_token: int, queues: dict[int, Iterator], merge: int) -> Tensor:
    """Place one sequence without padding.

    Args:
        ids: of L tokens.
        start_token: begins a vision block.
        queues: by pad token, the grids of the blocks that are left.
        merge: patches of a token, per side.

    Returns:
        Positions (3, L).
    """
    # 1. How many blocks there are is decided by the token right behind each start: a segment token there
    #    (a candidate that begins with the excerpt) turns the block into plain text. Weights expect this.
    follows = [ids[i + 1] for i, token in enumerate(ids[:-1]) if token == start_token]
    remaining = {token: follows.count(token) for token in queues}
    pieces: list[Tensor] = []
    cursor = next_position = 0
    for _ in range(sum(remaining.values())):
        # 2. The next block starts at the first pad token of a kind that has blocks left.
        candidates = {t: ids.index(t, cursor) for t, n in remaining.items() if n and t in ids[cursor:]}
        token = min(candidates, key=candidates.__getitem__)
        # 3. The text before it goes on by one on all axes.
        text = candidates[token] - cursor
        pieces.append(torch.arange(text).expand(3, -1) + next_position)
        # 4. The block counts its steps, rows and columns from there. It takes as many *consecutive* tokens
        #    as its grid has: segment tokens within a video shift the grid, and its last tokens become text.
        t, h, w = next(queues[token])
        grid = torch.cartesian_prod(torch.arange(t), torch.arange(h // merge), torch.arange(w // merge))
        pieces.append(grid.T + next_position + text)  # (3, t*h*w)
        # 5. What follows starts behind the largest position of any axis.
        next_position = int(pieces[-1].max()) + 1
        cursor += text + grid.size(0)
        remaining[token] -= 1
    pieces.append(torch.arange(len(ids) - cursor).expand(3, -1) + next_position)
    return torch.cat(pieces, dim=1)


class PublishedPositions(Qwen2VLModel):
    """Qwen2-VL without the language head, with the published positions in forward and generation."""

    def get_rope_index(
        self,
        input_ids: Tensor,
        mm_token_type_ids: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """Give positions and deltas of `rope_index`; the token types of newer transformers are not needed."""
        grids = {self.config.image_token_id: image_grid_thw, self.config.video_token_id: video_grid_thw}
        return rope_index(input_ids, config=self.config, grids=grids, attention_mask=attention_mask)
