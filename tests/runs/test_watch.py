"""The machine's faults end a run before they are booked on samples."""

import errno
import os
import random
import shutil

import av
import pytest

from videomind.faults import RunError
from videomind.runs.watch import IN_A_ROW, REPEATED, MachineWatch, common_folder
from videomind.runs.workers import in_flight
from videomind.video.excerpts import BadVideoError


def wrapped(number: int) -> BadVideoError:
    """What a reader makes of the system's answer."""
    try:
        try:
            raise OSError(number, os.strerror(number), "v.mp4")
        except OSError as error:
            raise BadVideoError("v.mp4: cannot be opened") from error
    except BadVideoError as error:
        return error


KINDS = {
    "plain": lambda number: OSError(number, os.strerror(number)),
    "by a reader": wrapped,
    "by FFmpeg": lambda number: av.error.FFmpegError(number, os.strerror(number)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", sorted(REPEATED), ids=errno.errorcode.get)
def test_one_answer_of_the_system_for_sample_after_sample_ends_the_run(kind, number):
    watch = MachineWatch()
    for _ in range(IN_A_ROW - 1):
        watch.see(KINDS[kind](number))
        assert watch.has_doubts
    with pytest.raises(RunError, match=os.strerror(number)):
        watch.see(KINDS[kind](number))


@pytest.mark.parametrize("between", [None, ValueError("broken"), OSError(errno.ENOENT, "No such file")])
def test_samples_that_end_otherwise_between_them_end_nothing(between):
    watch = MachineWatch()
    for _ in range(4):
        for _ in range(IN_A_ROW - 1):
            watch.see(OSError(errno.EIO, "Input/output error"))
        watch.see(between)
        assert not watch.has_doubts


@pytest.mark.parametrize("error", [ValueError("broken"), FileNotFoundError(errno.ENOENT, "No such file")])
def test_samples_whose_own_data_are_bad_never_end_the_run(error, tmp_path):
    (tmp_path / "other.mp4").touch()
    watch = MachineWatch([tmp_path])
    for _ in range(10 * IN_A_ROW):
        watch.see(error)
        assert not watch.has_doubts


GOING = {
    "moved": lambda folder: folder.rename(folder.with_name("elsewhere")),
    "deleted": shutil.rmtree,
    "unmounted": lambda folder: [path.unlink() for path in folder.iterdir()],
    "a file instead": lambda folder: (shutil.rmtree(folder), folder.write_text("")),
}


@pytest.mark.parametrize("how", GOING)
@pytest.mark.parametrize("is_relative", [False, True])
def test_a_folder_that_goes_away_ends_the_run_at_the_first_sample(tmp_path, how, is_relative, monkeypatch):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "v.mp4").touch()
    monkeypatch.chdir(tmp_path)
    watch = MachineWatch(["videos" if is_relative else folder, None, tmp_path / "never there"])
    watch.see(FileNotFoundError(errno.ENOENT, "No such file"))
    GOING[how](folder)
    watch.see(None)
    with pytest.raises(RunError, match=f"The folder {folder} has gone, or is empty now: why"):
        watch.see(BadVideoError("why"))


def test_what_may_be_the_machines_fault_waits_until_a_sample_tells():
    """In any order of good, bad and doubtful samples all come out, in theirs; a run of doubt does not."""

    def steps(index):
        yield index
        return index

    def prepare(index):
        if kinds[index] is not None:
            raise kinds[index]

    rng = random.Random(0)
    for _ in range(20):
        choices = [None, ValueError("bad"), OSError(errno.EIO, "doubtful")]
        kinds = rng.choices(choices, weights=[1, 1, 3], k=40)
        doubtful = "".join("x" if isinstance(kind, OSError) else " " for kind in kinds)
        expected = doubtful.find("x" * IN_A_ROW)
        seen = []
        try:
            for index, outcome in in_flight(iter(range(40)), steps, prepare, num_threads=0):
                seen.append(index)
                assert (outcome is kinds[index]) if kinds[index] is not None else outcome == index
        except RunError:
            assert seen == list(range(expected))
        else:
            assert expected == -1 and seen == list(range(40))


def test_the_folder_of_all_files(tmp_path):
    paths = [tmp_path / "a/1.mp4", tmp_path / "a/b/2.mp4", tmp_path / "a/c/3.mp4"]
    assert common_folder(map(str, paths)) == str(tmp_path / "a")
    assert common_folder([[str(paths[1]), "elsewhere"], None]) == str(tmp_path / "a/b")
    assert common_folder(["x.mp4"]) == os.getcwd() and common_folder([]) is None
