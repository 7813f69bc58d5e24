"""Which folders of an output folder are checkpoints of ours, and what happens to those that are not."""

import shutil
from pathlib import Path

import pytest

from videomind.files import write_json
from videomind.train import checkpoints
from videomind.train.checkpoints import (
    FILES,
    check_whole,
    complete_checkpoints,
    newest_checkpoint,
    remove_folder,
    remove_old,
    sizes_of,
)


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_the_newest_complete_one_is_found_and_half_written_ones_go(tmp_path):
    for step in (2, 10, 9):
        write(tmp_path / f"checkpoint-{step}", "started", "state/a.pt", "complete")
    write(tmp_path / "checkpoint-11", "started", "state/a.pt")
    (tmp_path / "checkpoint-12").mkdir()
    assert newest_checkpoint(tmp_path, remove_folder) == str(tmp_path / "checkpoint-10")
    assert [path.name for path in complete_checkpoints(tmp_path)] == [f"checkpoint-{n}" for n in (2, 9, 10)]
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{n}" for n in (2, 9, 10)}


def test_a_checkpoint_of_an_earlier_version_has_one_marker(tmp_path):
    write(tmp_path / "checkpoint-3", "model.bin", "complete")
    assert newest_checkpoint(tmp_path, remove_folder) == str(tmp_path / "checkpoint-3")


@pytest.mark.parametrize(
    "name", ["checkpoint-best", "checkpoint-", "checkpoint-3-old", "checkpoint-x1", "ours"]
)
@pytest.mark.parametrize("inside", [("notes.txt",), ("started", "complete", "model.bin"), ()])
def test_what_has_another_name_is_left_alone(tmp_path, name, inside):
    write(tmp_path / "checkpoint-2", "started", "complete")
    (tmp_path / name).mkdir()
    write(tmp_path / name, *inside)
    assert newest_checkpoint(tmp_path, remove_folder) == str(tmp_path / "checkpoint-2")
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == sorted(inside)


@pytest.mark.parametrize("inside", [("notes.txt",), ("model.safetensors", "trainer_state.json"), ("sub/a",)])
def test_what_others_made_is_an_error_and_stays(tmp_path, inside):
    folder = write(tmp_path / "checkpoint-500", *inside)
    with pytest.raises(ValueError, match="checkpoint-500 is called as a checkpoint .* move it away"):
        newest_checkpoint(tmp_path, remove_folder)
    assert all((folder / name).is_file() for name in inside)


def test_a_removal_that_is_killed_can_be_done_again(tmp_path, monkeypatch):
    folder = write(tmp_path / "checkpoint-4", "a", "b/c", "started", "complete")
    real = shutil.rmtree

    def killed(path, *args, **kwargs):
        if path == folder:
            raise KeyboardInterrupt
        real(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_folder(folder)
    monkeypatch.undo()
    assert [path.name for path in folder.iterdir()] == ["started"]
    assert newest_checkpoint(tmp_path, remove_folder) is None and not folder.exists()


@pytest.mark.parametrize("limit", [None, 0, 1, 2])
@pytest.mark.parametrize("is_first_of_node", [True, False])
def test_old_checkpoints_go_on_every_node(tmp_path, monkeypatch, limit, is_first_of_node):
    """A node with a folder of its own has the parts of its processes, marked as begun, never as complete."""
    for step in (2, 9, 10):
        write(tmp_path / f"first/checkpoint-{step}", "started", "state_0.pt", "complete")
        write(tmp_path / f"other/checkpoint-{step}", "started", "state_1.pt")
    write(tmp_path / "other/checkpoint-1", "notes.txt")
    kept = [f"checkpoint-{step}" for step in (2, 9, 10)[-limit if limit else 0 :]]
    told = []

    def from_first(decide):
        told.append(decide() if not told else told[0])
        return told[-1]

    monkeypatch.setattr(checkpoints, "from_first", from_first)
    for name, is_first in (("first", True), ("other", is_first_of_node)):
        remove_old(tmp_path / name, limit, remove_folder, is_first_of_node=is_first)
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(kept)
    left = {path.name for path in (tmp_path / "other").iterdir()} - {"checkpoint-1"}
    assert left == (set(kept) if is_first_of_node else {"checkpoint-2", "checkpoint-9", "checkpoint-10"})
    assert (tmp_path / "other/checkpoint-1/notes.txt").is_file()


HELD = ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "trainer_state.json", "sub/adapter.safetensors")


@pytest.fixture
def whole(tmp_path):
    """A checkpoint without DeepSpeed, as it was written."""
    for name in HELD:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    write_json(tmp_path / FILES, sizes_of(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_checkpoint_that_lacks_what_it_held_is_refused_by_name(whole, name, damage):
    check_whole(whole, uses_deepspeed=False)
    if damage == "gone":
        (whole / name).unlink()
    else:
        (whole / name).write_text(name[:-1])
    with pytest.raises(ValueError, match=f"is not what was written: {name} is gone"):
        check_whole(whole, uses_deepspeed=False)


def test_the_optimizers_state_must_be_of_the_runs_kind(whole):
    with pytest.raises(ValueError, match="written without DeepSpeed, and this run goes on with it"):
        check_whole(whole, uses_deepspeed=True)
    (whole / "latest").write_text("global_step3")
    with pytest.raises(ValueError, match="written with DeepSpeed, and this run goes on without it"):
        check_whole(whole, uses_deepspeed=False)
    (whole / FILES).unlink()  # as earlier versions wrote it
    check_whole(whole, uses_deepspeed=True)
