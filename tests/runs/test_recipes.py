"""Recipes: what the published ones resolve to, what overrides them, what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.runs import REPO, environment

from videomind.runs.recipes import FOLDER, expand, given_arguments, launch_section, read_recipe, recipe_text

PUBLISHED = json.loads((Path(__file__).parent / "published_recipes.json").read_text())
ECHO = "#!/bin/sh\nshift 4\nprintf '%s\\n' \"$@\"\n"


@pytest.mark.parametrize("script", sorted(PUBLISHED))
def test_the_published_recipes_are_these(script, tmp_path):
    """The arguments that reach each training, as its script gave them before recipes were files."""
    python = tmp_path / "python"
    python.write_text(ECHO)
    python.chmod(0o755)
    run = subprocess.run(
        ["bash", str(REPO / "scripts" / script), "--seed", "7"],
        env=environment(PYTHON=str(python)),
        capture_output=True,
        text=True,
        check=True,
    )
    argv = run.stdout.splitlines()
    found = given_arguments(expand(argv))
    assert found.pop("seed") == "7"
    section = launch_section(argv)
    expected = dict(PUBLISHED[script])
    launch = {
        "per_device_train_batch_size": str(section.get("batch_per_device", 1)),
        "gradient_accumulation_steps": str(32 // section.get("batch_per_device", 1)),
    }
    if section.get("deepspeed") != "none":
        launch["deepspeed"] = "zero2"
    assert found | launch == expected


def recipe(folder, name="a.yaml", **content):
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_arguments_of_the_command_line_come_after_the_recipe(tmp_path):
    path = recipe(tmp_path, model={"role": "grounder"}, schedule={"fp16": True, "learning_rate": 1e-4})
    argv = expand(["--seed", "1", "--config", path, "--role", "planner"])
    assert argv == [
        "--role",
        "grounder",
        "--fp16",
        "True",
        "--learning_rate",
        "0.0001",
        "--seed",
        "1",
        "--role",
        "planner",
    ]
    assert given_arguments(argv)["role"] == "planner"
    assert expand([f"--config={path}"]) == argv[:6]
    assert expand(["--seed", "1"]) == ["--seed", "1"]


def test_a_recipe_builds_on_another_one_beside_it(tmp_path):
    recipe(tmp_path, "base.yaml", data={"datasets": ["a", "b"]}, launch={"deepspeed": "zero3"})
    path = recipe(tmp_path, "own.yaml", extends="base.yaml", schedule={"seed": 2}, data={"max_retries": 3})
    assert read_recipe(path).arguments == {"datasets": "a,b", "max_retries": "3", "seed": "2"}
    assert launch_section(["--config", path]) == {"deepspeed": "zero3"}


def test_sizes_are_values(tmp_path):
    path = recipe(tmp_path, sizes=["2b", "7b"], model={"m": "x/M-{SIZE}", "n": "y_{size}"})
    assert expand(["--config", path, "--size", "7b"]) == ["--m", "x/M-7B", "--n", "y_7b"]
    for wrong, message in ((["--size", "8b"], "'8b'.*2b, 7b"), ([], "not given.*2b, 7b")):
        with pytest.raises(ValueError, match=message):
            expand(["--config", path, *wrong])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedul: {a: 1}", "section 'schedul'.*Did you mean 'schedule'"),
        ("model: [a]", "model: expected names and values"),
        ("- a", "holds a list"),
        ("model: {a: {b: 1}}", r"model, a: \{'b': 1\} is neither"),
        ("model: {a: null}", "model, a: None is neither"),
        ("model: {a: 1, a: 2}", "a is given twice"),
        ("model: {a: 1}\ndata: {a: 2}", "in two sections"),
        ("model: {a: 1", "not valid YAML.*line"),
        ("launch: {deepsped: none}", "unknown 'deepsped'.*'deepspeed'"),
        ("extends: a.yaml", "extends itself"),
        ("extends: nothing_like_it", "No recipe nothing_like_it"),
        ("sizes: [2b]\nmodel: {a: 1}", "--size is not given"),
    ],
)
def test_what_no_recipe_can_say_is_refused(text, message, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        expand(["--config", str(path)])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "pretrain_grounde", "--size", "2b"], "Did you mean 'pretrain_grounder'"),
        (["--config", "common", "--size", "2b"], "common has no sizes"),
        (["--size", "2b"], "--config"),
        (["--config"], "given once"),
        (["--config", "common", "--config", "common"], "given once"),
    ],
)
def test_wrong_command_lines_are_refused(argv, message):
    with pytest.raises(ValueError, match=message):
        expand(argv)


def test_every_recipe_of_the_repository_is_read():
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    assert "common" in names
    for name in names:
        assert read_recipe(name).arguments


def test_what_a_run_was_started_with_is_a_recipe_again(tmp_path):
    argv = [
        "--role",
        "grounder",
        "--fp16",
        "True",
        "--role",
        "planner",
        "--mm_use_vid_start_end",
        "--fps",
        "0.5",
    ]
    text = recipe_text(argv, {"role": "model", "fps": "budget"})
    (tmp_path / "again.yaml").write_text(text)
    again = given_arguments(expand(["--config", str(tmp_path / "again.yaml")]))
    assert again == {"role": "planner", "fps": "0.5", "fp16": "True", "mm_use_vid_start_end": "True"}


def test_a_training_keeps_its_recipe(workshop, tmp_path):
    from helpers.runs import arguments

    from videomind.train.train import main

    argv = arguments(workshop, tmp_path / "run", "--num_train_epochs", "0")
    assert main(["--config", "common", *argv]) == 0
    kept = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())
    assert kept["budget"]["max_tokens_per_frame"] == "4" and kept["adapter"]["lora_r"] == "4"
    assert kept["schedule"]["lr_scheduler_type"] == "cosine" and kept["model"]["role"] == "grounder"
    assert main(["--config", str(tmp_path / "run/recipe.yaml"), "--output_dir", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/adapter_config.json").exists() or (tmp_path / "again/grounder").is_dir()


@pytest.mark.slow
def test_an_unknown_argument_of_a_recipe_is_refused(workshop, tmp_path):
    path = recipe(tmp_path, schedule={"learning_rat": 1})
    run = subprocess.run(
        [sys.executable, "-m", "videomind.train.train", "--config", path, "--role", "grounder"],
        env=environment(), cwd=os.fspath(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2 and "learning_rat" in run.stderr
