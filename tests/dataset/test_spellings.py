"""One thing under two spellings is one thing, and paths may hold what lists and shells give a meaning to.

Covers `dataset/parts.py` and `dataset/cache.py`.
"""

import json
import os
import shlex
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.machine import closed

from videomind.dataset.cache import cache_folder
from videomind.dataset.parts import Entry, load_part, parse_entries
from videomind.files import labelled_paths
from videomind.logger import expand_homes
from videomind.model.assembly import load_roles
from videomind.train.command_line.arguments import parse_arguments

NAMES = ["a.jsonl", "a,b.jsonl", "a:b.jsonl", "a:2.jsonl", ",a.jsonl", "a@b.jsonl", "a, b:c,d.jsonl",
         "a b.json"]  # fmt: skip
ROW = {"video": "v.mp4", "duration": 9, "query": "x", "span": [[1, 2]]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weight", [None, 0.5, 3])
def test_a_path_may_hold_commas_and_colons(name, weight, tmp_path):
    (tmp_path / "v.mp4").touch()
    path = tmp_path / name
    path.write_text(json.dumps([ROW]) if path.suffix == ".json" else json.dumps(ROW))
    item = str(path) if weight is None else f"{path}:{weight}"
    entries = parse_entries(f"qvhighlights@val:2, {item},tacos")
    assert [entry.name for entry in entries] == ["qvhighlights", str(path), "tacos"]
    assert [entry.weight for entry in entries] == [2, weight or 1, 1]
    assert len(load_part(entries[1]).annotations) == 1


def test_a_home_folder_in_quotes_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a,b.jsonl").write_text(json.dumps(ROW))
    names = [entry.name for entry in parse_entries("~/a,b.jsonl:2,tacos")]
    assert names == [f"{tmp_path}/a,b.jsonl", "tacos"]
    args = Namespace(pred_path="~/out", path=Path("~/in"), video="v~.mp4", question="a ~/b?", number=3)
    expand_homes(args)
    assert (args.pred_path, args.path) == (f"{tmp_path}/out", tmp_path / "in")
    assert (args.video, args.question, args.number) == ("v~.mp4", "a ~/b?", 3)
    assert labelled_paths(["a=~/x", "b=y"]) == {"a": tmp_path / "x", "b": Path("y")}
    monkeypatch.setenv("VIDEOMIND_CACHE", "~/kept")
    assert cache_folder() == tmp_path / "kept/annotations"


def test_a_training_takes_a_home_folder_and_refuses_a_dash_in_one_line(tmp_path, monkeypatch, workshop):
    monkeypatch.setenv("HOME", str(workshop))
    argv = ["--role", "grounder", "--datasets", "charades_sta", "--data_root", "~/data"]
    args = parse_arguments([*argv, "--model_name_or_path=~/base", "--output_dir", "~/out"])
    assert args.model.model_name_or_path == f"{workshop}/base" and args.data.data_root == f"{workshop}/data"
    assert args.training.output_dir == f"{workshop}/out"
    with pytest.raises(ValueError, match="^argument --output_dir.*: expected one argument [^\n]*$"):
        parse_arguments([*argv, "--model_name_or_path", "~/base", "--output_dir", "-x"])


def test_one_folder_of_roles_is_loaded_once_however_it_is_spelt(tmp_path, monkeypatch):
    (tmp_path / "agent").mkdir()
    (tmp_path / "link").symlink_to("agent")
    monkeypatch.chdir(tmp_path)
    spellings = ["agent", "agent/", "./agent", "link", str(tmp_path / "agent"), "link/../agent"]
    loads = []

    def load(folder, settings, roles):
        loads.append(folder)
        raise InterruptedError

    monkeypatch.setattr("videomind.model.assembly.load_model", load)
    monkeypatch.setattr("videomind.model.assembly._adapters_for", lambda folder, roles: roles)
    with pytest.raises(InterruptedError):
        load_roles(dict(zip("abcdef", spellings, strict=True)), None)
    assert loads == [Path("agent")]


def test_printed_commands_can_be_pasted(tmp_path):
    from videomind.quickstart.command import AFTER_CHAT, NEXT, NEXT_CURVES, NEXT_QUESTION, words
    from videomind.quickstart.settings import site_of

    folder = tmp_path / "it's a 'quick' $HOME start"
    named = words(site_of(folder, print)) | {"video": "v", "asked": "v", "ask": "chat"}
    for text in (NEXT, NEXT_CURVES, NEXT_QUESTION, AFTER_CHAT):
        lines = text.format(**named).replace("\\\n", "").splitlines()
        commands = [line for line in lines if "--" in line and not line.startswith(("Next", "  When"))]
        assert commands
        for command in commands:
            parts = shlex.split(command.partition("Curves:")[2] or command)
            inside = [part for part in parts if part.startswith(str(folder) + os.sep)]
            assert inside, command


@pytest.mark.parametrize("has_lock", [True, False])
def test_a_cache_that_somebody_else_prepared_is_read(tmp_path, monkeypatch, has_lock):
    """It cannot be written, nor locked; what is not in it is said with its folder."""
    monkeypatch.setenv("VIDEOMIND_CACHE", str(tmp_path / "cache"))
    (tmp_path / "v.mp4").touch()
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(ROW))
    first, other = (Entry(name=str(tmp_path / f"{name}.jsonl")) for name in "ab")
    (anno,) = load_part(first).annotations
    folder = tmp_path / "cache/annotations"
    (slot,) = folder.iterdir()
    lock = slot / "lock"
    lock.touch() if has_lock else lock.unlink(missing_ok=True)
    with ExitStack() as ends:
        for path, mode in ((lock, 0o444), (slot, 0o555), (folder, 0o555)):
            if path.exists():
                ends.enter_context(closed(path, mode))
        assert list(load_part(first).annotations) == [anno]
        with pytest.raises(ValueError, match=f"Cannot write the cache .* to {folder}/.*: Permission"):
            load_part(other)
