"""Bad input to training: one clear line that says what is allowed and how to mend it, exit code 2."""

import re
import subprocess
from dataclasses import fields

import pytest
from helpers.goldens import golden_bases
from helpers.machine import no_room
from helpers.runs import REPO, arguments, environment

from videomind.dataset.parts import Entry, load_part
from videomind.device import Device
from videomind.train.command_line.arguments import (
    HEAD_OPTIONS,
    LORA_OPTIONS,
    TrainingArguments,
    parse_arguments,
)
from videomind.train.command_line.inherited import default_of
from videomind.train.command_line.options import CustomArguments
from videomind.train.train import main


def run(argv: list[str], capfd) -> str:
    """What the user sees: nothing but one line that says ERROR and why."""
    assert main(argv) == 2
    screen = capfd.readouterr().err
    assert "Traceback" not in screen
    return screen[screen.index("ERROR") :]


@pytest.fixture
def argv(golden, tmp_path):
    def make(**changes: str) -> list[str]:
        values = {
            "role": "grounder",
            "model_name_or_path": golden_bases()[0],
            "datasets": "qvhighlights",
            "data_root": "datasets/data",
            "output_dir": str(tmp_path / "out"),
            "use_cpu": "True",
        }
        return [part for name, value in (values | changes).items() for part in (f"--{name}", value)]

    return make


@pytest.mark.golden
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datasets": "qvhighlight"}, ["Unknown data set 'qvhighlight'", "Did you mean 'qvhighlights'"]),
        ({"role": "ground"}, ["Unknown role 'ground' (--role)", "Allowed: all_in_one, answerer, grounder"]),
        ({"lora_type": "qkv"}, ["Unknown --lora_type 'qkv'", "qkvo", "Did you mean"]),
        ({"head_droppath": "1"}, ["--head_droppath must be at least 0 and below 1, not 1.0"]),
        ({"fps": "0"}, ["more than 0.0 frames per second (--fps)"]),
        ({"max_frames": "1"}, ["at least 2 frames, not 1 (--max_frames)"]),
        ({"cache_frames": "kept", "cache_frames_gb": "0"}, ["--cache_frames_gb must be above 0, not 0.0"]),
        (
            {"base_model": "qwen2_v1"},
            ["Unknown backbone 'qwen2_v1' (--base_model)", "Did you mean"],
        ),
        ({"lora_bias": "some"}, ["Unknown --lora_bias 'some'", "all, lora_only, none"]),
        ({"label_smoothing_factor": "0.1"}, ["--label_smoothing_factor 0.1 is not used here"]),
        ({"learning_rat": "0.1"}, ["Unknown argument --learning_rat. Did you mean --learning_rate?"]),
        ({"label_smoothing": "0.1"}, ["Unknown argument --label_smoothing. Did you mean --label_smoothing_"]),
        ({"max_frames": "2049"}, ["--max_frames 2049 is too much for the grounding head", "which is 2048"]),
        ({"data_seed": "3"}, ["--data_seed 3 is not used here", "order of samples"]),
        ({"resume_from_checkpoint": "/nowhere"}, ["--resume_from_checkpoint /nowhere is not used here"]),
        ({"do_train": "False"}, ["--do_train False is not used here"]),
        ({"save_only_model": "True"}, ["--save_only_model True is not used here: a checkpoint without its"]),
        (
            {"dataloader_persistent_workers": "True"},
            ["--dataloader_persistent_workers True is not used here"],
        ),
        ({"use_liger_kernel": "True"}, ["--use_liger_kernel True is not used here"]),
        ({"report_to": "wandb"}, ["--report_to wandb: its package is not installed"]),
        (
            {"role": "planner", "train_new_tokens_only": "True"},
            ["--train_new_tokens_only: the planner trains no rows"],
        ),
        ({"tuning_modules": "vision"}, ["Unknown --tuning_modules 'vision'", "projector"]),
        ({"model_name_or_path": "model_zoo/none"}, ["No model in", "model_zoo/none", "--model_name_or_path"]),
        ({"model_name_or_path": "units"}, ["no config.json", "not a model folder"]),
        ({"data_root": "nowhere"}, ["No annotation file nowhere/qvhighlights/", "data/README.md"]),
        (
            {"max_num_words": "0", "data_root": "WITH_FOLDER"},
            ["No sample is left of qvhighlights", "number of words"],
        ),
        (
            {"min_tokens_per_frame": "9", "max_tokens_per_frame": "4"},
            ["0 < min <= max tokens per frame, not 9 and 4"],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_arguments(argv, golden, tmp_path, capfd, changes, words):
    if changes.get("data_root") == "WITH_FOLDER":
        changes = changes | {"data_root": str(annotations_and(golden, tmp_path, videos=True))}
    message = run(argv(**changes), capfd)
    for word in words:
        assert word in message


def annotations_and(golden, tmp_path, *, videos: bool):
    """A data root with the golden QVHighlights annotations, with or without a video folder."""
    data = tmp_path / "data/qvhighlights"
    data.mkdir(parents=True)
    for path in (golden.root / "datasets/data/qvhighlights").glob("*.jsonl"):
        (data / path.name).write_bytes(path.read_bytes())
    if videos:
        (data / "videos_3fps_480_noaudio").mkdir()
    return data.parent


@pytest.mark.golden
def test_missing_video_folder(argv, golden, tmp_path, capfd):
    message = run(argv(data_root=str(annotations_and(golden, tmp_path, videos=False))), capfd)
    assert "No video folder" in message and "--data_root" in message


@pytest.mark.golden
def test_unreadable_annotation_file(argv, tmp_path, capfd):
    data = tmp_path / "data/qvhighlights"
    data.mkdir(parents=True)
    (data / "highlight_train_release.jsonl").write_text('{"vid": \n')
    message = run(argv(data_root=str(tmp_path / "data")), capfd)
    assert "highlight_train_release.jsonl, line 1, is not valid JSON" in message


@pytest.mark.golden
def test_the_trace_goes_to_the_log_file(argv, tmp_path, capfd):
    run(argv(model_name_or_path="model_zoo/none"), capfd)
    assert "Traceback" in (tmp_path / "out/train.log").read_text()


@pytest.mark.golden
@pytest.mark.slow
def test_several_processes_end_with_the_reason_once(argv, golden):
    """Through the launcher, as a user meets it: no traceback of torchrun's, the reason from one process."""
    run = subprocess.run(
        ["bash", str(REPO / "scripts/launch.sh"), *argv(datasets="nothing")],
        env=environment(NPROC_PER_NODE="2", DEEPSPEED="none", MASTER_PORT="29617"),
        cwd=golden.root,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert run.stderr.count("Unknown data set 'nothing'") == 1
    last = run.stderr.strip().splitlines()[-1]
    assert re.match(r"The run stopped: process [01] ended with exit code 2", last)


OTHER = {  # another value than each has by itself
    **{"lora_type": "linear", "lora_r": "4", "lora_alpha": "4", "lora_dropout": "0", "lora_bias": "all"},
    **{"lora_lr": "1e-5", "train_new_tokens_only": "True", "head_lr": "1e-5", "head_droppath": "0"},
    **{"loss_cls_weight": "1", "loss_reg_weight": "2", "loss_sal_weight": "1"},
}


@pytest.mark.golden
@pytest.mark.parametrize("name", [*LORA_OPTIONS, *HEAD_OPTIONS])
def test_an_option_of_what_does_not_train_is_refused_by_its_name(argv, name):
    """With the value that it has by itself it says nothing else than the rest."""
    entry = next(entry for entry in fields(CustomArguments) if entry.name == name)
    without = {"lora_enable": "False"} if name in LORA_OPTIONS else {"role": "planner"}
    assert str(default_of(entry)) != OTHER[name]
    with pytest.raises(ValueError, match=f"^--{name} .* is not used here: .*(no adapter|no grounding head)"):
        parse_arguments(argv(**without, **{name: OTHER[name]}))
    if default_of(entry) is not None:
        parse_arguments(argv(**without, **{name: str(default_of(entry))}))
    if name != "train_new_tokens_only":
        parse_arguments(argv(role="all_in_one", **{name: OTHER[name]}))


@pytest.mark.parametrize("num_bytes", [100_000, 1_000_000])
@pytest.mark.parametrize("extra", [(), ("--save_full_model", "True")], ids=["role", "whole"])
def test_a_full_disk_is_one_line_with_the_place(workshop, tmp_path, capfd, num_bytes, extra):
    """Whichever file, of whichever library, does not fit: weights, optimizer, or the whole model."""
    load_part(Entry(name="charades_sta"), data_root=workshop / "data")
    argv = arguments(
        workshop, tmp_path, "--datasets", "charades_sta", "--max_steps", "1", "--save_steps", "1"
    )
    with no_room(num_bytes):
        assert main([*argv, *extra]) == 2
    said = capfd.readouterr().err
    (line,) = [line for line in said.splitlines() if "ERROR" in line]
    assert "Traceback" not in said and re.search(
        rf"ERROR {tmp_path}/\S+: (File too large|cannot be)", line
    ), line


@pytest.mark.parametrize(("kind", "optim"), [("npu", "adamw_torch"), ("cuda", "adamw_torch_fused")])
def test_the_optimizer_is_one_that_the_device_has(monkeypatch, tmp_path, kind, optim):
    """An NPU may lack the kernels of the fused one; what is asked for is taken."""
    device = Device(kind=kind, backend="", visible_variable="", count=1)
    monkeypatch.setattr("videomind.train.command_line.options.detect", lambda: device)
    made = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert made.optim == optim
    assert TrainingArguments(output_dir=str(tmp_path), use_cpu=True, optim="sgd").optim == "sgd"
