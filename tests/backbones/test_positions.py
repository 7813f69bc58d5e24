"""M-RoPE positions by the published rule, also for segment tokens and padding.

Covers `backbones/qwen2_vl/positions.py`.
"""

from types import SimpleNamespace

import pytest
import torch

from videomind.backbones.qwen2_vl.positions import rope_index

TEXT, START, END, VIDEO, IMAGE, SEG = 1, 2, 3, 4, 5, 6
CONFIG = SimpleNamespace(
    vision_config=SimpleNamespace(spatial_merge_size=2), vision_start_token_id=START, video_token_id=VIDEO
)
LONG = torch.tensor([[3, 2, 2]])  # three steps of one token: longer than high


def positions(ids: list[int], grid=LONG, **kwargs) -> tuple[list[list[int]], int]:
    out, delta = rope_index(torch.tensor([ids]), config=CONFIG, grids={VIDEO: grid, IMAGE: None}, **kwargs)
    return out[:, 0].tolist(), delta.item()


def test_text_after_a_long_video_starts_after_its_last_step():
    """The rule of transformers 4.45: newer ones would go on at 3."""
    axes, delta = positions([TEXT, START, VIDEO, VIDEO, VIDEO, END, TEXT])
    assert axes == [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 2, 2, 5, 6], [0, 1, 2, 2, 2, 5, 6]]
    assert delta == 0


def test_a_high_frame_moves_the_text_by_its_height():
    grid = torch.tensor([[1, 8, 4]])  # 4 x 2 tokens
    axes, delta = positions([START, *[VIDEO] * 8, END], grid)
    assert axes[0] == [0, *[1] * 8, 5]
    assert axes[1] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert axes[2] == [0, 1, 2, 1, 2, 1, 2, 1, 2, 5]
    assert delta == 6 - 10


def test_segment_tokens_inside_shift_the_grid():
    """The grid lies over consecutive tokens, so the last one of the video counts as text."""
    axes, _ = positions([START, VIDEO, SEG, VIDEO, VIDEO, END])
    assert axes[0] == [0, 1, 2, 3, 4, 5]
    assert axes[1] == [0, 1, 1, 1, 4, 5]


def test_a_segment_token_right_behind_the_start_makes_the_block_text():
    axes, delta = positions([START, SEG, VIDEO, VIDEO, VIDEO, END])
    assert axes == [list(range(6))] * 3 and delta == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_count(side):
    ids, keep = [START, VIDEO, VIDEO, VIDEO, END], [1] * 5
    pad, mask = ([0, 0, *ids], [0, 0, *keep]) if side == "left" else ([*ids, 0, 0], [*keep, 0, 0])
    padded, delta = positions(pad, attention_mask=torch.tensor([mask]))
    plain, expected = positions(ids)
    kept = slice(2, 7) if side == "left" else slice(0, 5)
    assert [axis[kept] for axis in padded] == plain and delta == expected


def test_every_row_takes_its_own_grid():
    ids = torch.tensor([[START, VIDEO, VIDEO, VIDEO, END], [START, VIDEO, VIDEO, END, TEXT]])
    grids = {VIDEO: torch.tensor([[3, 2, 2], [1, 4, 2]]), IMAGE: None}
    out, _ = rope_index(ids, config=CONFIG, grids=grids)
    assert out[0].tolist() == [[0, 1, 2, 3, 4], [0, 1, 1, 3, 4]]
    assert out[1].tolist() == [[0, 1, 1, 1, 4], [0, 1, 2, 3, 4]]


def test_a_block_that_became_text_leaves_no_grid_to_the_next_row():
    """As in a batch of candidates, the first of which starts with the video."""
    rows = [[START, SEG, VIDEO, VIDEO, VIDEO, END], [START, VIDEO, VIDEO, VIDEO, VIDEO, END]]
    grids = torch.tensor([[3, 2, 2], [1, 4, 4]])
    together, _ = rope_index(torch.tensor(rows), config=CONFIG, grids={VIDEO: grids, IMAGE: None})
    for i, row in enumerate(rows):
        alone, _ = rope_index(
            torch.tensor([row]), config=CONFIG, grids={VIDEO: grids[i : i + 1], IMAGE: None}
        )
        assert together[:, i].tolist() == alone[:, 0].tolist()
