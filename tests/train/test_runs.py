"""Whole training runs as a user starts them: DeepSpeed stages, accumulation, a kill and a rerun.

Covers `train/` and `model/tensors.py`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.in_order import InOrder
from helpers.kills import run_killed
from helpers.ranks import run_ranks
from helpers.runs import REPO, arguments, environment, logged, losses, needs_deepspeed, sharding
from safetensors.torch import load_file

from videomind.model.checkpoint import LoadSettings, load_model
from videomind.train.checkpoints import complete_checkpoints
from videomind.train.command_line.arguments import parse_arguments
from videomind.train.role_training import train
from videomind.train.train import main
from videomind.video import excerpts

STEPS = ("--max_steps", "5", "--save_steps", "5")


def launch(workshop: Path, out: Path, *extra: str, **env: str) -> None:
    """Train with scripts/launch.sh on two processes; what a user's script does."""
    env = {"NPROC_PER_NODE": "2", "GLOBAL_BATCH": "4", "MASTER_PORT": str(20000 + os.getpid() % 20000)} | env
    run = subprocess.run(
        ["bash", str(REPO / "scripts/launch.sh"), *arguments(workshop, out, *extra)],
        env=environment(**env),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]


def train_on_two(workshop: Path, out: Path, *extra: str, stage: str) -> None:
    """Train as `launch` does, on processes that are forked."""
    batch = ("--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "2")
    run_ranks(out / "screens", [arguments(workshop, out, *batch, *sharding(stage), *extra)] * 2)


def loads(out: Path, role: str) -> None:
    """A finished run's checkpoint can be used."""
    loaded = load_model(out, LoadSettings())
    assert set(loaded.model.peft_config) == {role}
    with torch.no_grad():
        assert loaded.model(input_ids=torch.tensor([[1, 2, 3]])).logits.isfinite().all()


SPAWNING = """
import multiprocessing, sys
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    from videomind.train.train import main
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_workers_started_as_on_macos_load_the_same(workshop, tmp_path):
    """Annotations and batches are made in processes that share nothing with the one that starts them."""
    (tmp_path / "spawning.py").write_text(SPAWNING)
    steps = ("--max_steps", "2", "--save_steps", "2")
    argv = arguments(workshop, tmp_path / "spawned", *steps, "--dataloader_num_workers", "2")
    env = environment(VIDEOMIND_CACHE=str(tmp_path / "cache"))
    run = subprocess.run(
        [sys.executable, str(tmp_path / "spawning.py"), *argv], env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert main(arguments(workshop, tmp_path / "own", *steps, "--dataloader_num_workers", "0")) == 0
    assert losses(tmp_path / "spawned") == losses(tmp_path / "own")


@pytest.mark.slow
@needs_deepspeed
def test_deepspeed_stages_train_as_plain_training_does(workshop, tmp_path):
    """Steps with moments and steps without, so that the head has a gradient in some of them only."""
    videos = sorted((workshop / "data/charades_sta/videos_3fps_480_noaudio").glob("*.mp4"))
    row = {"duration": 20, "query": "a red square", "pred": [[1, 4]], "positive": True}
    rows = [json.dumps({"video": str(video), **row}) + "\n" for video in videos]
    (tmp_path / "verifying.jsonl").write_text("".join(rows))
    extra = ("--role", "all_in_one", "--datasets", f"charades_sta,{tmp_path / 'verifying.jsonl'}:2")
    extra = (*STEPS, *extra, "--gradient_checkpointing", "True")
    found = {}
    stages = ("none", "zero2", "zero3", "zero2_offload", "zero3_offload")
    for stage in stages:
        train_on_two(workshop, tmp_path / stage, *extra, stage=stage)
        found[stage] = logged(tmp_path / stage)
        loads(tmp_path / stage, "all_in_one")
    assert [entry["step"] for entry in found["none"]] == [1, 2, 3, 4, 5]
    assert {"classification_loss" in entry for entry in found["none"]} == {True, False}
    for stage in stages[1:]:
        for theirs, ours in zip(found["none"], found[stage], strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4, rel=1e-4), (stage, ours)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3), (stage, ours)
    plain = load_file(tmp_path / "none/pytorch_model.safetensors")
    for stage in stages[1:]:
        sharded = load_file(tmp_path / stage / "pytorch_model.safetensors")
        assert plain.keys() == sharded.keys()
        assert all(torch.allclose(plain[k], sharded[k], atol=1e-4) for k in plain)


@pytest.mark.slow
@needs_deepspeed
def test_zero3_goes_on_from_a_role_checkpoint(workshop, tmp_path):
    train_on_two(workshop, tmp_path / "first", *STEPS, stage="none")
    extra = ("--model_name_or_path", str(tmp_path / "first"), "--max_steps", "2", "--save_steps", "2")
    train_on_two(workshop, tmp_path / "none", *extra, stage="none")
    launch(workshop, tmp_path / "zero3", *extra, DEEPSPEED="zero3")
    for step, loss in losses(tmp_path / "none").items():
        assert losses(tmp_path / "zero3")[step] == pytest.approx(loss, rel=1e-4), step


def test_batch_and_accumulation_are_the_same(workshop, tmp_path):
    """Batch 1 x accumulation 4 equals batch 4 x 1, for the same samples and without dropout."""
    found = []
    for batch, steps in (("1", "4"), ("4", "1")):
        out = tmp_path / batch
        extra = ["--per_device_train_batch_size", batch, "--gradient_accumulation_steps", steps]
        extra += ["--max_steps", "3", "--save_steps", "3", "--lora_dropout", "0", "--head_droppath", "0"]
        args = parse_arguments(arguments(workshop, out, *extra))
        train(args, make_sampler=lambda args, mixture: InOrder(len(mixture) // 4 * 4))
        found.append(losses(out))
    for step, loss in found[0].items():
        assert found[1][step] == pytest.approx(loss, abs=1e-4, rel=1e-5)


def run(argv: list[str]) -> None:
    """A training in a process of its own, to its end."""
    ended = subprocess.run(
        command(argv),
        env=environment(),
        cwd=REPO,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


def command(argv: list[str]) -> list[str]:
    return [sys.executable, "-m", "videomind.train.train", *argv]


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(workshop, tmp_path):
    """Over an epoch's end, with dropout and loader workers."""
    extra = ("--per_device_train_batch_size", "4", "--max_steps", "14", "--save_steps", "2",
             "--dataloader_num_workers", "1")  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(arguments(workshop, whole, *extra))
    run_killed(command(arguments(workshop, killed, *extra)), killed / "checkpoint-4/complete")
    run_killed(command(arguments(workshop, killed, *extra)), killed / "checkpoint-10/complete")
    run(arguments(workshop, killed, *extra))
    assert losses(killed) == losses(whole)
    assert sorted(losses(whole)) == list(range(1, 15))
    for name in ("pytorch_model.safetensors", "grounder/adapter_model.safetensors"):
        a, b = load_file(whole / name), load_file(killed / name)
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name


def test_half_written_checkpoints_are_not_used(workshop, tmp_path, capfd):
    argv = arguments(workshop, tmp_path, "--max_steps", "2", "--save_steps", "1", "--save_total_limit", "2")
    assert main(argv) == 0
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-2"]
    (tmp_path / "checkpoint-2/complete").unlink()
    (tmp_path / "finished").unlink()
    capfd.readouterr()
    assert main(argv) == 0
    screen = capfd.readouterr().err
    assert re.search("Removing .*checkpoint-2: it was not written to the end", screen)
    assert re.search("Continuing from .*checkpoint-1\n", screen)


@pytest.mark.parametrize(
    ("limit", "kept"),
    [*(pytest.param(limit, 3, marks=pytest.mark.slow) for limit in ("-1", "0", "9")), ("1", 1), ("2", 2)],
)
def test_as_many_checkpoints_are_kept_as_was_said(workshop, tmp_path, limit, kept):
    """Below 1 all, as transformers takes it."""
    steps = ("--max_steps", "3", "--save_steps", "1", "--save_total_limit", limit)
    assert main(arguments(workshop, tmp_path, *steps)) == 0
    names = [f"checkpoint-{step}" for step in (1, 2, 3)]
    assert [path.name for path in complete_checkpoints(tmp_path)] == names[-kept:]


def test_a_finished_run_is_not_trained_again(workshop, tmp_path, capfd):
    argv = arguments(workshop, tmp_path, "--max_steps", "1", "--save_steps", "1")
    assert main(argv) == 0
    before = (tmp_path / "pytorch_model.safetensors").stat().st_mtime_ns
    capfd.readouterr()
    assert main(argv) == 0
    assert "All 1 steps are done" in capfd.readouterr().err
    assert (tmp_path / "pytorch_model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_kept_frames_train_as_decoded_ones_do(workshop, tmp_path, monkeypatch):
    """A second run with them decodes nothing, nor does a second epoch of the first."""
    opened, own = [], excerpts.open_reader

    def counted(path, *args, **kwargs):
        opened.append(path)
        return own(path, *args, **kwargs)

    monkeypatch.setattr(excerpts, "open_reader", counted)
    steps = ("--datasets", "charades_sta", "--num_train_epochs", "2", "--per_device_train_batch_size", "4")
    steps = (*steps, "--save_steps", "100", "--dataloader_num_workers", "0")
    kept = ("--cache_frames", str(tmp_path / "kept"), "--cache_frames_gb", "0.5")
    counts = []
    for name, extra in (("without", ()), ("first", kept), ("second", kept)):
        opened.clear()
        assert main(arguments(workshop, tmp_path / name, *steps, *extra)) == 0
        counts.append((len(opened), len(set(opened))))
    (all_of_them, videos), first, second = counts
    assert all_of_them >= 2 * videos and first == (videos, videos) and second == (0, 0)
    assert losses(tmp_path / "without") == losses(tmp_path / "first") == losses(tmp_path / "second")


def test_bad_videos_are_written_down(workshop, tmp_path):
    data = tmp_path / "data"
    subprocess.run(["cp", "-r", str(workshop / "data"), str(data)], check=True)
    for video in sorted((data / "charades_sta/videos_3fps_480_noaudio").glob("*.mp4"))[:4]:
        video.write_bytes(b"not a video")
    argv = arguments(
        workshop, tmp_path / "out", "--max_steps", "4", "--save_steps", "4", "--max_bad_share", "1"
    )
    assert (
        main(
            [
                *argv,
                "--data_root",
                str(data),
                "--datasets",
                "charades_sta",
                "--per_device_train_batch_size",
                "4",
            ]
        )
        == 0
    )
    rows = [json.loads(line) for line in (tmp_path / "out/rank0_bad_samples.jsonl").read_text().splitlines()]
    assert rows and {row["source"] for row in rows} == {"charades_sta"}
    assert all(row["reason"] and row["video_path"].endswith(".mp4") for row in rows)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_sample_without_a_good_stand_in_is_recorded_and_ends_the_run_with_one_line(
    workshop, tmp_path, capfd, workers
):
    data = tmp_path / "data"
    shutil.copytree(workshop / "data", data)
    for video in (data / "charades_sta/videos_3fps_480_noaudio").glob("*.mp4"):
        video.write_bytes(b"not a video")
    retries = ("--max_retries", "2", "--dataloader_num_workers", workers)
    argv = arguments(workshop, tmp_path / "out", "--max_steps", "2", *retries)
    assert main([*argv, "--data_root", str(data), "--datasets", "charades_sta"]) == 2
    screen = capfd.readouterr().err
    assert "3 bad samples in a row (--max_retries)" in screen and "Traceback" not in screen
    rows = [json.loads(line) for line in (tmp_path / "out/rank0_bad_samples.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["video_path"].endswith(".mp4") for row in rows)


@pytest.mark.parametrize("base", ["base", "untied"])
def test_without_lora_whatever_trained_is_saved(workshop, tmp_path, base):
    """D401: the trained tables and the vision merger were lost."""
    start = ("--model_name_or_path", str(workshop / base))
    extra = (
        "--max_steps",
        "1",
        "--save_steps",
        "1",
        "--lora_enable",
        "False",
        "--tuning_modules",
        "projector",
    )
    assert main(arguments(workshop, tmp_path / base, *start, *extra)) == 0
    saved = load_file(tmp_path / base / "pytorch_model.safetensors")
    assert "model.embed_tokens.weight" in saved and "visual.merger.mlp.0.weight" in saved
    assert ("lm_head.weight" in saved) == (base == "untied")
    model = load_model(tmp_path / base, LoadSettings()).model
    assert torch.equal(model.get_input_embeddings().weight, saved["model.embed_tokens.weight"])
    assert torch.equal(model.model.visual.merger.mlp[0].weight, saved["visual.merger.mlp.0.weight"])


@pytest.mark.slow
def test_a_merged_full_model_predicts_as_the_adapter_does(workshop, tmp_path):
    assert (
        main(
            arguments(
                workshop, tmp_path, "--max_steps", "2", "--save_steps", "2", "--save_full_model", "True"
            )
        )
        == 0
    )
    ids = torch.tensor([[5, 6, 7, 8]])
    role, full = (load_model(path, LoadSettings()).model.eval() for path in (tmp_path, tmp_path / "full"))
    with torch.no_grad():
        torch.testing.assert_close(
            role(input_ids=ids).logits, full(input_ids=ids).logits, atol=1e-4, rtol=1e-4
        )


def test_only_the_rows_of_the_new_tokens_can_train(workshop, tmp_path):
    extra = (
        "--max_steps",
        "1",
        "--save_steps",
        "1",
        "--train_new_tokens_only",
        "True",
        "--warmup_steps",
        "0",
    )
    assert main(arguments(workshop, tmp_path, *extra)) == 0
    saved = load_file(tmp_path / "grounder/adapter_model.safetensors")
    tables = {name: t for name, t in saved.items() if "embed_tokens" in name or "lm_head" in name}
    assert tables and all(len(t) == 3 for t in tables.values())
    model = load_model(tmp_path, LoadSettings()).model.eval()
    base = load_model(workshop / "base", LoadSettings()).model.get_input_embeddings().weight
    ids = model.get_base_model().config
    table = model.get_input_embeddings()(torch.arange(len(base)))
    changed = (table != base).any(dim=1).nonzero()[:, 0].tolist()
    assert set(changed) <= {ids.reg_token_id, ids.seg_s_token_id, ids.seg_e_token_id} and changed


def test_bfloat16_trains_and_saves_half_the_bytes(workshop, tmp_path):
    assert main(arguments(workshop, tmp_path, "--max_steps", "2", "--save_steps", "2", "--bf16", "True")) == 0
    assert all(torch.isfinite(torch.tensor(loss)) for loss in losses(tmp_path).values())
    saved = load_file(tmp_path / "pytorch_model.safetensors")
    assert {t.dtype for t in saved.values()} == {torch.bfloat16}
    master = load_file(tmp_path / "checkpoint-2/pytorch_model.safetensors")
    assert {t.dtype for t in master.values()} == {torch.float32}  # what a resumed run goes on from
