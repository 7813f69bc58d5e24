"""Whole trainings of Video-ChatGPT on recorded features: losses, what is saved, kills and reruns.

Covers `video_chatgpt/arguments.py`, `video_chatgpt/options.py` and `video_chatgpt/training.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.kills import run_killed
from helpers.ranks import free_port, run_ranks
from helpers.runs import REPO, environment, losses, needs_deepspeed
from helpers.videochat import (
    BASE,
    GOLDEN,
    VIDEOS,
    arguments,
    mlp_base,
    recorded_features,
    use_rows,
    write_recorded_features,
)
from safetensors.torch import load_file

from videomind.model.checkpoint import LoadSettings
from videomind.train.checkpoints import complete_checkpoints
from videomind.video_chatgpt.adapter import load_chat
from videomind.video_chatgpt.arguments import parse_arguments
from videomind.video_chatgpt.infer import main as chat
from videomind.video_chatgpt.train import main

pytestmark = pytest.mark.golden
ADAPTER = ("--tune_mm_mlp_adapter", "True")


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    return write_recorded_features(tmp_path_factory.mktemp("features"))


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def equal(a: Path, b: Path) -> bool:
    one, two = tensors(a), tensors(b)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def gradient_sizes(checkpoint: Path) -> dict[tuple[int, ...], torch.Tensor]:
    """How large the gradients of each value were so far, up to a factor, by the shape of the tensor."""
    state = tensors(checkpoint / "optimizer.pt")["state"].values()
    return {tuple(moments["exp_avg_sq"].shape): moments["exp_avg_sq"].sqrt() for moments in state}


def assert_moved_alike(
    found: torch.Tensor, recorded: torch.Tensor, start: torch.Tensor, gradient: torch.Tensor
):
    """Compare where training moved values, each weighed by the size of its gradient.

    Adam divides a gradient by its size. One that is nearly zero consists of rounding errors, which differ
    from processor to processor, and so does where its value goes: of the 49,152 weights of the projector
    one has a gradient of 2e-8, of which 1e-8 is rounding. Weighed by it, differences are as small as
    gradients are exact. Measured with ATEN_CPU_CAPABILITY=default and avx2, one thread and two, and in
    float64, against each other and against the record: at most 2.1e-5 of the largest move.
    """
    moved = (recorded - start) * gradient
    error = (found - recorded) * gradient
    assert moved.any()
    assert error.abs().max() <= 1e-4 * moved.abs().max()


def test_the_recorded_training(features, tmp_path, monkeypatch):
    """Losses, rates, what trains and what is saved; D603: one process alone can write a checkpoint."""
    rows = GOLDEN.npz("e_model/train/init_rows.npz")
    use_rows(monkeypatch, rows, lm_head="lm_head_new", embed="embed_new")
    assert main(arguments(tmp_path, features, *ADAPTER)) == 0
    expected = GOLDEN.json("e_model/train/expected_train.json")
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    assert [e["loss"] for e in history if "loss" in e] == pytest.approx(expected["loss_per_step"], abs=1e-3)
    assert [e["learning_rate"] for e in history if "loss" in e] == pytest.approx([0, 2e-3, 1e-3])
    table, projector = "model.embed_tokens.weight", "model.mm_projector"
    start = load_file(BASE / "model.safetensors")
    start[table] = torch.cat([start[table], torch.from_numpy(rows["embed_new"])])
    gradients = gradient_sizes(tmp_path / "checkpoint-2")
    saved, recorded = (
        tensors(tmp_path / "mm_projector.bin"),
        tensors(GOLDEN.root / "e_model/train/out/mm_projector.bin"),
    )
    for name, (shape, dtype) in expected["adapter_keys"].items():
        assert [list(saved[name].shape), str(saved[name].dtype)] == [shape, dtype]
        assert_moved_alike(saved[name], recorded[name], start[name], gradients[tuple(shape)])
    assert (saved[table] != start[table]).any(dim=1).nonzero()[:, 0].tolist() == expected[
        "embed_rows_changed"
    ]
    assert torch.equal(saved["lm_head.weight"][-3:], torch.from_numpy(rows["lm_head_new"]))
    step = tensors(tmp_path / "mm_projector/checkpoint-2.bin")
    values = GOLDEN.npz("e_model/train/checkpoint-2_values.npz")
    for name, part, key in (
        (f"{projector}.weight", slice(4), "projector_weight_rows0_4"),
        (f"{projector}.bias", slice(None), "projector_bias"),
        (table, slice(-3, None), "embed_new"),
    ):
        gradient = gradients[tuple(start[name].shape)][part]
        assert_moved_alike(step[name][part], torch.from_numpy(values[key]), start[name][part], gradient)


def first_gradients(out: Path) -> dict[tuple[int, ...], torch.Tensor]:
    """The gradients of the first step, up to a factor, by the shape of the tensor."""
    state = tensors(out / "checkpoint-1/optimizer.pt")["state"].values()
    return {tuple(moments["exp_avg"].shape): moments["exp_avg"] for moments in state}


ONE_STEP = (*ADAPTER, "--max_steps", "1", "--save_steps", "1", "--warmup_steps", "0", "--max_grad_norm", "0")
ONE_BY_ONE = ("--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "3")


def test_a_step_is_the_same_however_it_is_cut(features, tmp_path):
    """D627: the mean over a step's tokens; the mean of each forward pass weighs short answers more."""
    for name, extra in (
        ("whole", ()),
        ("cut", ONE_BY_ONE),
        ("published", (*ONE_BY_ONE, "--loss_norm", "micro_batch")),
    ):
        assert main(arguments(tmp_path / name, features, *ONE_STEP, *extra)) == 0
    whole, cut, published = (first_gradients(tmp_path / name) for name in ("whole", "cut", "published"))
    for shape, gradient in whole.items():
        scale = gradient.abs().max()
        assert (cut[shape] - gradient).abs().max() <= 1e-5 * scale
        assert (published[shape] - gradient).abs().max() >= 1e-2 * scale


@pytest.mark.slow
def test_a_step_is_the_same_on_three_processes(features, tmp_path):
    assert main(arguments(tmp_path / "whole", features, *ONE_STEP)) == 0
    apart = arguments(tmp_path / "apart", features, *ONE_STEP, "--per_device_train_batch_size", "1")
    command = ["-m", "videomind.runs.torchrun", "--nproc_per_node", "3", "--master_port", str(free_port())]
    command += ["-m", "videomind.runs.processes", "videomind.video_chatgpt.train", *apart]
    run = subprocess.run([sys.executable, *command], env=environment(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    whole, spread = (first_gradients(tmp_path / name) for name in ("whole", "apart"))
    for shape, gradient in whole.items():
        assert (spread[shape] - gradient).abs().max() <= 1e-5 * gradient.abs().max()


def test_weight_decay_moves_only_what_learns(features, tmp_path):
    assert main(arguments(tmp_path, features, *ADAPTER, "--weight_decay", "0.5")) == 0
    saved, start = tensors(tmp_path / "mm_projector.bin"), load_file(BASE / "model.safetensors")
    table = "model.embed_tokens.weight"
    rows = len(start[table])
    moved = (saved[table][:rows] != start[table]).any(dim=1).nonzero()[:, 0].tolist()
    learned = GOLDEN.json("e_model/train/expected_train.json")["embed_rows_changed"]
    assert moved == [row for row in learned if row < rows]
    assert not torch.equal(saved["model.mm_projector.weight"], start["model.mm_projector.weight"])


@pytest.mark.parametrize("mode", ["adapter", "full", "no start and end"])
def test_a_rerun_goes_on_bit_for_bit(features, tmp_path, mode):
    """D603 to D605: no folder for the checkpoint, no weights in it, no way back to it."""
    extra = {"full": (), "adapter": ADAPTER}.get(mode, (*ADAPTER, "--mm_use_vid_start_end", "False"))
    extra = (*extra, "--per_device_train_batch_size", "1", "--save_steps", "2")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(arguments(whole, features, *extra)) == 0
    assert main(arguments(parts, features, *extra)) == 0
    for path in (parts / "finished", *parts.glob("checkpoint-[89]/complete"), *parts.glob("*.bin")):
        path.unlink()
    assert [folder.name for folder in complete_checkpoints(parts)] == ["checkpoint-6"]
    assert main(arguments(parts, features, *extra)) == 0
    assert losses(parts) == losses(whole) and len(losses(whole)) == 9
    name = "pytorch_model.bin" if mode == "full" else "mm_projector.bin"
    assert equal(whole / name, parts / name)


def test_old_checkpoints_go_with_their_adapters(features, tmp_path):
    """D616: mm_projector/ grew without end."""
    extra = (*ADAPTER, "--per_device_train_batch_size", "1", "--save_steps", "1", "--save_total_limit", "2")
    assert main(arguments(tmp_path, features, *extra)) == 0
    assert {p.name for p in tmp_path.glob("checkpoint-*")} == {"checkpoint-8", "checkpoint-9"}
    assert {p.name for p in (tmp_path / "mm_projector").iterdir()} == {
        f"checkpoint-{step}.{suffix}" for step in (8, 9) for suffix in ("bin", "json")
    }


def test_full_training_is_saved_whole(features, tmp_path):
    """D604, in half precision as the recipe has it."""
    assert main(arguments(tmp_path, features, "--bf16", "True", "--tf32", "True")) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"
    assert config["num_video_tokens"] == len(recorded_features()[VIDEOS[0]])
    saved, before = tensors(tmp_path / "pytorch_model.bin"), load_file(BASE / "model.safetensors")
    same = [n for n in saved if torch.equal(saved[n][: len(before[n])], before[n].bfloat16())]
    assert all("norm" in name for name in same)
    loaded = load_chat(tmp_path, None, LoadSettings(dtype=torch.bfloat16))
    assert torch.equal(loaded.model.lm_head.weight, saved["lm_head.weight"])


@pytest.mark.parametrize(
    ("flags", "trains"),
    [
        (("--freeze_backbone", "True"), {"projector"}),
        (("--freeze_mm_mlp_adapter", "True"), {"layers", "tables"}),
        ((*ADAPTER, "--freeze_mm_mlp_adapter", "True"), {"tables"}),
        (ADAPTER, {"projector", "tables"}),
        ((), {"projector", "layers", "tables"}),
    ],
)
def test_what_trains_is_what_changes(features, tmp_path, flags, trains):
    assert main(arguments(tmp_path, features, *flags)) == 0
    whole = (tmp_path / "config.json").is_file()
    assert whole == ("layers" in trains)
    loaded = load_chat(
        tmp_path if whole else BASE, None if whole else tmp_path / "mm_projector.bin", LoadSettings()
    )
    before = load_file(BASE / "model.safetensors")
    changed = {
        "projector" if "projector" in name else "layers"
        for name, value in loaded.model.state_dict().items()
        if name.endswith("proj.weight") or "projector" in name
        if not torch.equal(value, before[name])
    }
    assert changed == trains - {"tables"}


def test_bad_samples_are_written_down_and_text_trains_too(features, tmp_path):
    """D609 and D610 in one run: the loss stays a number."""
    rows = GOLDEN.json("e_model/train/train.json")
    text = {"id": "t", "conversations": [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}]}
    silent = {
        **rows[0],
        "id": "s",
        "conversations": [{"from": "human", "value": "<video>"}, {"from": "gpt", "value": ""}],
    }
    lost = {**rows[0], "id": "l", "video": "lost.pkl"}
    data = tmp_path / "train.json"
    data.write_text(json.dumps([lost, text, silent, *rows]))
    out = tmp_path / "out"
    assert main(arguments(out, features, *ADAPTER, "--per_device_train_batch_size", "2", data=data)) == 0
    assert all(np.isfinite(loss) for loss in losses(out).values())
    recorded = [json.loads(line) for line in (out / "rank0_bad_samples.jsonl").read_text().splitlines()]
    reasons = {(row["video_path"], row["reason"].split(":")[0].split(" in ")[0]) for row in recorded}
    assert ("lost.pkl", "No features of 'lost.pkl'") in reasons
    assert (silent["video"], "nothing of it can be learned") in reasons


def test_training_goes_on_from_its_own_adapter(features, tmp_path):
    assert main(arguments(tmp_path / "a", features, *ADAPTER)) == 0
    start = ("--pretrain_mm_mlp_adapter", str(tmp_path / "a/mm_projector.bin"), "--learning_rate", "0")
    assert main(arguments(tmp_path / "b", features, *ADAPTER, *start)) == 0
    a, b = (tensors(tmp_path / name / "mm_projector.bin") for name in "ab")
    for name in a:
        rows = slice(-2, None) if "embed" in name else slice(None)
        assert torch.equal(a[name][rows], b[name][rows]), name


def test_a_projector_of_another_kind(features, tmp_path, capfd):
    """It starts anew only when that is asked for."""
    base = mlp_base(tmp_path / "base")
    assert main(arguments(tmp_path / "kept", features, *ADAPTER, "--learning_rate", "0", base=base)) == 0
    kept = tensors(tmp_path / "kept/mm_projector.bin")
    for name, value in GOLDEN.npz("f_llava15/projector.npz").items():
        assert torch.equal(kept[name], torch.from_numpy(value))
    assert (
        main(arguments(tmp_path / "new", features, *ADAPTER, "--mm_projector_type", "linear", base=base)) == 0
    )
    assert "model.mm_projector.weight" in tensors(tmp_path / "new/mm_projector.bin")
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    for path in features.iterdir():
        np.load(path, allow_pickle=True)[:, :9].dump(narrow / path.name)
    capfd.readouterr()
    assert main(arguments(tmp_path / "no", narrow, *ADAPTER, base=base)) == 2
    assert "are 9 wide, but the projector of" in capfd.readouterr().err


def test_flags_of_2023_are_mapped_with_a_notice(features, tmp_path, caplog):
    with caplog.at_level("INFO"):
        args = parse_arguments(
            [*arguments(tmp_path, features), "--logging_dir", "x", "--no_cuda=True", "--version", "v0"]
        )
    assert args.training.eval_strategy == "no" and args.training.warmup_steps == 0.03
    assert args.training.get_warmup_steps(3) == 1 and args.training.use_cpu
    assert args.model.mm_use_vid_start_end and args.training.lr_scheduler_type == "cosine"
    for text in (
        "--evaluation_strategy is --eval_strategy", "--warmup_ratio is --warmup_steps",
        "--no_cuda is --use_cpu", "--logging_dir has no effect", "--version v0",
    ):  # fmt: skip
        assert text in caplog.text
    plain = parse_arguments(
        ["--model_name_or_path", "m", "--data_path", "d", "--video_folder", "v", "--output_dir", "o"]
    )
    assert (plain.training.model_max_length, plain.training.optim) == (512, "adamw_torch")
    assert plain.training.save_total_limit is None and not plain.data.lazy_preprocess


def command(out: Path, features: Path, port: int) -> list[str]:
    """The documented command, with other paths and process counts."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port", str(port)),
        *("videomind/video_chatgpt/train.py", "--model_name_or_path", str(BASE), "--version", "v1"),
        *("--data_path", str(GOLDEN.root / "e_model/train/train.json"), "--video_folder", str(features)),
        *("--tune_mm_mlp_adapter", "True", "--mm_use_vid_start_end", "--bf16", "True"),
        *("--output_dir", str(out), "--num_train_epochs", "20", "--per_device_train_batch_size", "1"),
        *("--per_device_eval_batch_size", "8", "--gradient_accumulation_steps", "1"),
        *("--evaluation_strategy", "no", "--save_strategy", "steps", "--save_steps", "4"),
        *("--save_total_limit", "3", "--learning_rate", "2e-5", "--weight_decay", "0."),
        *("--warmup_ratio", "0.03", "--lr_scheduler_type", "cosine", "--logging_steps", "1"),
        *("--tf32", "True", "--model_max_length", "2048", "--gradient_checkpointing", "True"),
        *("--lazy_preprocess", "True"),
    ]


@pytest.mark.slow
def test_the_documented_command_survives_a_kill(features, tmp_path, capfd):
    """D605, and with several processes: killed, resumed, the same to the bit, and it answers."""
    port = 20000 + os.getpid() % 20000
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole, features, port), cwd=REPO, env=environment(), check=True)
    # Torchrun alone is killed: the others must not go on.
    run_killed(command(killed, features, port + 1), killed / "checkpoint-8/complete", whom="parent")
    assert not (killed / "finished").exists()
    subprocess.run(command(killed, features, port + 2), cwd=REPO, env=environment(), check=True)
    assert losses(killed) == losses(whole) and sorted(losses(whole)) == list(range(1, 41))
    assert equal(whole / "mm_projector.bin", killed / "mm_projector.bin")
    capfd.readouterr()
    argv = [
        *("--model-name", str(BASE), "--projection_path", str(killed / "mm_projector.bin")),
        *("--clip_feat_path", str(features), "--video_path", f"{VIDEOS[0]}.mp4", "--question", "Who?"),
        *("--max_new_tokens", "5", "--temperature", "0"),
    ]
    assert chat(argv) == 0
    assert capfd.readouterr().out.strip()


@pytest.mark.slow
def test_the_recipe_goes_through_the_launcher(features, tmp_path):
    """Two processes; what is written on the command line wins."""
    script = str(REPO / "scripts/pretrain/train_video_chatgpt_7b.sh")
    extra = ("--save_steps", "1", "--max_steps", "2", "--report_to", "none", "--dataloader_num_workers", "1")
    env = environment(
        NPROC_PER_NODE="2",
        GLOBAL_BATCH="4",
        BATCH_PER_DEVICE="1",
        MASTER_PORT=str(20000 + os.getpid() % 20000),
    )
    subprocess.run(["bash", script, *arguments(tmp_path, features, *ADAPTER, *extra)], env=env, check=True)
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["global_step"] == 2 and state["train_batch_size"] == 3
    assert load_chat(BASE, tmp_path / "mm_projector.bin", LoadSettings())


@pytest.mark.slow
@needs_deepspeed
def test_full_training_under_zero3_goes_on_after_a_kill_before_its_final_files(features, tmp_path):
    out = tmp_path / "out"
    stage = (
        "--deepspeed",
        str(REPO / "scripts/deepspeed/zero3.json"),
        "--max_steps",
        "2",
        "--save_steps",
        "2",
    )
    argvs = [arguments(out, features, *stage)] * 2
    run_ranks(tmp_path / "1", argvs, main="videomind.video_chatgpt.train")
    before = tensors(out / "pytorch_model.bin")
    for path in (out / "finished", out / "pytorch_model.bin"):
        path.unlink()
    run_ranks(tmp_path / "2", argvs, main="videomind.video_chatgpt.train")
    after = tensors(out / "pytorch_model.bin")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
