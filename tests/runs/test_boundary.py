"""Whose fault an error is, and what a sample's boundary makes of it.

Covers `faults.py`.
"""

import errno
import os
import pickle
import struct
import subprocess
import sys
import traceback
import weakref

import av
import pytest
import torch
from helpers.runs import REPO, environment
from helpers.videos import numbered, write_video
from PIL import Image

from videomind.encoding.encoder import BadSampleError
from videomind.faults import RunError, ends_run
from videomind.roles import BudgetOverride, VisualBudget
from videomind.runs.boundary import Boundary, Fault
from videomind.video.excerpts import BadVideoError
from videomind.video.readers import choose_reader

SAMPLES = [
    BadVideoError("v.mp4: broken"),
    BadSampleError("too long"),
    Image.DecompressionBombError("too many pixels"),
    av.error.InvalidDataError(errno.EINVAL, "invalid data"),
    av.error.FFmpegError(errno.EPERM, "not permitted"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    FileNotFoundError(errno.ENOENT, "No such file"),
    PermissionError(errno.EACCES, "Permission denied"),
    OSError(errno.EIO, "Input/output error"),
    struct.error("unpack requires 4 bytes"),
    KeyError("x"), IndexError("i"), ZeroDivisionError("z"), AttributeError("a"), AssertionError(),
    TypeError("t"), SyntaxError("not a TIFF"), EOFError(), NotImplementedError("a codec"),
    RuntimeError("shape '[2]' is invalid"), RecursionError("too deep"), OverflowError("too large"),
    pickle.UnpicklingError("bad"),
]  # fmt: skip
MACHINES = [
    MemoryError(),
    *(OSError(number, os.strerror(number)) for number in (
        errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTCONN,
        errno.ESTALE,
    )),
    av.error.FFmpegError(errno.EMFILE, "Too many open files"),
    av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("can't start new thread"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    RuntimeError("Could not open input file: v.mp4 Too many open files"),
    RuntimeError("CUDA error: device-side assert triggered"),
    torch.AcceleratorError("CUDA error: unspecified launch failure", 1),
    torch.OutOfMemoryError("CUDA out of memory"),
    torch.distributed.DistNetworkError("connection reset"),
    ModuleNotFoundError("No module named 'decord'"),
    RunError("unknown reader"),
    KeyboardInterrupt(),
    SystemExit(1),
]  # fmt: skip


def name_of(error: BaseException) -> str:
    return f"{type(error).__name__}-{getattr(error, 'errno', '')}"


@pytest.mark.parametrize("error", SAMPLES, ids=name_of)
def test_what_a_sample_causes_ends_that_sample(error):
    with Boundary() as sample:
        raise error
    assert sample.error is error and not ends_run(error)
    fault = sample.fault
    assert fault.kind.endswith(type(error).__name__) and fault.reason
    assert "test_boundary.py" in fault.raised_at and "(test_what_a_sample_causes" in fault.raised_at


@pytest.mark.parametrize("error", MACHINES, ids=name_of)
def test_what_is_the_machines_ends_the_run(error):
    with pytest.raises(type(error)), Boundary():
        raise error


@pytest.mark.parametrize("chained", ["cause", "context", "hidden"])
def test_what_an_error_came_from_counts(chained):
    """A reader that cannot open one more file says that the video cannot be opened."""

    def read():
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError as error:
            if chained == "cause":
                raise BadVideoError("v.mp4: cannot be opened") from error
            if chained == "hidden":
                raise BadVideoError("v.mp4: cannot be opened") from None
            raise BadVideoError("v.mp4: cannot be opened")  # noqa: B904  (that is what is tested)

    with pytest.raises(BadVideoError), Boundary():
        read()


def test_a_block_without_an_error_has_no_fault():
    with Boundary() as sample:
        value = 1
    assert value == 1 and sample.error is None and sample.fault is None


def test_what_is_too_large_for_the_device_can_be_the_samples():
    with Boundary(torch.OutOfMemoryError) as sample:
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert "CUDA out of memory" in sample.fault.reason
    with pytest.raises(MemoryError), Boundary(torch.OutOfMemoryError):
        raise MemoryError


def test_errors_of_our_own_speak_for_themselves_others_are_told_with_their_place():
    assert str(Fault.of(BadVideoError("v.mp4: broken"))) == "v.mp4: broken"
    with Boundary() as sample:
        struct.unpack("I", b"")
    assert str(sample.fault).startswith("struct.error at test_boundary.py:")
    assert str(sample.fault).endswith("): unpack requires a buffer of 4 bytes")


def test_the_place_is_within_the_package_where_the_error_passed_through_it():
    with Boundary() as sample:
        BudgetOverride(fps=1.0).applied(None)
    assert sample.fault.raised_at.startswith("videomind/roles.py:")
    assert sample.fault.raised_at.endswith("(applied)")
    assert str(sample.fault).startswith("TypeError at videomind/roles.py:")


def test_options_that_mean_nothing_end_the_run(monkeypatch):
    """They would end every sample."""
    with pytest.raises(RunError, match="Unknown video reader"), Boundary():
        choose_reader("opencv")
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(RunError, match="cannot be loaded"), Boundary():
        choose_reader("decord")
    budget = VisualBudget(min_tokens=1, max_tokens=2, max_frames=4, fps=1.0)
    with pytest.raises(RunError, match="visual budget"), Boundary():
        BudgetOverride(min_tokens=3).applied(budget)


NO_HANDLES = """
import resource, sys
from videomind.backbones.registry import get_backbone
from videomind.runs.boundary import Boundary
from videomind.video.excerpts import read_excerpt
from videomind.video.request import Excerpt
from videomind.roles import get_role

budget = get_role("grounder").budget.on(get_backbone("qwen2_vl").units)
excerpt = Excerpt(path=sys.argv[1:] if len(sys.argv) > 2 else sys.argv[1], budget=budget)
read_excerpt(excerpt)  # all libraries are loaded
import os
open_files = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (open_files - 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    with Boundary() as sample:
        read_excerpt(excerpt)
except Exception as error:
    print("the run ends:", type(error).__name__)
else:
    print("the sample ends:", sample.fault)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["video", "images", "gif"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_no_file_handle_left_is_not_the_videos_fault(tmp_path, kind):
    if kind == "video":
        paths = [write_video(tmp_path / "v.mp4", 8)]
    elif kind == "gif":
        pictures = [Image.fromarray(numbered(i)) for i in range(8)]
        pictures[0].save(tmp_path / "v.gif", save_all=True, append_images=pictures[1:])
        paths = [str(tmp_path / "v.gif")]
    else:
        paths = [str(tmp_path / f"{i}.png") for i in range(4)]
        for i, path in enumerate(paths):
            Image.fromarray(numbered(i)).save(path)
    run = subprocess.run(
        [sys.executable, "-c", NO_HANDLES, *paths],
        cwd=REPO,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert run.stdout.startswith("the run ends:"), run.stdout + run.stderr


class Large:
    """Stands for what a sample holds on the device."""


@pytest.mark.parametrize("is_chained", [False, True])
def test_what_a_failed_sample_held_is_let_go(is_chained):
    """Else one sample that was too large causes the next failure; the traceback's lines stay."""
    alive: list[weakref.ref] = []

    def run():
        large = Large()
        alive.append(weakref.ref(large))
        try:
            raise ValueError("no such shape") if is_chained else torch.OutOfMemoryError("too large")
        except (ValueError, torch.OutOfMemoryError) as error:
            if is_chained:
                raise RuntimeError("later") from error
            raise

    with Boundary(torch.OutOfMemoryError) as sample:
        run()
    assert sample.error is not None and alive[0]() is None
    assert "in run" in "".join(traceback.format_exception(sample.error))
    assert "(run)" in sample.fault.raised_at
