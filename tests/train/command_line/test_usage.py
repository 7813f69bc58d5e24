"""The help of a training: our own arguments with their defaults, and what the recipes set beside them."""

from dataclasses import MISSING, fields

import pytest
from transformers import TrainingArguments as HfTrainingArguments

from videomind.runs.recipes import FOLDER, read_recipe
from videomind.train.command_line.arguments import TrainingArguments
from videomind.train.command_line.options import (
    CustomArguments,
    DataArguments,
    ModelArguments,
    TrainingOptions,
)
from videomind.train.command_line.usage import asks_for_help
from videomind.train.train import main as train
from videomind.video_chatgpt.options import VideoDataArguments, VideoModelArguments, VideoTrainingOptions
from videomind.video_chatgpt.train import main as train_chat

OURS = {
    train: (ModelArguments, DataArguments, CustomArguments, TrainingOptions),
    train_chat: (VideoModelArguments, VideoDataArguments, VideoTrainingOptions, TrainingOptions),
}


def shown_by(main, capsys) -> str:
    assert main(["--config", "nothing", "--help"]) == 0
    return " ".join(capsys.readouterr().out.partition("Recipes:")[2].split())


@pytest.mark.parametrize("main", OURS)
def test_every_argument_is_shown_once_with_its_default(main, capsys):
    text = shown_by(main, capsys)
    own = {entry.name: entry for kind in reversed(OURS[main]) for entry in fields(kind)}
    for name, entry in own.items():
        assert text.count(f"--{name} ") == 1, name
        words = text.partition(f"--{name} ")[2].partition(" --")[0]
        if entry.default not in (MISSING, None):
            assert f"default {entry.default}" in words, name
        assert ("required" in words) == (entry.default is entry.default_factory is MISSING), name
        assert entry.metadata.get("help", "") in words, name


@pytest.mark.parametrize(
    ("main", "recipes"), [(train, "[!ct]*.yaml"), (train_chat, "train_video_chatgpt.yaml")]
)
def test_what_recipes_set_of_transformers_is_named(main, recipes, capsys):
    named = shown_by(main, capsys).rpartition("the recipes set ")[2].rstrip(".").split(", ")
    own = {entry.name for kind in OURS[main] for entry in fields(kind)}
    paths = [*FOLDER.glob(recipes)]
    assert paths and named == sorted({name for path in paths for name in read_recipe(path).arguments} - own)


def test_our_defaults_win_over_transformers():
    ours, combined = (
        {entry.name: entry.default for entry in fields(kind)} for kind in (TrainingOptions, TrainingArguments)
    )
    assert ours.items() <= combined.items()
    assert {entry.name for entry in fields(HfTrainingArguments)} == combined.keys()


@pytest.mark.parametrize(("argv", "asks"), [([], False), (["--role", "x"], False), (["--role", "-h"], True)])
def test_help_is_asked_for_anywhere(argv, asks):
    assert asks_for_help(argv) == asks
