"""What is wrong with a file, or is no video: refused by name, or said beside what was read."""

import os
import shutil
import socket
from dataclasses import replace

import av
import numpy as np
import pytest
from helpers.videos import damage, number_of, numbered, write_video
from PIL import Image

from videomind.roles import VisualBudget, VisualUnits
from videomind.video.excerpts import BadVideoError, read_excerpt, video_duration
from videomind.video.images import read_image
from videomind.video.reader import refuse_damage
from videomind.video.readers import open_reader
from videomind.video.request import Excerpt, ImageList

BUDGET = VisualBudget(
    min_tokens=1,
    max_tokens=16,
    max_frames=150,
    fps=1.0,
    units=VisualUnits(token_side=28, frames_per_step=2),
)


@pytest.mark.parametrize(
    "name", ["12:30:05.mp4", "pipe:0", "concat:a|b", "x%d.mp4", "é.mp4", os.fsdecode(b"caf\xe9.mp4")]
)
def test_a_name_is_a_name(tmp_path, monkeypatch, name):
    """No protocol, no pattern; relative as well."""
    shutil.copy(write_video(tmp_path / "v.mp4"), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with open_reader(name, "pyav") as reader:
        assert [number_of(frame) for frame in reader.get_frames([0, 40])[0]] == [0, 40]


@pytest.mark.parametrize("name", ["x%d.png", "x%03d.jpg", "x*.png", "x?.bmp", "[x].png", "x1.png"])
def test_a_picture_is_itself_whatever_others_its_name_matches(tmp_path, name):
    for other, grey in (("x1.png", 0), ("x2.png", 20), ("x001.jpg", 40), ("x002.jpg", 60), (name, 200)):
        Image.new("RGB", (56, 56), (grey,) * 3).save(tmp_path / other)
    with open_reader(str(tmp_path / name), "pyav") as reader:
        assert reader.total_frames == 1
        assert abs(reader.get_frames([0])[0][0].float().mean() - 200) < 3


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path, kind):
    path = str(tmp_path / "v.mp4")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(path)
    else:
        path = "/dev/null"
    with pytest.raises(BadVideoError, match="no regular file"):
        open_reader(path)
    with pytest.raises(BadVideoError, match="no regular file"):
        read_excerpt(Excerpt(path=[path, path], budget=BUDGET))


@pytest.mark.parametrize("suffix", ["txt", "mp4", "mkv", "nfo", "ans", "srt", "GIF", ""])
@pytest.mark.parametrize(
    "text", ["a line\n", "ffconcat version 1.0\nfile w.mp4\n", "#EXTM3U\n#EXTINF:1,\nw.mp4\n"]
)
def test_text_is_no_video(tmp_path, monkeypatch, suffix, text):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "w.mp4", 8)
    path = tmp_path / f"v.{suffix}"
    path.write_text(text * (200 if "w.mp4" not in text else 1))
    with pytest.raises(BadVideoError, match=path.name):
        open_reader(path, "pyav")


@pytest.mark.parametrize("change", ["cut", "replaced", "gone"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, change):
    path = tmp_path / "v.mp4"
    write_video(path)
    other = write_video(tmp_path / "w.mp4", picture=lambda i: numbered(47 - i))
    with open_reader(path, "pyav") as reader:
        if change == "cut":
            path.write_bytes(path.read_bytes()[:3000])
        elif change == "replaced":
            os.replace(other, path)
        else:
            path.unlink()
        with pytest.raises(BadVideoError, match=r"v\.mp4"):
            reader.get_frames([0, 40])


def test_damage_is_skipped_on_request(tmp_path):
    path = write_video(tmp_path / "v.mp4", 60, options={"g": "1"})
    damage(path, 3)
    problems = read_excerpt(Excerpt(path=path, budget=BUDGET, num_frames=20)).problems
    refuse_damage(problems, "use")
    refuse_damage([], "skip")
    with pytest.raises(BadVideoError, match="--on_damage skip"):
        refuse_damage(problems, "skip")


def test_times_that_do_not_go_with_the_file_are_said(tmp_path):
    path = write_video(tmp_path / "v.mp4", 60)  # 2 s
    (behind,) = read_excerpt(Excerpt(path=path, budget=BUDGET, start_s=5, end_s=7, num_frames=4)).problems
    assert "begins at 5.0 s, behind the video's end at 2.0 s" in behind
    (stated,) = read_excerpt(Excerpt(path=path, budget=BUDGET, stated_s=3.2, num_frames=4)).problems
    assert "3.20 s by its annotation, the file has 2.00 s" in stated
    assert read_excerpt(Excerpt(path=path, budget=BUDGET, stated_s=2.05, num_frames=4)).problems == []


@pytest.fixture
def images(tmp_path) -> list[str]:
    for i in range(40):
        Image.fromarray(numbered(i)).save(tmp_path / f"{i}.png")
    return [str(tmp_path / f"{i}.png") for i in range(40)]


def test_excerpts_and_budgets_apply_to_images_with_a_rate(images):
    listed = ImageList(images, fps=4.0)
    assert video_duration(listed) == 10.0
    result = read_excerpt(Excerpt(path=listed, budget=BUDGET, start_s=2.0, end_s=6.0))
    assert (result.fps, result.total_frames) == (4.0, 40)
    assert result.indices == [8, 13, 19, 24]
    assert [number_of(frame.permute(1, 2, 0)) for frame in result.frames] == result.indices


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"start_s": 12.0, "end_s": 14.0}, "begins at 12.0 s, behind the video's end at 10.0 s"),
        ({"start_s": 8.0, "end_s": 30.0}, "ends at 30.0 s, far behind the video's end at 10.0 s"),
        ({"stated_s": 12.0}, "12.00 s by its annotation, the file has 10.00 s"),
        ({"stated_s": 10.2}, None),
        ({"start_s": 2.0, "end_s": 10.1}, None),
    ],
)
def test_times_that_do_not_go_with_a_list_of_images_are_said(images, asked, said):
    excerpt = Excerpt(path=ImageList(images, fps=4.0), budget=BUDGET, num_frames=4, **asked)
    problems = read_excerpt(excerpt).problems
    assert [said in problem for problem in problems] == ([] if said is None else [True])
    assert read_excerpt(replace(excerpt, path=images)).problems == []  # has no times


def test_a_moving_webp_is_read_or_refused_with_the_reason(tmp_path):
    """FFmpeg decodes none of its pictures before version 9, which PyAV 19 brings."""
    pictures = [Image.fromarray(numbered(i)) for i in range(4)]
    pictures[0].save(tmp_path / "moving.webp", save_all=True, append_images=pictures[1:])
    if int(av.__version__.split(".")[0]) >= 19:
        with open_reader(tmp_path / "moving.webp") as reader:
            assert [number_of(frame) for frame in reader.get_frames(range(4))[0]] == [0, 1, 2, 3]
        return
    with pytest.raises(BadVideoError, match=r"moving.webp: no picture of it can be decoded"):
        open_reader(tmp_path / "moving.webp")


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_of_images_is_a_number_above_0(fps):
    with pytest.raises(ValueError, match="expected images per second above 0"):
        ImageList(["a.png"], fps=fps)


def test_images_of_other_kinds(tmp_path):
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp * 256 + 200).save(tmp_path / "grey16.png")
    Image.fromarray((ramp / 255).astype(np.float32)).save(tmp_path / "float.tiff")
    for name in ("grey16.png", "float.tiff"):
        np.testing.assert_array_equal(np.asarray(read_image(str(tmp_path / name)))[..., 0], ramp)
    Image.fromarray((ramp * 3.0).astype(np.float32)).save(tmp_path / "wide.tiff")
    with pytest.raises(ValueError, match="floats from 0 to 765"):
        read_image(str(tmp_path / "wide.tiff"))
    turned = Image.fromarray(numbered(5))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned to the right
    turned.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(str(tmp_path / "turned.png")), np.rot90(numbered(5), -1))
