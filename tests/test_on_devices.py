"""Training, the chain and Video-ChatGPT on pretended accelerators: nothing mixes places, and little waits.

Covers `agent/finite.py` and `agent/memory.py`.
"""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.batches import model_batch
from helpers.pretended import (
    FIRST,
    DeviceMismatch,
    PretendedDevices,
    place_of,
)
from helpers.role_rows import ROWS, role_row, videos_of
from helpers.runs import SMALL, arguments
from helpers.videochat import arguments as chat_arguments
from helpers.videochat import write_recorded_features
from helpers.waits import assert_no_more, waits_of
from transformers import TrainerCallback

from videomind import VideoMind
from videomind.agent.infer import main as infer
from videomind.agent.memory import in_pieces
from videomind.agent.samples import ChainSettings
from videomind.backbones.qwen2_vl.declaration import Qwen2VL
from videomind.device import uploaded
from videomind.model.adapters import bare
from videomind.roles import BudgetOverride
from videomind.train.command_line.arguments import parse_arguments
from videomind.train.role_training import build_mixture, build_model
from videomind.train.train import main as train
from videomind.train.trainer import SetEpoch
from videomind.video_chatgpt.train import main as train_chat

ROLES = ("planner", "grounder", "verifier", "answerer", "all_in_one")
TINY = ChainSettings(planning=True, rephrasing=True, budget=BudgetOverride(min_tokens=4, max_tokens=4))
SPLIT = 16_500_000  # bytes of a device, of which the tiny agent needs two


# ---- the pretended devices themselves ----


@pytest.mark.parametrize(
    "mixes",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.cat([x, torch.ones(3)]),
        lambda x: x.to("cuda:1") * x,
        lambda x: x[torch.tensor([0], device="cuda:1")],
        lambda x: torch.ones(3)[x.long() - 1],
        lambda x: x.numpy(),
        lambda x: torch.nn.functional.linear(x, torch.ones(2, 3)),
    ],
)
def test_what_mixes_places_is_refused(mixes):
    with PretendedDevices(2):
        here = torch.ones(3, device="cuda")
        assert place_of(here) == FIRST
        with pytest.raises(DeviceMismatch):
            mixes(here)


@pytest.mark.parametrize(
    ("asks", "waits", "uploads"),
    [
        (lambda x: x.sum() + 1, 0, 0),
        (lambda x: x.sum().item(), 1, 0),
        (lambda x: bool((x > 0).all()), 1, 0),
        (lambda x: x[x > 0], 1, 0),
        (lambda x: x.masked_fill(x > 0, 2.0), 0, 0),
        (lambda x: (x > 0).nonzero(), 1, 0),
        (lambda x: x.tolist(), 1, 0),
        (lambda x: x.cpu(), 1, 0),
        (lambda x: x[torch.tensor([0])], 0, 1),
        (lambda x: torch.tensor([1.0], device=x.device) + x, 0, 1),
        (lambda x: torch.ones(3).to(x.device) + x, 0, 1),
        (lambda x: torch.as_tensor(torch.ones(3), device=x.device) + x, 0, 1),
        (lambda x: torch.as_tensor(x, device=x.device) + x, 0, 0),
        (lambda x: uploaded(torch.ones(3), x.device) + x, 0, 0),
        (lambda x: torch.zeros(3, device=x.device) + x, 0, 0),
    ],
)
def test_what_waits_is_counted(asks, waits, uploads):
    with PretendedDevices() as devices:
        here = torch.ones(3, device="cuda")
        devices.clear()
        asks(here)
        assert waits_of(devices) == (waits, uploads), devices.table()


# ---- roles ----


@pytest.fixture(scope="module")
def rows(workshop) -> dict[str, dict]:
    return {role: role_row(role, videos_of(workshop)[0]) for role in ROWS}


class Steps(TrainerCallback):
    """Counts from the end of one step to that of the next, so that fetching the batch and logging count."""

    def __init__(self, devices: PretendedDevices):
        self.devices, self.counts = devices, []

    def on_step_end(self, args, state, control, **_) -> None:
        self.counts.append(waits_of(self.devices))
        self.devices.clear()


@contextmanager
def counted(monkeypatch, devices: PretendedDevices):
    steps = Steps(devices)
    with monkeypatch.context() as patch:
        patch.setattr(SetEpoch, "on_step_end", steps.on_step_end)
        yield steps.counts


@pytest.fixture(scope="module")
def trained(workshop, rows, tmp_path_factory):
    """Every role's checkpoint, trained on a pretended device, and what its last step waited for."""
    root = tmp_path_factory.mktemp("roles")
    monkeypatch, folders, counts = pytest.MonkeyPatch(), {}, {}
    for role in ROLES:
        datasets = []
        for name in [role] if role in rows else ("grounder", "verifier", "planner"):
            path = root / f"{role}_{name}.jsonl"
            path.write_text((json.dumps(rows[name]) + "\n") * 6)
            datasets.append(str(path))
        argv = arguments(
            workshop, root / role, "--role", role, "--datasets", ",".join(datasets), "--max_steps", "3"
        )
        argv += ["--per_device_train_batch_size", "2", "--bf16", "True", "--gradient_checkpointing", "True"]
        with PretendedDevices() as devices, counted(monkeypatch, devices) as of_steps:
            assert train(argv) == 0
        folders[role], counts[role] = root / role, of_steps[-1]
    return folders, counts


def agent_of(folders: dict[str, Path], *names: str, **how) -> VideoMind:
    roles = {role: folders[role] for role in names or ("planner", "grounder", "verifier", "answerer")}
    return VideoMind.from_pretrained(roles=roles, max_new_tokens=4, dtype="float32", **how)


def asked(agent: VideoMind, rows: dict[str, dict]):
    return agent(rows["answerer"]["video"], "what is it?", options=["red", "blue"], settings=TINY)


def assert_same(ours, theirs) -> None:
    names = ("agents", "plan", "query", "grounder_response", "ranks", "excerpt", "answer")
    assert [getattr(ours, n) for n in names] == [getattr(theirs, n) for n in names]
    for one, other in zip(ours.proposed, theirs.proposed, strict=True):
        assert one.span == other.span and one.score == pytest.approx(other.score, abs=1e-5)


@pytest.fixture(scope="module")
def on_the_host(trained, rows):
    return asked(agent_of(trained[0]), rows)


@pytest.mark.slow
def test_the_chain_on_one_device(trained, rows, on_the_host):
    with PretendedDevices() as devices:
        agent = agent_of(trained[0])
        assert {place_of(param) for param in agent.pipeline.model.parameters()} == {FIRST}
        assert_same(asked(agent, rows), on_the_host)
        devices.clear()
        asked(agent, rows)
        assert_no_more("a question, four roles", *waits_of(devices))


@pytest.mark.slow
@pytest.mark.parametrize("memory", [15_300_000, 16_000_000, SPLIT])
def test_the_chain_on_two_devices_is_that_on_one(trained, rows, on_the_host, memory, caplog):
    """Where the layers are cut differs, and with the least memory the head lies on the host."""
    with PretendedDevices(2, memory=memory):
        agent = agent_of(trained[0], device="all")
        assert len({place_of(param) for param in agent.pipeline.model.parameters()}) > 1
        assert_same(asked(agent, rows), on_the_host)
    assert ("too small: these parts lie elsewhere" in caplog.text) == (memory < 16_000_000)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["auto", "cuda:1", "all"])
def test_the_command_on_devices(trained, rows, tmp_path, device):
    (tmp_path / "qa.jsonl").write_text(json.dumps(rows["answerer"]) + "\n")
    argv = [
        "--dataset",
        str(tmp_path / "qa.jsonl"),
        *SMALL[:4],
        "--max_new_tokens",
        "4",
        "--dtype",
        "float32",
    ]
    for role, short in (("grounder", "gnd"), ("verifier", "ver"), ("planner", "pla"), ("answerer", "ans")):
        argv += [f"--model_{short}_path", str(trained[0][role])]
    assert infer([*argv, "--pred_path", str(tmp_path / "host")]) == 0
    with PretendedDevices(2, **({"memory": SPLIT} if device == "all" else {})):
        assert infer([*argv, "--device", device, "--pred_path", str(tmp_path / "out")]) == 0
    host, ours = (json.loads((tmp_path / folder / "output.jsonl").read_text()) for folder in ("host", "out"))
    assert "error" not in ours and ours["pred"] == host["pred"] and ours["response"] == host["response"]


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_a_training_step_waits_no_more_than_recorded(trained, role):
    assert_no_more(f"a training step, {role}", *trained[1][role])


# ---- too little memory ----


@pytest.mark.slow
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("role", ["planner", "grounder", "verifier", "answerer"])
def test_a_role_whose_step_is_too_large_takes_smaller_ones_once(trained, rows, on_the_host, role, error):
    """As a device does: what a feed-forward layer is given at once is bounded."""
    agent = agent_of(trained[0])
    model, limit = agent.pipeline.model, 64  # tokens
    for name, module in bare(model).named_modules():
        if name.endswith("language_model.layers.0.mlp.gate_proj"):
            module.register_forward_pre_hook(
                lambda _, args: refuse(
                    model.active_adapter == role and args[0][..., 0].numel() > limit, error
                )
            )
    result = asked(agent, rows)
    assert_same(result, on_the_host)
    lines = result.memory_fallbacks
    assert lines and {line.partition(":")[0] for line in lines} == {role} and len(lines) == len(set(lines))
    limit = 0
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        asked(agent, rows)
    limit = 1 << 20  # what failed is booked on no other question
    assert not any("in smaller pieces" in line for line in asked(agent, rows).memory_fallbacks)


def refuse(is_too_large: bool, error: type[Exception]) -> None:
    if is_too_large:
        raise error("NPU out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.slow
@pytest.mark.parametrize("role", ["grounder", "verifier"])
def test_pieces_of_the_tokens_give_the_same_numbers(trained, role):
    model = agent_of(trained[0], role).pipeline.model
    ids = torch.arange(2 * 37).reshape(2, 37) % 50 + 5
    with torch.inference_mode():
        whole = model(input_ids=ids).logits
        with in_pieces(model):
            torch.testing.assert_close(model(input_ids=ids).logits, whole, rtol=1e-5, atol=1e-5)
        assert torch.equal(model(input_ids=ids).logits, whole)


# ---- no mask where none is needed ----


@pytest.mark.parametrize("role", ["grounder", "verifier"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_padding_mask_changes_no_loss_and_no_gradient(workshop, rows, role, attention, monkeypatch):
    """A batch of samples of different lengths, with the mask and without."""
    path = workshop / f"of_lengths_{role}.jsonl"
    lines = [rows[role] | {"query": "a red square " * count} for count in (1, 4, 2)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    argv = arguments(workshop, workshop / "never", "--role", role, "--datasets", str(path))
    argv += ["--head_droppath", "0"] if role == "grounder" else []
    args = parse_arguments([*argv, "--lora_dropout", "0", "--attn_implementation", attention])
    loaded = build_model(args)
    mixture = build_mixture(args, loaded.processor)
    batch = model_batch(loaded.processor, [mixture[i] for i in range(3)])
    assert not batch["attention_mask"].all()
    inputs, found = Qwen2VL.model_inputs, []
    for mask in (None, batch["attention_mask"]):

        def with_mask(self, ids, _, pixels, grids, *, config, mask=mask):
            return inputs(self, ids, mask, pixels, grids, config=config)

        monkeypatch.setattr(Qwen2VL, "model_inputs", with_mask)
        loaded.model.zero_grad()
        loss = loaded.model(**batch).loss
        loss.backward()
        found.append(
            {"loss": loss}
            | {n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None}
        )
    assert len(found[0]) > 10
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_nothing_but_generation_gets_a_mask(trained, rows):
    agent, seen = agent_of(trained[0]), []
    tower = bare(agent.pipeline.model).get_submodule("model.language_model")
    tower.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((kwargs["use_cache"], kwargs["attention_mask"] is None)),
        with_kwargs=True,
    )
    asked(agent, rows)
    assert {is_without for uses_cache, is_without in seen if uses_cache is False} == {True}


# ---- Video-ChatGPT ----


@pytest.mark.golden
@pytest.mark.parametrize(
    "extra", [("--tune_mm_mlp_adapter", "True"), ("--bf16", "True")], ids=["adapter", "all"]
)
def test_video_chatgpt_trains_on_a_device(tmp_path, monkeypatch, extra):
    features = write_recorded_features(tmp_path / "features")
    with PretendedDevices() as devices, counted(monkeypatch, devices) as counts:
        assert train_chat(chat_arguments(tmp_path / "out", features, *extra)) == 0
    assert_no_more("a training step, Video-ChatGPT", *counts[-1])
