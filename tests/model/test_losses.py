"""Targets and losses against the original's numbers, gradients included."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from videomind.model.grounding_head import HeadOutput, make_points
from videomind.model.losses import LossWeights, NoPositiveError, assign, grounding_loss

PARTS = {"loss_cls": "classification", "loss_reg": "regression", "loss_sal": "saliency"}


def loss_of_case(arrays, i):
    """Rebuild a recorded case: leaves that need gradients, and the loss object."""
    get = lambda name: torch.from_numpy(arrays[f"{i}_{name}"])  # noqa: E731
    t = int(arrays[f"{i}_t"])
    leaves = {n: get(n).requires_grad_() for n in ("video_emb", "query_emb", "out_class", "out_coord")}
    padded = max(8, t)
    mask = [F.max_pool1d((torch.arange(padded) < t).float()[None], s, s)[0] for s in (1, 2, 4, 8)]
    output = HeadOutput(
        class_logits=leaves["out_class"].squeeze(-1)[:, None],
        offsets=leaves["out_coord"][:, None],
        points=make_points(padded),
        mask=torch.cat(mask),
        clip_emb=leaves["video_emb"][:, None],
        query_emb=leaves["query_emb"],
    )
    compute = lambda: grounding_loss(  # noqa: E731
        output,
        moments=[get("spans")],
        num_clips=leaves["video_emb"].size(1),
        saliency=get("saliency"),
        pos_clip=get("pos_clip").long().flatten(),
        weights=LossWeights(),
    )
    return leaves, output, get, compute


@pytest.mark.golden
def test_bundle_loss(golden):
    arrays, rows = golden.npz("units/bundle_loss.npz"), golden.json("units/bundle_loss.json")
    assert rows
    for row in rows:
        leaves, output, get, compute = loss_of_case(arrays, row["i"])
        if "error" in row:  # the original crashed the step; here it is an error of its own kind
            with pytest.raises(NoPositiveError):
                compute()
            continue
        classes, offsets = assign(output.points, get("spans") * leaves["video_emb"].size(1))
        torch.testing.assert_close(classes[None], get("cls_tgt").float())
        positive = classes.bool()
        torch.testing.assert_close(offsets[positive], get("reg_tgt")[0][positive], atol=1e-5, rtol=1e-5)
        loss = compute()
        for name, part in PARTS.items():
            assert getattr(loss, part).item() == pytest.approx(row["losses"][name], rel=1e-5, abs=1e-7)
        loss.total.backward()
        for leaf, name in zip(leaves.values(), ("g_video", "g_query", "g_class", "g_coord"), strict=True):
            np.testing.assert_allclose(leaf.grad, arrays[f"{row['i']}_{name}"], atol=1e-5)


def test_shortest_of_overlapping_moments_wins():
    points = make_points(16)
    classes, offsets = assign(points, torch.tensor([[2.0, 12.0], [5.0, 8.0]]))
    assert classes[6] == 1
    assert offsets[6].tolist() == [1.0, 2.0]


def test_weights_scale_their_part_only():
    arrays = {
        "0_t": np.array(8),
        "0_spans": np.array([[0.2, 0.7]], np.float32),
        "0_saliency": np.array([[0, 0, 1, 1, 1, 0, 0, 0]], np.float32),
        "0_pos_clip": np.array([[3]]),
    }
    rng = np.random.default_rng(0)
    shapes = {
        "video_emb": (3, 8, 8),
        "query_emb": (3, 1, 8),
        "out_class": (3, 15, 1),
        "out_coord": (3, 15, 2),
    }
    arrays |= {f"0_{k}": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    _, output, get, compute = loss_of_case(arrays, 0)
    base = compute()
    heavy = grounding_loss(
        output,
        moments=[get("spans")],
        num_clips=8,
        saliency=get("saliency"),
        pos_clip=torch.tensor([3]),
        weights=LossWeights(saliency=1.0),
    )
    torch.testing.assert_close(heavy.saliency, base.saliency * 20)
    torch.testing.assert_close(heavy.regression, base.regression)
