"""What a training step and a question cost at full size: computed of shapes alone, nothing of it is measured.

    python benchmarks/cost.py [--size 2b|7b]

Every part of the model runs on tensors without memory (`meta`): torch's counter counts its operations, and
a second one operators and the bytes that they read and write, each by itself as without fusion. A layer runs
once and counts as often as there are layers; attention is one operator, as flash kernels are. Memory is added
up of what lies there. Times are estimates: those of a device that does nothing else, at the share of its
figures that `UTILISATION` says. How often the host waits is counted by tests (docs/BENCHMARKS.md, Waits).
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from real_shape import SIZES
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2VLConfig

from videomind.backbones.backbone import DEFAULT_BACKBONE
from videomind.backbones.registry import get_backbone
from videomind.dataset.views import NUM_CANDIDATES
from videomind.model.adapters import add_adapter
from videomind.model.role_model import RoleModel, role_class
from videomind.model.settings import LoraSettings
from videomind.roles import get_role
from videomind.synthetic.tiny_model import make_tiny_base

VIDEO_S = 150.0
TEXT = {"planner": 350, "grounder": 60, "verifier": 60, "answerer": 100}  # tokens beside the video's, about
# Tokens that are decoded; the grounder's draft is checked.
SAID = {"planner": 40, "grounder": 0, "verifier": 0, "answerer": 4}
HALF, FULL = 2, 4  # bytes of bfloat16 and of float32
GB, TERA = 1e9, 1e12
CARDS = (24, 48, 80)  # GB
CHAIN_DEVICES = {"one device": 1, "two": 2, "four": 4}
RESERVED = 1.0  # GB of a device that its context and libraries take, about
BUCKETS = 2 * 5e8 * HALF  # DeepSpeed's: gradients that are reduced, and those that are next
LIVE = 1e9  # parameters that ZeRO-3 keeps whole for the layers at work (stage3_max_live_parameters)
UTILISATION = 0.4
# Operations (half precision, dense) and bytes per second. H100 SXM: NVIDIA's data sheet. 910B: there is no
# public one, and reports differ (256 to 400 TFLOP/s, 0.4 to 1.6 TB/s).
DEVICES = {"H100": (989e12, 3.35e12), "910B": (320e12, 1.6e12)}


@dataclass(frozen=True)
class Cost:
    """What a part costs: floating-point operations, operators, and the bytes that these read and write."""

    flops: float = 0.0
    operators: float = 0.0
    moved: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.operators + other.operators, self.moved + other.moved)

    def __mul__(self, times: float) -> "Cost":
        return Cost(self.flops * times, self.operators * times, self.moved * times)

    def seconds(self, device: str) -> float:
        """Estimate the time on a device: that of its operations or of its memory, whichever is longer."""
        operations, bandwidth = DEVICES[device]
        return max(self.flops / operations, self.moved / bandwidth) / UTILISATION


class _Operators(TorchDispatchMode):
    """Counts operators, and the bytes of their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operators, self.moved = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operators += 1
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            self.moved += sum(tensor.nbytes for tensor in tensors)
        return result


def flash(query: Tensor, key: Tensor, value: Tensor, *_: Any, is_causal: bool = False, **__: Any) -> Tensor:
    """Stand in for attention as its flash kernel, (B, heads, L, width); keys may have fewer heads."""
    repeats = query.size(1) // key.size(1)
    key, value = (x.repeat_interleave(repeats, dim=1) if repeats > 1 else x for x in (key, value))
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, is_causal=is_causal)[0]


def cost_of(step: Callable[[], Any]) -> Cost:
    """Count what a step does."""
    operators = _Operators()
    counter = FlopCounterMode(display=False)
    with mock.patch.object(F, "scaled_dot_product_attention", flash), operators, counter:
        step()
    return Cost(counter.get_total_flops(), operators.operators, operators.moved)


@cache
def make_model(size: str, role: str) -> RoleModel:
    """Make a role's model of a size, with its adapter, of tensors without memory."""
    backbone = get_backbone(DEFAULT_BACKBONE)
    shape = dict(SIZES[size])
    vision, section = shape.pop("vision"), shape.pop("mrope_section")
    with TemporaryDirectory() as folder:
        make_tiny_base(Path(folder) / "base")
        config: Qwen2VLConfig = backbone.load_config(Path(folder) / "base")
    is_tied = shape.pop("tie_word_embeddings")
    config.text_config.update(shape)
    config.text_config.layer_types = ["full_attention"] * shape["num_hidden_layers"]
    config.text_config.rope_parameters = {**config.text_config.rope_parameters, "mrope_section": section}
    config.vision_config.update(vision | {"hidden_size": shape["hidden_size"]})
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = is_tied
    config.reg_token_id, config.seg_s_token_id, config.seg_e_token_id = 1, 2, 3
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = role_class(backbone)(config).to(torch.bfloat16)
        model.requires_grad_(False)
        if get_role(role).has_head:
            model.add_head()
        add_adapter(model, get_role(role), LoraSettings())
    return model.train(False)


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a role sees at its largest budget.

    Attributes:
        steps: temporal ones of the video.
        tokens: of a step.
        text: tokens beside the video's.
        batch: prompts at once.
    """

    steps: int
    tokens: int
    text: int
    batch: int = 1

    @property
    def length(self) -> int:
        """Tokens of a prompt."""
        return self.steps * self.tokens + self.text

    @classmethod
    def of(cls, role: str) -> "Input":
        """Take a role's largest input of a video of VIDEO_S."""
        budget = get_role(role).budget
        frames = min(budget.max_frames, int(VIDEO_S * budget.fps))
        step = get_backbone(DEFAULT_BACKBONE).units.frames_per_step
        batch = NUM_CANDIDATES if role == "verifier" else 1
        return cls(steps=frames // step, tokens=budget.max_tokens, text=TEXT[role], batch=batch)


def _empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def head_width(model: RoleModel) -> int:
    """Tell the width of a head of attention in the language model."""
    text = model.config.get_text_config()
    return text.hidden_size // text.num_attention_heads


def _run(step: Callable[[], Tensor], *, backward: bool) -> Callable[[], None]:
    def run() -> None:
        with torch.set_grad_enabled(backward):
            out = step()
        if backward:
            out.float().sum().backward()

    return run


def vision_cost(model: RoleModel, seen: Input) -> Cost:
    """Count the frozen vision tower; a temporal step's patches see each other alone."""
    tower, vision = model.get_submodule(model.backbone.vision), model.config.vision_config
    patches = seen.tokens * vision.spatial_merge_size**2
    ends = torch.arange(seen.steps * seen.batch + 1) * patches
    runs = [(patches, len(ends) - 1)]
    count = int(ends[-1])
    places = tuple(_empty(count, vision.embed_dim // vision.num_heads) for _ in range(2))
    states = _empty(count, vision.embed_dim)
    pixels = _empty(count, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)

    def run_block() -> Tensor:
        return tower.blocks[0](states, cu_seqlens=ends, position_embeddings=places, runs=runs)

    block = cost_of(_run(run_block, backward=False))
    rest = cost_of(_run(lambda: tower.merger(tower.patch_embed(pixels)), backward=False))
    return block * len(tower.blocks) + rest


def layer_step(model: RoleModel, length: int, batch: int, *, context: int = 0) -> Callable[[], Tensor]:
    """Make a step of one language layer; with `context` of one token behind so many.

    The projections of attention are those of the layer, with its adapter.
    """
    text = model.config.get_text_config()
    layer = model.get_submodule(model.backbone.language).layers[0]
    width = head_width(model)
    places = tuple(_empty(batch, length, width) for _ in range(2))
    states = _empty(batch, length, text.hidden_size).requires_grad_(torch.is_grad_enabled())
    if not context:
        return lambda: layer(states, position_embeddings=places)
    keys = [_empty(batch, text.num_key_value_heads, context, width) for _ in range(2)]

    class Past:
        """Holds what was said before."""

        def update(self, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            return torch.cat((keys[0], key), dim=2), torch.cat((keys[1], value), dim=2)

    return lambda: layer(states, position_embeddings=places, past_key_values=Past())


def question_cost(size: str) -> dict[str, Cost]:
    """Count a question by part: vision, prompts, decoding."""
    parts = {"vision": Cost(), "prompts": Cost(), "decoding": Cost()}
    for role in TEXT:
        model, seen = make_model(size, role), Input.of(role)
        layers = model.config.get_text_config().num_hidden_layers
        words = model.get_output_embeddings()
        state = _empty(1, model.config.get_text_config().hidden_size)
        word = cost_of(_run(lambda words=words, state=state: words(state), backward=False))
        parts["vision"] += vision_cost(model, seen)
        with torch.no_grad():
            prompt = layer_step(model, seen.length, seen.batch)
            token = layer_step(model, 1, 1, context=seen.length)
        parts["prompts"] += cost_of(_run(prompt, backward=False)) * layers + word * seen.batch
        one = cost_of(_run(token, backward=False)) * layers + word
        parts["decoding"] += one * SAID[role]
    return parts


def training_cost(size: str, role: str) -> dict[str, Cost]:
    """Count a training step of one sample with checkpointing: forward, forward again, backward."""
    model, seen = make_model(size, role), replace(Input.of(role), batch=1)
    layers = model.config.get_text_config().num_hidden_layers
    with torch.no_grad():
        forward = cost_of(_run(layer_step(model, seen.length, 1), backward=False))
    again = cost_of(_run(layer_step(model, seen.length, 1), backward=True))
    return {
        "vision": vision_cost(model, seen),
        "layers, forward": forward * layers,
        "layers, again and backward": again * layers,
    }


# ---- memory ----


def _count(params: Iterable[nn.Parameter], *, trains: bool) -> int:
    return sum(p.numel() for p in params if p.requires_grad == trains)


def activations(model: RoleModel, seen: Input) -> tuple[float, float]:
    """Add up bytes of training: inputs of the checkpointed layers, and what one layer keeps."""
    text, kept = model.config.get_text_config(), {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    step = layer_step(model, seen.length, 1)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with mock.patch.object(F, "scaled_dot_product_attention", flash), hooks:
        alive = step()  # else memory that is given back would be counted under one number
    inputs = seen.length * text.hidden_size * HALF * text.num_hidden_layers
    del alive
    return inputs, sum(kept.values())


def training_memory(size: str, role: str, devices: int, stage: int) -> float:
    """Add up GB of a device in training: weights, gradients, optimizer, activations, buckets.

    Stage 0 is plain DDP: what trains is float32 then. Stage 1 shares the optimizer's numbers among devices,
    2 the gradients too, 3 the weights too.
    """
    model = make_model(size, role)
    params = list(model.parameters())
    frozen, trained = _count(params, trains=False), _count(params, trains=True)
    inputs, layer = activations(model, replace(Input.of(role), batch=1))
    share = [devices if stage >= least else 1 for least in (1, 2, 3)]
    if stage == 0:
        states = trained * FULL * 4 + frozen * HALF  # weights, gradients, two moments
        states += trained * FULL * (devices > 1)  # DDP's buckets
    else:
        states = (frozen + trained) * HALF / share[2] + trained * (HALF / share[1] + 3 * FULL / share[0])
        states += min(BUCKETS, 2 * trained * HALF)
        states += min(LIVE, (frozen + trained) * (1 - 1 / share[2])) * HALF
    return (states + inputs + layer) / GB + RESERVED


def chain_memory(size: str, *, candidates: int = NUM_CANDIDATES, devices: int = 1) -> float:
    """Add up GB of a device for the chain: weights, adapters of three roles, tables of two, activations."""
    models = {role: make_model(size, role) for role in ("planner", "grounder", "verifier")}
    base = _count(models["planner"].parameters(), trains=False)
    tables, rest = 0, 0
    for model in models.values():
        for name, param in model.named_parameters():
            if param.requires_grad:
                tables += param.numel() * ("modules_to_save" in name)
                rest += param.numel() * ("modules_to_save" not in name)
    text, width = models["planner"].config.get_text_config(), head_width(models["planner"])
    seen = [replace(Input.of(role), batch=1) for role in TEXT]
    tokens = max(*(s.length for s in seen), candidates * Input.of("verifier").length)
    # What a feed-forward layer holds: its input, gate, other half and product; beside them the residual.
    active = tokens * (3 * text.intermediate_size + 3 * text.hidden_size) * HALF
    cache = max(s.length for s in seen) * 2 * text.num_key_value_heads * width * text.num_hidden_layers * HALF
    weights = (base + tables) * HALF + rest * FULL
    return (weights / devices + active + cache) / GB + RESERVED


def fits(gigabytes: float) -> str:
    """Name the smallest card that this fits."""
    return next((f"{card} GB" for card in CARDS if gigabytes <= card), "none")


# ---- tables ----


def cost_rows(parts: Mapping[str, Cost]) -> list[list]:
    """Make a table's rows of parts, and their sum."""
    total = sum(parts.values(), Cost())
    return [
        [name, cost.flops / TERA, f"{cost.flops / total.flops:.0%}", cost.operators, cost.moved / GB]
        + [cost.seconds(device) for device in DEVICES]
        for name, cost in {**parts, "all": total}.items()
    ]


def memory_rows(size: str) -> list[list]:
    """Make a table's rows: a device's memory by role, stage and number of devices."""
    cases = [(1, 0), *((devices, stage) for stage in (2, 3) for devices in (1, 2, 4, 8))]
    rows = []
    for devices, stage in cases:
        needs = [training_memory(size, role, devices, stage) for role in TEXT]
        rows.append(["none" if stage == 0 else f"ZeRO-{stage}", devices, *needs, fits(max(needs))])
    return rows


def chain_rows(size: str) -> list[list]:
    """Make a table's rows: a device's memory for the chain, spread over one device and more."""
    rows = []
    for candidates in (NUM_CANDIDATES, 2):
        needs = [chain_memory(size, candidates=candidates, devices=n) for n in CHAIN_DEVICES.values()]
        rows.append([candidates, *needs, fits(needs[0])])
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Print all tables of a size. Returns: the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="2b", choices=sorted(SIZES))
    args = parser.parse_args(argv)
    heads = ["part", "TFLOP", "share", "operators", "GB moved", *(f"s, {name}" for name in DEVICES)]

    def show(title: str, rows: list[list], headers: list[str], floats: str = ".1f") -> None:
        table = tabulate(rows, headers=headers, floatfmt=floats, tablefmt="github")
        sys.stdout.write(f"{title}\n\n{table}\n\n")

    show(f"A question, four roles, {args.size}", cost_rows(question_cost(args.size)), heads, ".2f")
    show(
        f"A grounder's step of one sample, {args.size}",
        cost_rows(training_cost(args.size, "grounder")),
        heads,
        ".2f",
    )
    show("GB of a device in training", memory_rows(args.size), ["DeepSpeed", "devices", *TEXT, "fits"])
    show(
        "GB of a device for the chain", chain_rows(args.size), ["candidates at once", *CHAIN_DEVICES, "fits"]
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
