"""Decoding: the right pictures by number, from every reader, and few more pictures than needed.

Covers `video/`.
"""

import pickle
import random
import shutil
import sys
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from helpers.goldens import golden_ids
from helpers.videos import (
    HEIGHT,
    INSTALLED,
    REAL,
    SHIPPED,
    WIDTH,
    damage,
    number_of,
    numbered,
    packets,
    write_video,
)
from PIL import Image

from videomind.video import readers as video_readers
from videomind.video.packets import PacketTable
from videomind.video.readers import (
    READER_VARIABLE,
    READERS,
    BadVideoError,
    GifReader,
    choose_reader,
    open_reader,
)


def numbers(reader, indices) -> list[int]:
    return [number_of(frame) for frame in reader.get_frames(indices)[0]]


VARIANTS = {
    "mp4": ("v.mp4", {}),
    "no B-frames": ("v.mp4", {"options": {"g": "12", "bf": "0"}}),
    "one group": ("v.mp4", {"options": {"g": "250", "x264-params": "bframes=3:b-adapt=0"}}),
    "keys only": ("v.mp4", {"options": {"g": "1"}}),
    "open groups": (
        "v.mp4",
        {"options": {"x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0"}},
    ),
    "gradual refresh": ("v.mp4", {"options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}}),
    "fragmented": ("v.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "no count in the header": ("v.mkv", {}),
    "open groups, mkv": (
        "v.mkv",
        {"options": {"x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0"}},
    ),
    "transport stream": ("v.ts", {}),
    "flash": ("v.flv", {}),
    "program stream": ("v.mpg", {"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "b": "2M"}}),
    "no presentation times": ("v.avi", {}),
    "avi": ("v.avi", {"codec": "mpeg4", "options": {"g": "12", "b": "2M"}}),
    "no times at all": ("v.h264", {}),
    "every picture on its own": ("v.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {}}),
    "HEVC": (
        "v.mp4",
        {"codec": "libx265", "options": {"x265-params": "log-level=error:keyint=12:open-gop=1:bframes=3"}},
    ),
    "VP9": ("v.webm", {"codec": "libvpx-vp9", "options": {"g": "12", "b": "1M", "cpu-used": "8"}}),
    "AV1": (
        "v.mp4",
        {"codec": "libsvtav1", "options": {"preset": "12", "g": "12", "svtav1-params": "lookahead=0"}},
    ),
    "10 bit": ("v.mp4", {"pix_fmt": "yuv420p10le"}),
    "odd size": ("v.mp4", {"pix_fmt": "yuv444p", "picture": lambda i: numbered(i, (65, 131))}),
    "variable rate": ("v.mp4", {"times": [i * i // 3 + i for i in range(48)]}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pyav_finds_each_frame(tmp_path, variant):
    name, how = VARIANTS[variant]
    path = write_video(tmp_path / name, **how)
    with open_reader(path, "pyav") as reader:
        assert reader.total_frames == 48
        assert numbers(reader, range(48)) == list(range(48))
        assert [numbers(reader, [i])[0] for i in reversed(range(0, 48, 5))] == list(reversed(range(0, 48, 5)))
        rng = random.Random(1)
        for count in (2, 3, 5, 12):
            wanted = rng.choices(range(48), k=count)  # any order, with repeats
            assert numbers(reader, wanted) == wanted
        assert reader.get_frames(range(48))[1] == []


@pytest.mark.parametrize("name", INSTALLED)
def test_all_readers_agree(tmp_path, name):
    path = write_video(tmp_path / "v.mp4")
    with open_reader(path, name) as reader, open_reader(path, "pyav") as other:
        assert (reader.total_frames, reader.fps) == (48, 30.0)
        for wanted in (range(48), [47], [0, 20, 20, 41], [30, 7]):
            frames, problems = reader.get_frames(wanted)
            assert frames.dtype == torch.uint8 and frames.shape == (len(wanted), HEIGHT, WIDTH, 3)
            assert torch.equal(frames, other.get_frames(wanted)[0]) and problems == []


def test_only_the_groups_with_wanted_frames_are_decoded(tmp_path):
    path = write_video(tmp_path / "v.mp4", 96, options={"g": "12", "bf": "0", "sc_threshold": "0"})
    for wanted, most in (([5], 6), ([95], 12), ([3, 5, 90], 6 + 12), ([12, 24], 2), (range(96), 96)):
        with open_reader(path, "pyav") as reader:
            assert numbers(reader, wanted) == list(wanted)
            assert 0 < reader.decoded_frames <= most


def test_pictures_that_no_other_needs_are_not_decoded(tmp_path):
    options = {"g": "96", "sc_threshold": "0", "x264-params": "bframes=3:b-adapt=0:b-pyramid=0"}
    path = write_video(tmp_path / "v.mp4", 96, options=options)
    with open_reader(path, "pyav") as reader:
        assert numbers(reader, [2, 50, 95]) == [2, 50, 95]
        assert reader.decoded_frames <= 96 // 4 + 5


def test_a_transform_sees_each_frame_once(tmp_path):
    seen = []

    def halve(frame):
        seen.append(number_of(frame))
        return frame[::2, ::2]

    with open_reader(write_video(tmp_path / "v.mp4"), "pyav") as reader:
        frames, _ = reader.get_frames([4, 9, 4, 30], transform=halve)
    assert frames.shape == (4, HEIGHT // 2, WIDTH // 2, 3)
    assert sorted(seen) == [4, 9, 30]


@pytest.mark.parametrize("wanted", [[-1], [48], []])
def test_frames_outside_the_video(tmp_path, wanted):
    with (
        open_reader(write_video(tmp_path / "v.mp4"), "pyav") as reader,
        pytest.raises(ValueError, match="48 frames"),
    ):
        reader.get_frames(wanted)


def test_the_best_stream_is_read_not_the_first(tmp_path):
    path = str(tmp_path / "v.mp4")
    with av.open(path, "w") as container:
        streams = [container.add_stream("libx264", rate=rate) for rate in (10, 30)]
        for stream, size in zip(streams, ((32, 64), (HEIGHT, WIDTH)), strict=True):
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
        streams[1].disposition = av.stream.Disposition.default
        for i in range(20):
            for stream in streams:
                picture = numbered(i, (stream.height, stream.width))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    with open_reader(path, "pyav") as reader:
        assert reader.fps == 30
        assert numbers(reader, range(20)) == list(range(20))
        assert reader.get_frames([0])[0].shape == (1, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_in_the_metadata_is_applied(tmp_path, name, rotation):
    path = write_video(tmp_path / "v.mp4", 3, rotation=rotation)
    with open_reader(path, name) as reader:
        frame = reader.get_frames([2])[0][0]
    assert number_of(torch.rot90(frame, -rotation // 90)) == 2


def flat_colour(rgb):
    return lambda number: np.full((HEIGHT, WIDTH, 3), rgb, np.uint8)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("rgb", [(200, 40, 90), (16, 240, 128), (255, 255, 255), (0, 0, 0)])
def test_colours(tmp_path, pix_fmt, rgb):
    path = write_video(tmp_path / "v.mp4", 4, pix_fmt=pix_fmt, picture=flat_colour(rgb))
    with open_reader(path, "pyav") as reader:
        frames, _ = reader.get_frames([0, 3])
    assert (frames.int() - torch.tensor(rgb)).abs().max() <= 3


def test_interlaced_frames_are_converted_as_progressive_ones(tmp_path):
    """As decord and torchcodec do, so as the published checkpoints have seen them."""
    options = {"g": "12", "flags": "+ildct+ilme", "x264-params": "interlaced=1"}
    path = write_video(tmp_path / "v.mp4", 4, options=options)
    with av.open(path) as container:
        frames = list(container.decode(video=0))
        assert all(frame.interlaced_frame for frame in frames)
        unmarked = [av.VideoFrame.from_ndarray(f.to_ndarray(), format=f.format.name) for f in frames]
        marked = torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in frames]))
        expected = torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in unmarked]))
    assert not torch.equal(marked, expected)
    for name in INSTALLED:
        with open_reader(path, name) as reader:
            assert torch.equal(reader.get_frames(range(4))[0], expected)


def test_frames_cut_off_by_an_edit_list_do_not_count(tmp_path):
    source, path = write_video(tmp_path / "all.mp4"), str(tmp_path / "v.mp4")
    with av.open(source) as old, av.open(path, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        shift = round(6 / 30 / old.streams.video[0].time_base)
        for packet in old.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                new.mux(packet)
    assert len(packets(path)) == 48
    with open_reader(path, "pyav") as reader:
        assert reader.total_frames == 42
        assert numbers(reader, range(42)) == list(range(6, 48))
        assert numbers(reader, [0, 41]) == [6, 47]


def test_a_change_of_size_within_a_file_gives_frames_of_one_size(tmp_path):
    first, second = tmp_path / "a.h264", tmp_path / "b.h264"
    write_video(first, 10)
    write_video(second, 10, picture=lambda i: numbered(i + 10, (2 * HEIGHT, 2 * WIDTH)))
    path = tmp_path / "v.h264"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with open_reader(path, "pyav") as reader:
        assert numbers(reader, range(20)) == list(range(20))
        assert reader.get_frames([0, 15])[0].shape == (2, HEIGHT, WIDTH, 3)


def test_the_nearest_frame_stands_in_for_an_undecodable_one(tmp_path):
    path = write_video(tmp_path / "v.mp4", options={"g": "1"})
    damage(path, 20)
    with open_reader(path, "pyav") as reader:
        frames, problems = reader.get_frames(range(0, 48, 4))  # one of 12
        assert [number_of(f) for f in frames] == [19 if i == 20 else i for i in range(0, 48, 4)]
        assert len(problems) == 1 and path in problems[0] and "19 for 20" in problems[0]
        assert numbers(reader, [16, 24]) == [16, 24]
        assert reader.get_frames([16, 24])[1] == []
        with pytest.raises(BadVideoError, match=r"1 of the 9 wanted frames .* more than 10%"):
            reader.get_frames(range(14, 23))


def test_concealed_frames_are_reported(tmp_path):
    path = write_video(tmp_path / "v.mp4", options={"g": "48", "bf": "0"})
    place, size = packets(path)[30]
    data = bytearray(Path(path).read_bytes())
    data[place + 30 : place + 38] = b"\xa5" * 8
    Path(path).write_bytes(data)
    with open_reader(path, "pyav") as reader:
        assert reader.get_frames(range(10))[1] == []
        frames, problems = reader.get_frames(range(48))
    assert len(frames) == 48
    assert problems == [
        f"{path}: damaged frames, painted over by the decoder: [30]",
        f"{path}: frames that may show the damage of frames before them: {list(range(31, 47))} and 1 more",
    ]


@pytest.mark.parametrize("name", [n for n in INSTALLED if n != "pyav"])
def test_other_readers_report_what_they_cannot_decode(tmp_path, name):
    path = write_video(tmp_path / "v.mp4", options={"g": "1"})
    damage(path, 20)
    with open_reader(path, name) as reader:
        try:
            problems = reader.get_frames(range(48))[1]
        except BadVideoError as error:
            problems = [str(error)]
    assert len(problems) == 1 and path in problems[0] and "\n" not in problems[0]


def test_a_cut_off_file_keeps_its_length(tmp_path):
    path = write_video(tmp_path / "v.mp4", container_options={"movflags": "faststart"})
    place = packets(path)[36][0]
    Path(path).write_bytes(Path(path).read_bytes()[:place])
    with open_reader(path, "pyav") as reader:
        assert reader.total_frames == 48
        frames, problems = reader.get_frames(range(0, 30))
        assert [number_of(f) for f in frames] == list(range(30))
        assert "36 of its 48 frames" in problems[0]
        with pytest.raises(BadVideoError, match="12 of the 48 wanted"):
            reader.get_frames(range(48))


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def headless(path: Path) -> None:
    write_video(path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: path.write_text("not a video\n" * 500), "cannot be opened|not a video"),
        (headless, "cannot be opened|not a video"),
        (audio_only, "no video stream|cannot be opened"),
    ],
)
def test_unusable_files_give_one_clear_line(tmp_path, name, make, reason):
    path = tmp_path / "v.mp4"
    make(path)
    with pytest.raises(BadVideoError, match=reason) as caught:
        open_reader(path, name)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_title_need_not_be_unicode(tmp_path):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE-IN-LATIN"
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for i in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(i), format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"TITLE-IN-LATIN", "café à la carte"[:14].encode("latin-1")))
    if int(av.__version__.split(".")[0]) < 19:
        with pytest.raises(UnicodeDecodeError):
            av.open(str(path))
    with open_reader(path, "pyav") as reader:
        assert numbers(reader, range(4)) == list(range(4))


@pytest.mark.parametrize(
    "error", [av.error.InvalidDataError(22, "bad"), av.error.MemoryError(12, "no memory")]
)
def test_a_frame_that_cannot_be_converted_is_one_that_cannot_be_decoded(tmp_path, error):
    """Unless it is the machine's fault; then the error goes on."""
    path = write_video(tmp_path / "v.mp4")

    class Reformatter:
        def __init__(self, real):
            self.real, self.calls = real, 0

        def reformat(self, *args, **kwargs):
            self.calls += 1
            if self.calls == 5:
                raise error
            return self.real.reformat(*args, **kwargs)

    with open_reader(path, "pyav") as reader:
        converter = reader._converter
        converter.reformatter = Reformatter(converter.reformatter)
        if isinstance(error, MemoryError):
            with pytest.raises(MemoryError):
                reader.get_frames(range(48))
            return
        frames, problems = reader.get_frames(range(48))
        stood_in = [i for i in range(48) if number_of(frames[i]) != i]
        assert len(stood_in) <= 1 and len(problems) == len(stood_in)
        assert not problems or f"frame {stood_in[0]}: it cannot be converted (bad)" in problems[0]


def test_a_cover_picture_is_no_video(tmp_path):
    path = str(tmp_path / "song.mp4")
    with av.open(path, "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(0, (32, 32)), format="rgb24")))
        container.mux(cover.encode(None))
    with pytest.raises(BadVideoError, match="no video stream"):
        open_reader(path, "pyav")


def test_the_error_survives_the_way_from_a_loader_worker():
    """`torch` raises a worker's error anew, from its type and a text."""
    error = pickle.loads(pickle.dumps(BadVideoError("v.mp4: no such file")))
    assert isinstance(error, ValueError) and str(error) == "v.mp4: no such file"


def test_choice_of_the_reader(monkeypatch, tmp_path):
    monkeypatch.delenv(READER_VARIABLE, raising=False)
    assert choose_reader() is video_readers.PyAVReader
    assert choose_reader("pyav") is video_readers.PyAVReader
    for name in INSTALLED:
        monkeypatch.setenv(READER_VARIABLE, name)
        assert choose_reader() is READERS[name]
        assert choose_reader("pyav") is video_readers.PyAVReader
    monkeypatch.setenv(READER_VARIABLE, "pyva")
    with pytest.raises(ValueError, match=rf"'pyva' \({READER_VARIABLE}\).*decord, pyav, torchcodec.*'pyav'"):
        open_reader(write_video(tmp_path / "v.mp4", 2))
    with pytest.raises(ValueError, match=r"'opencv' \(reader\)"):
        choose_reader("opencv")


@pytest.mark.parametrize("name", ["decord", "torchcodec"])
def test_a_reader_that_is_not_installed(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # what Python does for a module that is not there
    with pytest.raises(ValueError) as caught:
        choose_reader(name)
    assert f"videomind[{name}]" in str(caught.value) and "pyav, decord, torchcodec" in str(caught.value)


def test_torchcodec_without_ffmpeg(monkeypatch):
    """It can be imported all the same, and would then refuse every video."""
    monkeypatch.setitem(sys.modules, "torchcodec", SimpleNamespace(ffmpeg_major_version=None))
    with pytest.raises(ValueError, match="install FFmpeg"):
        choose_reader("torchcodec")


@pytest.fixture
def gif(tmp_path) -> str:
    pictures = [Image.fromarray(numbered(i)) for i in range(9)]
    pictures[0].save(tmp_path / "v.GIF", save_all=True, append_images=pictures[1:], duration=40)
    return str(tmp_path / "v.GIF")


def test_gif(gif):
    with open_reader(gif, gif_fps=2.0) as reader:
        assert isinstance(reader, GifReader)
        assert (reader.total_frames, reader.fps) == (9, 2.0)
        assert numbers(reader, [8, 0, 3, 3]) == [8, 0, 3, 3]


def test_pictures_too_large_to_be_honest(gif, monkeypatch):
    """PIL refuses them with an error that is no OSError."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadVideoError, match=r"v\.GIF: .*could be decompression bomb DOS attack"):
        open_reader(gif)


def test_a_broken_gif(gif):
    Path(gif).write_bytes(b"GIF89a\x01\x02\x03")
    with pytest.raises(BadVideoError, match="v.GIF"):
        open_reader(gif)


@pytest.mark.golden
@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("case_id", golden_ids("videos"))
def test_golden_videos(golden, case_id, name):
    case = golden.case("videos", case_id)
    path, expected = golden.root / "videos" / case["inputs"], case["outputs"]
    if path.is_dir():
        assert len(list(path.iterdir())) == expected["num_frames"]
        return
    with open_reader(path, name) as reader:
        assert reader.total_frames == expected["num_frames"]
        if "avg_fps" in expected:
            assert reader.fps == pytest.approx(expected["avg_fps"], abs=1e-6)
            last = reader.total_frames - 1
            frames, problems = reader.get_frames([0, reader.total_frames // 2, last])
            assert frames.shape[1:] == (expected["height"], expected["width"], 3)
            means = frames.double().mean((1, 2)).tolist()
            assert means == [
                pytest.approx(expected["frame_mean_rgb"][at], abs=1.0) for at in ("first", "middle", "last")
            ]
            assert problems == []


def first_frames(path: str, name: str):
    with open_reader(path, name) as reader:
        return reader.get_frames(range(min(50, reader.total_frames)))


first_by_pyav = lru_cache(maxsize=1)(partial(first_frames, name="pyav"))


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("file", sorted(REAL.iterdir()), ids=lambda path: path.name)
def test_real_videos(file, name):
    """Each is read, the same by all readers, or reported in one line."""
    path = str(file)
    expected, problems = first_by_pyav(path)
    try:
        frames, found = first_frames(path, name)
    except BadVideoError as error:
        assert path in str(error) and "\n" not in str(error)
        assert problems  # what one reader refuses is not intact for the other
        return
    assert bool(found) == bool(problems)
    if not problems:
        assert torch.equal(frames, expected)


@pytest.mark.parametrize(
    ("file", "shape", "fps"),
    [
        ("nasa_13013.mp4", (390, 270, 480, 3), 30000 / 1001),  # its first stream: 180 x 320 at 25
        ("rotated_90.mov", (3, 568, 320, 3), 30),
        ("corrupted.mp4", (50, 720, 1280, 3), 10),
    ],
)
def test_known_real_videos(file, shape, fps):
    with open_reader(SHIPPED / file, "pyav") as reader:
        frames, problems = reader.get_frames(range(reader.total_frames))
        assert (frames.shape, reader.fps) == (shape, pytest.approx(fps))
    assert bool(problems) == (file == "corrupted.mp4")


def test_what_was_found_out_of_a_file_is_kept_until_it_changes(tmp_path, monkeypatch):
    """Every role of a chain opens the same video; what is wrong with it is said each time."""
    read, paths = PacketTable.read, []
    monkeypatch.setattr(
        PacketTable, "read", lambda *args, **how: paths.append(how["codec"]) or read(*args, **how)
    )
    path = write_video(tmp_path / "v.mkv")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(Path(path).read_bytes()[:-4000])
    said = []
    for _ in range(2):
        with open_reader(cut, "pyav") as reader:
            frames, problems = reader.get_frames([0, 5])
            said.append((reader.total_frames, [number_of(frame) for frame in frames], problems))
    assert said[0] == said[1] and said[0][1] == [0, 5] and said[0][2]
    assert len(paths) == 1
    shutil.copyfile(path, cut)
    with open_reader(cut, "pyav") as reader:
        assert reader.total_frames == 48 and reader.get_frames([47])[1] == []
    assert len(paths) == 2
