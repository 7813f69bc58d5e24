"""Rendered files show what the annotations say, when they say it.

Covers `synthetic/scenes.py`.
"""

import random

import av
import numpy as np

from videomind.synthetic import render
from videomind.synthetic.phrases import COLOURS, SHAPES
from videomind.synthetic.render import render_all, render_scene, renderers
from videomind.synthetic.scenes import charades_scene, qvhighlights_scene

VISIBLE, ABSENT = 0.02, 0.004  # shares of the frame
MARGIN_S = 0.5


def read(path, every=1):
    """Every so-and-so-many-th frame of a file (N, H, W, 3), how many it has, its rate and codec."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames, count = [], 0
        for count, frame in enumerate(container.decode(stream), 1):
            if (count - 1) % every == 0:
                frames.append(frame.to_ndarray(format="rgb24"))
        return np.stack(frames), count, stream.average_rate, stream.codec_context.name


def share(frame, colour):
    """Share of a frame's pixels that have a colour."""
    distance = np.abs(frame.astype(int) - COLOURS[colour]).max(axis=-1)
    return (distance < 40).mean()


def check(scene, path):
    render_scene(scene, path)
    every = round(scene.rate)  # about a frame per second
    frames, count, rate, codec = read(path, every)
    assert (count, rate, codec) == (scene.num_frames, scene.rate, "h264")
    assert frames.shape[1:] == (scene.height, scene.width, 3)
    for event in scene.events:
        for i, frame in enumerate(frames):
            time_s = i * every / rate
            inside = any(s + MARGIN_S < time_s < e - MARGIN_S for s, e in event.spans)
            outside = all(not s - MARGIN_S < time_s < e + MARGIN_S for s, e in event.spans)
            seen = share(frame, event.colour)
            assert not inside or seen > VISIBLE, (event, time_s, seen)
            assert not outside or seen < ABSENT, (event, time_s, seen)


def test_colours_are_seen_when_annotated_and_only_then(tmp_path):
    rng = random.Random(5)
    for plan, indices in (
        (charades_scene, (0, 1, 2)),
        (qvhighlights_scene, (0, 3)),
    ):  # 3, 25, 29.97, 3, 3 fps
        for index in indices:
            check(plan(rng, index), tmp_path / f"{plan.__name__}{index}.mp4")


def test_every_colour_differs_from_the_background(tmp_path):
    scenes = [charades_scene(random.Random(seed), 0) for seed in range(4)]
    for scene in scenes:
        render_scene(scene, tmp_path / "v.mp4")
        frames = read(tmp_path / "v.mp4", every=9)[0]
        used = {event.colour for event in scene.events}
        for colour in set(COLOURS) - used:
            assert max(share(frame, colour) for frame in frames) < ABSENT


def test_the_same_scene_gives_the_same_frames(tmp_path):
    scene = charades_scene(random.Random(1), 0)
    render_scene(scene, tmp_path / "a.mp4")
    render_scene(scene, tmp_path / "b.mp4")
    assert np.array_equal(read(tmp_path / "a.mp4")[0], read(tmp_path / "b.mp4")[0])


def test_the_pool_renders_what_one_process_does(tmp_path):
    scenes = [charades_scene(random.Random(seed), 0) for seed in range(2)]
    for name, workers in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        with renderers(workers) as pool:
            render_all(scenes, tmp_path / name, pool=pool)
    for scene in scenes:
        one, two = (read(tmp_path / name / f"{scene.vid}.mp4")[0] for name in ("one", "two"))
        assert np.array_equal(one, two)


def test_no_shape_reaches_out_of_the_part_that_is_drawn():
    y, x = np.mgrid[-2:2:401j, -2:2:401j]
    for shape in SHAPES:
        assert np.hypot(x, y)[render._inside(shape, x, y)].max() < render._REACH
