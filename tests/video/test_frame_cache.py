"""Frames kept on disk are those that decoding gives, and never those of anything else."""

import errno
import logging
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.videos import INSTALLED, damage, numbered, write_video
from PIL import Image

from videomind.roles import VisualBudget, VisualUnits
from videomind.video import excerpts
from videomind.video.excerpts import BadVideoError, Frames, read_excerpt
from videomind.video.frame_cache import GB, MARKER, FrameCache
from videomind.video.readers import READER_VARIABLE
from videomind.video.request import Excerpt, ImageList

BUDGET = VisualBudget(
    min_tokens=1, max_tokens=16, max_frames=8, fps=4.0, units=VisualUnits(token_side=28, frames_per_step=2)
)


@pytest.fixture
def video(tmp_path) -> str:
    return write_video(tmp_path / "numbered.mp4")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Paths of the videos that were opened, in order."""
    paths, own = [], excerpts.open_reader

    def opened(path, *args, **kwargs):
        paths.append(path)
        return own(path, *args, **kwargs)

    monkeypatch.setattr(excerpts, "open_reader", opened)
    return paths


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.npz"))


def assert_same(found: Frames, expected: Frames) -> None:
    assert found.frames.dtype == torch.uint8 and found.frames.is_contiguous()
    assert torch.equal(found.frames, expected.frames)
    other = {name: value for name, value in vars(expected).items() if name != "frames"}
    assert {name: value for name, value in vars(found).items() if name != "frames"} == other
    assert [type(getattr(found, name)) for name in other] == [type(value) for value in other.values()]


def kept_twice(cache: FrameCache, excerpt: Excerpt) -> None:
    """The first and the second time it is what decoding gives."""
    expected = read_excerpt(excerpt)
    assert_same(cache.read(excerpt), expected)
    assert_same(cache.read(excerpt), expected)


@pytest.mark.parametrize("reader", INSTALLED)
def test_every_reader(reader, video, folder, decoded, monkeypatch):
    monkeypatch.setenv(READER_VARIABLE, reader)
    kept_twice(FrameCache(folder, max_gb=1), Excerpt(path=video, budget=BUDGET))
    assert len(decoded) == 2  # without the cache, and the first time with it


def test_kinds_of_videos(tmp_path, folder):
    cache, pictures = FrameCache(folder, max_gb=1), [Image.fromarray(numbered(i)) for i in range(6)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:])
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(6)]
    kinds = [str(tmp_path / "a.gif"), paths, paths[:4], ImageList(paths, fps=2.0), ImageList(paths, fps=4.0)]
    for path in kinds:
        kept_twice(cache, Excerpt(path=path, budget=BUDGET))
    assert len(files(folder)) == len(kinds)


def variants(excerpt: Excerpt) -> list[Excerpt]:
    """Excerpts that differ in one thing each."""
    budgets = [
        replace(BUDGET, max_tokens=4), replace(BUDGET, min_tokens=15), replace(BUDGET, max_frames=6),
        replace(BUDGET, fps=3.0), replace(BUDGET, min_frames=6),
        BUDGET.on(VisualUnits(token_side=32, frames_per_step=2)),
        BUDGET.on(VisualUnits(token_side=28, frames_per_step=4)),
    ]  # fmt: skip
    spans = [(0.25, None), (None, 1.0), (0.25, 1.0), (0.25, 1.0000001)]
    return [
        excerpt,
        *(replace(excerpt, budget=budget) for budget in budgets),
        *(replace(excerpt, start_s=start, end_s=end) for start, end in spans),
        replace(excerpt, num_frames=4),
        replace(excerpt, stated_s=40.0),
    ]


def test_whatever_differs_is_kept_apart(video, folder, decoded, tmp_path):
    cache = FrameCache(folder, max_gb=1)
    copy = Excerpt(path=shutil.copy2(video, tmp_path / "copy.mp4"), budget=BUDGET)
    all_of_them = [*variants(Excerpt(path=video, budget=BUDGET)), copy]
    random.Random(0).shuffle(all_of_them)
    expected = [read_excerpt(excerpt) for excerpt in all_of_them]
    decoded.clear()
    for _ in range(2):
        for excerpt, frames in zip(all_of_them, expected, strict=True):
            assert_same(cache.read(excerpt), frames)
    assert len(decoded) == len(files(folder)) == len(all_of_them)
    # A later run finds them, too.
    assert_same(FrameCache(folder, max_gb=1).read(copy), expected[all_of_them.index(copy)])
    assert len(decoded) == len(all_of_them)


@pytest.mark.parametrize("change", ["content", "time", "whole file"])
def test_a_changed_file_is_read_again(video, folder, change):
    other = write_video(video + ".other.mp4", picture=lambda i: numbered(i + 100))
    size = max(os.path.getsize(path) for path in (video, other))
    for path in (video, other):
        os.truncate(path, size)  # zeros behind the end change nothing of a video
    cache, excerpt, before = FrameCache(folder, max_gb=1), Excerpt(path=video, budget=BUDGET), os.stat(video)
    old = cache.read(excerpt)
    if change == "content":
        shutil.copyfile(other, video)
    elif change == "time":
        os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    else:  # another one of the same size and time
        os.replace(other, video)
        os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
    kept_twice(cache, excerpt)
    assert torch.equal(cache.read(excerpt).frames, old.frames) == (change == "time")
    assert len(files(folder)) == 2


def test_an_image_that_was_missing_is_seen_when_it_is_there(tmp_path, folder):
    paths = [str(tmp_path / f"{i}.png") for i in range(12)]
    for i, path in enumerate(paths):
        Image.fromarray(numbered(i)).save(path)
    os.rename(paths[5], tmp_path / "away.png")
    cache, excerpt = FrameCache(folder, max_gb=1), Excerpt(path=paths, budget=BUDGET)
    kept_twice(cache, excerpt)
    assert cache.read(excerpt).problems
    os.rename(tmp_path / "away.png", paths[5])
    kept_twice(cache, excerpt)
    assert not cache.read(excerpt).problems


def test_other_code_or_libraries_make_other_frames(video, folder, decoded, monkeypatch):
    excerpt = Excerpt(path=video, budget=BUDGET)
    FrameCache(folder, max_gb=1).read(excerpt)
    for names in (("code", "0"), ("digest", "1")):
        monkeypatch.setattr("videomind.video.frame_cache._makers", lambda reader, names=names: names)
        FrameCache(folder, max_gb=1).read(excerpt)
    assert len(decoded) == len(files(folder)) == 3


def test_a_damaged_video_is_kept_with_its_problems(tmp_path, folder, decoded):
    path = write_video(tmp_path / "damaged.mp4", count=96)
    damage(path, 30)
    excerpt = Excerpt(path=path, budget=replace(BUDGET, fps=30.0, max_frames=96))
    cache = FrameCache(folder, max_gb=1)
    assert read_excerpt(excerpt).problems
    kept_twice(cache, excerpt)
    assert len(decoded) == 3


def test_a_refused_video_is_not_kept(tmp_path, folder):
    cache, path = FrameCache(folder, max_gb=1), tmp_path / "bad.mp4"
    for content in (None, b"", b"no video" * 100):
        if content is not None:
            path.write_bytes(content)
        for _ in range(2):
            with pytest.raises(BadVideoError, match=r"bad\.mp4"):
                cache.read(Excerpt(path=str(path), budget=BUDGET))
    assert files(folder) == []


def test_a_file_replaced_before_it_is_opened_is_not_kept(video, folder, monkeypatch):
    cache, own = FrameCache(folder, max_gb=1), excerpts.open_reader

    def replaced(path, *args, **kwargs):
        os.utime(path, (1, 1))  # readers notice what happens later
        return own(path, *args, **kwargs)

    monkeypatch.setattr(excerpts, "open_reader", replaced)
    cache.read(Excerpt(path=video, budget=BUDGET))
    assert files(folder) == []


def damages(data: bytes) -> list[bytes]:
    """Cut short, emptied, bits and blocks changed all over the file."""
    rng = random.Random(len(data))
    cut = [data[:n] for n in (0, 1, 30, len(data) // 2, len(data) - 1)]
    places = [*range(160), *range(len(data) - 160, len(data)), *rng.sample(range(len(data)), 60)]
    flipped = [data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1 :] for i in places]
    zeroed = [data[: i // 512 * 512] + bytes(512) + data[i // 512 * 512 + 512 :] for i in places[::8]]
    return [*cut, *flipped, *zeroed, data + b"more", data * 2, b"{}" * 300]


def test_damaged_files_are_never_trusted(video, folder, decoded):
    excerpt = Excerpt(path=video, budget=replace(BUDGET, max_tokens=2, max_frames=4))
    cache, expected = FrameCache(folder, max_gb=1), read_excerpt(excerpt)
    cache.read(excerpt)
    (path,) = files(folder)
    whole = path.read_bytes()
    for content in damages(whole):
        path.write_bytes(content)
        assert_same(cache.read(excerpt), expected)
    assert len(decoded) > 300  # few of the changes do not matter
    path.write_bytes(whole[: len(whole) // 2])
    cache.read(excerpt)
    assert path.read_bytes() == whole


def test_a_file_under_a_wrong_name_is_not_trusted(video, folder):
    cache, excerpt = FrameCache(folder, max_gb=1), Excerpt(path=video, budget=BUDGET)
    other = replace(excerpt, start_s=0.5)
    cache.read(excerpt)
    (first,) = files(folder)
    cache.read(other)
    (second,) = set(files(folder)) - {first}
    shutil.copy(first, second)
    assert_same(cache.read(other), read_excerpt(other))


def starts(video: str, count: int) -> list[Excerpt]:
    return [Excerpt(path=video, budget=BUDGET, start_s=i / 100) for i in range(count)]


def size_of_one(video: str, folder: Path) -> int:
    FrameCache(folder / "one", max_gb=1).read(starts(video, 1)[0])
    return files(folder / "one")[0].stat().st_size


def aged(folder: Path) -> None:
    """All files an hour older, so that what is used from now on is newer."""
    for path in files(folder):
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 3_600 * 10**9))


def test_what_was_used_longest_ago_goes_first(video, folder, tmp_path, decoded):
    size, asked = size_of_one(video, tmp_path), starts(video, 5)
    cache = FrameCache(folder, max_gb=3.5 * size / GB)
    for excerpt in asked[:3]:
        cache.read(excerpt)
        aged(folder)
    cache.read(asked[0])  # used again: now the second is the oldest
    cache.read(asked[3])
    decoded.clear()
    for excerpt in (asked[0], asked[2], asked[3]):
        cache.read(excerpt)
    assert decoded == [] and len(files(folder)) == 3
    cache.read(asked[1])
    assert decoded == [video]


def test_another_bound_holds_from_the_next_file_on(video, folder, tmp_path):
    size, asked = size_of_one(video, tmp_path), starts(video, 8)
    for excerpt in asked[:6]:
        FrameCache(folder, max_gb=1).read(excerpt)
    assert len(files(folder)) == 6
    FrameCache(folder, max_gb=2.5 * size / GB).read(asked[6])
    assert len(files(folder)) == 2
    FrameCache(folder, max_gb=0.5 * size / GB).read(asked[7])  # larger than the bound: not kept at all
    assert len(files(folder)) == 2
    for excerpt in asked:
        FrameCache(folder, max_gb=1).read(excerpt)
    assert len(files(folder)) == 8


def test_only_what_the_cache_made_is_removed(video, folder, tmp_path):
    cache = FrameCache(folder, max_gb=1)
    cache.read(starts(video, 1)[0])
    (own,) = files(folder)
    outside = tmp_path / "outside.npz"
    outside.write_bytes(b"x" * 5000)
    strangers = [
        folder / "notes.txt",
        own.parent / "notes.npz",
        folder / "more" / own.name,
        folder / own.name,
    ]
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 5000)
    link = own.with_name("0" * 64 + ".frames.npz")
    link.symlink_to(outside)
    fresh, old = (own.with_name(f".{own.name}.{digits}.tmp") for digits in ("00aa", "00bb"))
    for path in (fresh, old, *strangers):
        path.touch()
    for path in (old, own, *strangers):
        os.utime(path, (1, 1))
    FrameCache(folder, max_gb=1e-6 + own.stat().st_size / GB).read(starts(video, 2)[1])
    assert not own.exists() and not old.exists()
    newest = set(files(folder)) - {link, *strangers}
    assert len(newest) == 1
    assert all(path.exists() for path in (outside, link, fresh, *strangers))


@pytest.mark.parametrize("content", ["notes.txt", "ab"])
def test_a_folder_of_other_things_is_refused(folder, content):
    folder.mkdir()
    (folder / content).touch()
    with pytest.raises(ValueError, match=f"--cache_frames .*{content}"):
        FrameCache(folder, max_gb=1)
    assert os.listdir(folder) == [content]


@pytest.mark.parametrize("bound", [0, -1, float("nan")])
def test_a_bound_that_means_nothing_is_refused(folder, bound):
    with pytest.raises(ValueError, match=f"--cache_frames_gb must be above 0, not {bound}"):
        FrameCache(folder, max_gb=bound)


def messages(caplog) -> list[str]:
    return [text for text in map(logging.LogRecord.getMessage, caplog.records) if "No more frames" in text]


def test_a_full_disk_is_said_once_and_what_is_there_is_used(video, folder, decoded, caplog):
    """The system's bound on a file's size stands in for the disk's."""
    cache, asked = FrameCache(folder, max_gb=1), starts(video, 4)
    cache.read(asked[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        found = [cache.read(excerpt) for excerpt in asked]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert decoded == [video] * 4  # the first one was there
    for frames, excerpt in zip(found, asked, strict=True):
        assert_same(frames, read_excerpt(excerpt))
    assert len(messages(caplog)) == 1 and os.strerror(errno.EFBIG) in messages(caplog)[0]
    assert len(files(folder)) == 1 and not list(folder.glob("*/.*"))


@pytest.fixture
def readable():
    """A folder that another user may enter, for tests that root would pass otherwise."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def read_as_nobody(folder: Path, asked: list[Excerpt], answers) -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)
    cache = FrameCache(folder, max_gb=1)
    answers.put([(frames.frames.numpy(), cache._can_write) for frames in map(cache.read, asked)])


def test_a_folder_that_can_only_be_read_serves(readable):
    video, folder = write_video(readable / "numbered.mp4"), readable / "kept"
    asked = starts(video, 2)
    FrameCache(folder, max_gb=1).read(asked[0])
    (own,) = files(folder)
    for path in (folder, own.parent):
        path.chmod(0o555)
    before = own.stat()
    context = multiprocessing.get_context("fork" if os.geteuid() == 0 else "spawn")
    answers = context.Queue()
    process = context.Process(target=read_as_nobody, args=(folder, asked, answers))
    process.start()
    found = answers.get(timeout=60)
    process.join()
    for (pixels, can_write), excerpt in zip(found, asked, strict=True):
        assert torch.equal(torch.from_numpy(pixels), read_excerpt(excerpt).frames) and not can_write
    after = own.stat()  # its last access is no matter
    assert files(folder) == [own] and (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    for path in (folder, own.parent):
        path.chmod(0o755)


def test_a_folder_that_cannot_be_made_is_said_once(video, tmp_path, caplog):
    (tmp_path / "file").touch()
    cache = FrameCache(tmp_path / "file" / "kept", max_gb=1)
    for excerpt in starts(video, 2):
        assert_same(cache.read(excerpt), read_excerpt(excerpt))
    assert len(messages(caplog)) == 1


def test_a_folder_that_is_gone_is_not_made_again(video, folder, caplog):
    """A disk that is no longer mounted would leave its files on another."""
    cache = FrameCache(folder, max_gb=1)
    shutil.rmtree(folder)
    for excerpt in starts(video, 2):
        assert_same(cache.read(excerpt), read_excerpt(excerpt))
    assert not folder.exists() and len(messages(caplog)) == 1


def read_in_turns(folder: Path, video: str, number: int, max_gb: float, answers) -> None:
    """A process that reads the same excerpts in an order of its own, again and again."""
    torch.set_num_threads(1)
    cache, rng = FrameCache(folder, max_gb=max_gb), random.Random(number)
    for _ in range(4):
        for i in rng.sample(range(6), 6):
            frames = cache.read(starts(video, 6)[i])
            answers.put((i, int(frames.frames.long().sum()), cache._can_write))


@pytest.mark.slow
def test_processes_share_a_folder(video, folder, tmp_path):
    """With a bound so small that they remove each other's files all the time."""
    max_gb, sums = 2.5 * size_of_one(video, tmp_path) / GB, {}
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [
        context.Process(target=read_in_turns, args=(folder, video, number, max_gb, answers))
        for number in range(2)
    ]
    for process in processes:
        process.start()
    for _ in range(2 * 4 * 6):
        number, total, can_write = answers.get(timeout=120)
        assert sums.setdefault(number, total) == total and can_write
    for process in processes:
        process.join()
        assert process.exitcode == 0
    expected = {
        i: int(read_excerpt(excerpt).frames.long().sum()) for i, excerpt in enumerate(starts(video, 6))
    }
    assert sums == expected
    assert len(files(folder)) <= 3 and (folder / MARKER).is_file()
    assert not list(folder.glob("*/.*"))
