"""Our blocks of the head against nncore's, of which published checkpoints were trained: bit for bit.

nncore cannot be installed for Python 3.13; then the recorded values of test_grounding_head.py remain.

Covers `model/layers.py`.
"""

import random
import sys

import pytest
import torch
from torch import Tensor, nn

from videomind.model import grounding_head, losses
from videomind.model.grounding_head import GroundingHead
from videomind.model.layers import ACTIVATIONS, DROPPATH, FusionLayer, SinePositions
from videomind.model.losses import HeadTargets, LossWeights, focal_loss, grounding_loss

pytestmark = pytest.mark.filterwarnings("ignore:Please install opencv-python")
SEEDS = range(8)
REFERENCE_NAMES = {"gelu": "GELU", "relu": "ReLU", "silu": "SiLU"}


@pytest.fixture(scope="module")
def nncore():
    """nncore's layers, loaded without cv2: they need none, and a server may lack what it links to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cv2", None)
        return pytest.importorskip("nncore.nn")


def reference_layer(nncore, dims: int, activation: str) -> nn.Module:
    return nncore.TransformerEncoderLayer(
        dims, droppath=DROPPATH, act_cfg=dict(type=REFERENCE_NAMES[activation])
    )


def reference_positions(nncore, dims: int) -> nn.Module:
    return nncore.PositionalEncoding(dims, normalize=True, learnable=False)


def seeded(seed: int, make):
    torch.manual_seed(seed)
    return make()


def assert_same_tensors(ours: dict[str, Tensor], theirs: dict[str, Tensor]):
    assert list(ours) == list(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: param.grad for name, param in module.named_parameters()}


def run(module: nn.Module, x: Tensor, upstream: Tensor, seed: int) -> dict[str, Tensor]:
    """Output and all gradients of one pass, the random draws seeded."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    out = seeded(seed, lambda: module(x))
    out.backward(upstream)
    return {"output": out, "input gradient": x.grad, **gradients(module)}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_fusion_layer(nncore, seed, activation, training):
    """Initialisation, output and gradients; in training also which branches are dropped."""
    rng = random.Random(f"{seed} {activation} {training}")
    dims, num_rows, num_clips = 8 * rng.choice((1, 2, 5, 16, 32)), rng.randint(1, 6), rng.randint(1, 160)
    ours = seeded(seed, lambda: FusionLayer(dims, activation)).train(training)
    theirs = seeded(seed, lambda: reference_layer(nncore, dims, activation)).train(training)
    assert_same_tensors(ours.state_dict(), theirs.state_dict())
    x, upstream = torch.randn(2, num_rows, num_clips, dims)
    assert_same_tensors(run(ours, x, upstream, seed), run(theirs, x, upstream, seed))


def test_branches_are_dropped_in_training_alone():
    """The comparison above would not see draws that never drop anything."""
    layer, x = FusionLayer(16, "silu"), torch.randn(200, 1, 16)
    dropped = layer.droppath.train()(x).eq(0).all(dim=2).sum().item()
    assert 0 < dropped < 100
    assert torch.equal(layer.droppath.eval()(x), x)


@pytest.mark.parametrize("dims", [2, 8, 64, 256, 1024])
@pytest.mark.parametrize("num_clips", [1, 2, 7, 75, 150, 1024])
def test_positions(nncore, dims, num_clips):
    x = torch.zeros(3, num_clips, dims)
    theirs = reference_positions(nncore, dims)(x)
    assert torch.equal(SinePositions(dims)(x).expand_as(x), theirs)


@pytest.mark.parametrize("seed", SEEDS)
def test_focal_loss(nncore, seed):
    """Sure and unsure points, right and wrong ones."""
    torch.manual_seed(seed)
    logits = torch.randn(3, 2, 40 + seed) * 10 ** (seed % 3)
    targets = torch.rand(2, 40 + seed).lt(0.3).float().expand_as(logits)
    reference = nncore.FocalLoss(reduction="none")
    found = []
    for loss in (focal_loss, reference):
        leaf = logits.clone().requires_grad_()
        points = loss(leaf, targets)
        points.sum().backward()
        found.append({"points": points, "gradient": leaf.grad})
    assert_same_tensors(*found)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("seed", SEEDS)
def test_head(nncore, monkeypatch, seed, training):
    """The head as it is trained and used: videos shorter and longer than its pyramid, several queries."""
    rng = random.Random(f"{seed} {training}")
    activation, num_queries = rng.choice(ACTIVATIONS), rng.randint(1, 3)
    num_clips, hidden = rng.choice((3, 8, rng.randint(9, 150))), rng.choice((16, 48))
    clip_states, query_states = torch.randn(num_clips, hidden), torch.randn(num_queries, hidden)
    saliency = torch.rand(num_queries, num_clips).gt(0.5).float()
    targets = HeadTargets(
        spans=(torch.tensor([[0.2, 0.7]]),) * num_queries,
        saliency=saliency,
        pos_clip=saliency.argmax(dim=1),
    )

    def results() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        head = seeded(seed, lambda: GroundingHead(hidden, activation, dims=64)).train(training)
        states = [x.clone().requires_grad_() for x in (clip_states, query_states)]
        output = seeded(seed, lambda: head(*([state] for state in states), min_clips=8))
        loss = grounding_loss(output, [targets], weights=LossWeights())
        loss.total.backward()
        leaves = dict(zip(("clip gradient", "query gradient"), (x.grad for x in states), strict=True))
        outputs = {name: value for name, value in vars(output).items() if isinstance(value, Tensor)}
        return head.state_dict(), {**outputs, **vars(loss), **leaves, **gradients(head)}

    ours = results()
    monkeypatch.setattr(grounding_head, "FusionLayer", lambda *args: reference_layer(nncore, *args))
    monkeypatch.setattr(grounding_head, "SinePositions", lambda dims: reference_positions(nncore, dims))
    monkeypatch.setattr(losses, "focal_loss", nncore.FocalLoss(reduction="none"))
    for found, expected in zip(ours, results(), strict=True):
        assert_same_tensors(found, expected)
