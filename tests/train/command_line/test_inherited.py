"""transformers' arguments: each of the installed version is used, or refused by name."""

import dataclasses

import pytest
from transformers import TrainingArguments as HfTrainingArguments

from videomind.train.command_line.inherited import (
    HONOURED,
    REFUSED,
    SAID,
    default_of,
    refuse_missing_reporters,
    refuse_other_adapter,
    refuse_unused,
    refuse_zeros,
    todays,
)

FIELDS = {entry.name: entry for entry in dataclasses.fields(HfTrainingArguments)}


def test_the_table_has_every_argument_once():
    assert not HONOURED & set(REFUSED)
    assert set(FIELDS) <= HONOURED | set(REFUSED), (
        "new in this version of transformers: honour or refuse them"
    )


def other(entry: dataclasses.Field):
    """A value that a field does not have by itself."""
    default = default_of(entry)
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, int | float) else "other"


@pytest.fixture
def training(tmp_path):
    return HfTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")


@pytest.mark.parametrize("name", sorted(set(FIELDS) & set(REFUSED) - SAID))
@pytest.mark.parametrize("form", ["--{}", "--{}=x"])
def test_what_does_nothing_is_refused_with_the_reason(training, name, form):
    value = other(FIELDS[name])
    object.__setattr__(training, name, value)
    refuse_unused(training, ["--learning_rate", "1"], FIELDS)  # it was not given
    if (name, value) == ("do_train", True):  # people write it, and it is so
        refuse_unused(training, [form.format(name)], FIELDS)
        return
    with pytest.raises(ValueError, match=f"--{name} {value} is not used here: .* Leave it out"):
        refuse_unused(training, [form.format(name)], FIELDS)


@pytest.mark.parametrize("name", sorted(set(FIELDS) & HONOURED))
def test_what_is_used_is_taken(training, name):
    object.__setattr__(training, name, other(FIELDS[name]))
    refuse_unused(training, [f"--{name}"], FIELDS)


@pytest.mark.parametrize("name", sorted(SAID))
def test_what_published_command_lines_hold_is_said_to_do_nothing(training, caplog, name):
    object.__setattr__(training, name, other(FIELDS[name]))
    with caplog.at_level("INFO"):
        refuse_unused(training, [f"--{name}"], FIELDS)
    assert f"--{name} has no effect" in caplog.text


def test_an_argument_that_nobody_has_tried_is_refused(training, monkeypatch):
    monkeypatch.delitem(REFUSED, "use_liger_kernel")
    object.__setattr__(training, "use_liger_kernel", True)
    with pytest.raises(ValueError, match="newer than those that were tried"):
        refuse_unused(training, ["--use_liger_kernel"], FIELDS)


@pytest.mark.parametrize("value", [0, -1, 1])
@pytest.mark.parametrize(
    "name", ["max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "warmup_steps"]
)
def test_a_zero_is_not_taken_for_what_was_not_given(training, name, value):
    object.__setattr__(training, name, value)
    if value == 1 or name == "warmup_steps" or (name, value) == ("max_steps", -1):
        refuse_zeros(training)
        return
    with pytest.raises(ValueError, match=f"--{name} (is )?{value}.* Allowed: whole numbers from 1"):
        refuse_zeros(training)


def test_a_tracker_that_is_not_installed_is_named():
    refuse_missing_reporters(["none"], [])
    refuse_missing_reporters(["tensorboard", "all"], ["tensorboard"])
    with pytest.raises(ValueError, match="--report_to wandb: its package is not installed.*tensorboard"):
        refuse_missing_reporters(["wandb"], ["tensorboard"])


def test_settings_of_an_adapter_that_goes_on_must_be_its_own():
    saved = {"lora_r": 32, "lora_type": "qkvo"}
    refuse_other_adapter({"lora_r": 32}, saved, "x")
    with pytest.raises(
        ValueError, match=r"adapter in x goes on as it is, without --lora_r 128 \(it has 32\)"
    ):
        refuse_other_adapter({"lora_r": 128, "lora_type": "qkvo"}, saved, "x")


@pytest.mark.parametrize(
    ("given", "today"),
    [
        (["--warmup_ratio", "0.03"], ["--warmup_steps", "0.03"]),
        (["--warmup_ratio=0.03"], ["--warmup_steps", "0.03"]),
        (["--no_cuda"], ["--use_cpu"]),
        (["--evaluation_strategy", "no", "--seed", "1"], ["--eval_strategy", "no", "--seed", "1"]),
        (["--overwrite_output_dir", "True", "--seed", "1"], ["--seed", "1"]),
        (["--warmup_ratio", "0.1", "--warmup_steps", "5"], ["--warmup_steps", "5"]),
    ],
)
def test_names_of_earlier_versions_are_todays(given, today):
    assert todays(given, list(FIELDS)) == today
