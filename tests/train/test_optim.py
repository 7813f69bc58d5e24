"""Optimizer groups and LoRA targets against the original's."""

import pytest
from helpers.goldens import golden_bases, golden_manifest, read_golden
from torch import nn

from videomind.backbones.registry import get_backbone, load_processor
from videomind.model.adapters import LORA_TYPES, bare, lora_targets
from videomind.model.checkpoint import LoadSettings, load_base
from videomind.model.disk_format import HEAD_MODULES, ours_to_published
from videomind.train.command_line.arguments import parse_arguments
from videomind.train.optim import decayed_names, parameter_groups, trainable_table
from videomind.train.role_training import build_model

RUNS = read_golden("optim/param_groups.json")


def published(name: str) -> str:
    return ours_to_published(name, get_backbone("qwen2_vl"))


def base_of(kind: str) -> str:
    """The folder of the tied or untied base."""
    tied = {case["id"]: case["tie_word_embeddings"] for case in golden_manifest("base")["cases"]}
    return next(f for f in golden_bases() if tied[f.removeprefix("base/")] == (kind == "tied"))


def built(golden, run: dict, tmp_path):
    argv = ["--model_name_or_path", base_of(run["base"]), "--datasets", "qvhighlights"]
    argv += ["--role", run["role"], "--output_dir", str(tmp_path), "--learning_rate", "1e-4", *run["args"]]
    args = parse_arguments(argv)
    return args, build_model(args).model


@pytest.mark.golden
@pytest.mark.parametrize("name", RUNS)
def test_groups(golden, tmp_path, name):
    run = RUNS[name] | {"role": RUNS[name].get("role", name)}
    args, model = built(golden, run, tmp_path)
    groups = parameter_groups(
        model,
        lr=args.training.learning_rate,
        weight_decay=args.training.weight_decay,
        lora_lr=args.custom.lora_lr,
        head_lr=args.custom.head_lr,
    )
    grouped = [name for group in groups for name in group["names"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {n for n, p in model.named_parameters() if p.requires_grad}
    if "error" in run:  # D307: LoRA reached into the head, and the original stopped
        assert not any("lora_" in n and published(n).split(".")[2] in HEAD_MODULES for n in grouped)
        return
    assert len(groups) == len(run["groups"])
    for ours, theirs in zip(groups, run["groups"], strict=True):
        assert sorted(published(n) for n in ours["names"]) == sorted(theirs["names"])
        assert ours["weight_decay"] == theirs["weight_decay"]
        assert ours["lr"] == theirs["lr"]


@pytest.mark.golden
def test_lora_targets(golden):
    processor = load_processor(base_of("tied"))
    model = load_base(golden.root / base_of("tied"), LoadSettings(), processor)
    model.add_head()
    for lora_type, expected in golden.json("optim/target_modules.json").items():
        if lora_type not in LORA_TYPES:
            with pytest.raises(ValueError, match="Unknown LoRA type.*Allowed: all, linear"):
                lora_targets(model, lora_type)
            continue
        # D307: LoRA never touches the head or lm_head.
        fixed = {n for n in expected if n.split(".")[0] not in (*HEAD_MODULES, "lm_head")}
        assert {published(n) for n in lora_targets(model, lora_type)} == fixed


@pytest.mark.golden
def test_the_table_counts_every_parameter(golden, tmp_path):
    _, model = built(golden, {"base": "tied", "role": "grounder", "args": []}, tmp_path)
    backbone = bare(model).backbone
    table = trainable_table(model, {backbone.vision: "vision", backbone.language: "language"})
    total = sum(p.numel() for p in model.parameters())
    trains = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f"{total:,}" in table and f"{trains:,}" in table
    assert "lm_head (trained copy)" in table and "LoRA (language)" in table


@pytest.mark.golden
def test_norms_and_biases_do_not_decay(golden):
    processor = load_processor(base_of("tied"))
    model = load_base(golden.root / base_of("tied"), LoadSettings(), processor)
    decayed = decayed_names(model)
    assert not any("norm" in name or name.endswith("bias") for name in decayed)
    assert "lm_head.weight" in decayed or model.config.tie_word_embeddings


@pytest.mark.parametrize("lora_lr", [None, 0.0, 0.5])
@pytest.mark.parametrize("head_lr", [None, 0.0, 0.5])
@pytest.mark.parametrize("lr", [0.0, 0.1])
def test_a_rate_of_zero_is_a_rate(lr, lora_lr, head_lr):
    model = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in ("head", "lora_A", "table")})
    groups = parameter_groups(model, lr=lr, weight_decay=0, lora_lr=lora_lr, head_lr=head_lr)
    rates = {name.split(".")[0]: group["lr"] for group in groups for name in group["names"]}
    default = {"table": lr, "lora_A": lr, "head": lr}
    given = {"lora_A": lora_lr, "head": head_lr}
    assert rates == default | {name: rate for name, rate in given.items() if rate is not None}
