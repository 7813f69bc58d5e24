"""Scenes to H.264 files: a textured background that pans, grey distractors, and the events in colour."""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from videomind.runs.cores import usable_cores
from videomind.synthetic.phrases import COLOURS, FLOORS
from videomind.synthetic.scenes import Event, Scene

_KEYFRAME_EVERY_S = 10  # lets a reader seek
_FLOOR_FROM = 0.6  # of the height
_REACH = 1.3  # radii: no point of a shape lies farther from its centre, however it is turned


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a smooth, nearly grey tile that wraps around.

    Returns:
        (height, width, 3) float32, in 70..185.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    tile = np.zeros((height, width), np.float32)
    for _ in range(6):
        waves_y, waves_x = rng.integers(-3, 4, 2)
        tile += np.sin(2 * np.pi * (y * waves_y / height + x * waves_x / width + rng.random()))
    grey = np.clip(128 + tile * rng.uniform(8, 16), 78, 177)
    return grey[..., None] + rng.uniform(-8, 8, 3).astype(np.float32)


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mask a shape of radius 1 about the origin.

    Args:
        shape: its name.
        x: (H, W), in radii.
        y: (H, W), in radii.
    """
    if shape == "ball":
        return x * x + y * y < 1
    if shape == "box":
        return np.maximum(abs(x), abs(y)) < 0.9
    if shape == "triangle":
        return (y < 0.75) & (y > 1.7 * abs(x) - 1)
    if shape == "ring":
        radius = x * x + y * y
        return (radius < 1.1) & (radius > 0.16)
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) < 0.42) & (np.maximum(abs(x), abs(y)) < 1)
    raise ValueError(f"Unknown shape {shape!r} in a scene. Allowed: ball, box, triangle, ring, cross.")


def _pose(action: str, time_s: float, phase: float) -> tuple[float, float, float, float]:
    """Place a moving object: x and y in -1..1 of its room, scale, angle in rad."""
    swing = math.sin(1.3 * time_s + phase)
    x, y, scale, angle = 0.7 * math.cos(phase), 0.7 * math.sin(phase), 1.0, 0.0
    if action == "slide":
        x = swing
    elif action == "bounce":
        y = 1 - 2 * abs(swing)
    elif action == "spin":
        angle = 2.5 * time_s
    elif action == "shake":
        x += 0.25 * math.sin(11 * time_s)
    elif action == "grow":
        scale = 0.95 + 0.2 * swing
    return x, y, scale, angle


class _Painter:
    """Draws the frames of one scene."""

    def __init__(self, scene: Scene):
        rng = np.random.default_rng(scene.seed)
        self.scene = scene
        self.texture = _texture(rng, scene.height, scene.width).astype(np.uint8)
        self.pan = rng.uniform(-6, 6, 2)  # px per s
        self.y = np.arange(scene.height, dtype=np.float32)[:, None]
        self.x = np.arange(scene.width, dtype=np.float32)
        self.side = min(scene.height, scene.width)
        self.phases = rng.uniform(0, 2 * math.pi, len(scene.events))
        self.radii = rng.uniform(0.27, 0.34, len(scene.events)) * self.side  # px
        self.tints = [np.clip(COLOURS[e.colour] + rng.integers(-5, 6, 3), 0, 255) for e in scene.events]
        self.distractors = [
            (
                rng.choice(["ball", "box"]),
                rng.choice(["slide", "bounce"]),
                *rng.uniform(0, 6, 2),
                rng.integers(2),
            )
            for _ in range(rng.integers(1, 4))
        ]

    def _draw(
        self, frame: np.ndarray, shape: str, pose: tuple[float, float, float, float], *, radius: float, rgb
    ) -> None:
        """Paint one object into a frame.

        Args:
            frame: (H, W, 3), changed in place.
            shape: its name.
            pose: of `_pose`.
            radius: px.
            rgb: three values 0-255.
        """
        x, y, scale, angle = pose
        height, width = frame.shape[:2]
        center_x = width / 2 + x * (width / 2 - radius)
        center_y = height / 2 + y * (height / 2 - radius)
        # Only the part of the frame that the object can touch is looked at.
        reach = _REACH * radius * scale
        rows = slice(max(0, math.floor(center_y - reach)), max(0, math.ceil(center_y + reach) + 1))
        columns = slice(max(0, math.floor(center_x - reach)), max(0, math.ceil(center_x + reach) + 1))
        dx, dy = (
            (self.x[columns] - center_x) / (radius * scale),
            (self.y[rows] - center_y) / (radius * scale),
        )
        cos, sin = math.cos(angle), math.sin(angle)
        frame[rows, columns][_inside(shape, cos * dx + sin * dy, cos * dy - sin * dx)] = rgb

    def _event_at(self, time_s: float) -> tuple[int, Event] | None:
        """Find the event visible at a time, with its number."""
        for i, event in enumerate(self.scene.events):
            if any(start <= time_s < end for start, end in event.spans):
                return i, event
        return None

    def frame(self, index: int) -> np.ndarray:
        """Draw a frame.

        Returns:
            (height, width, 3) uint8, RGB.
        """
        time_s = float(index / self.scene.rate)
        shift = np.round(self.pan * time_s).astype(int)
        frame = np.roll(self.texture, tuple(shift), axis=(0, 1))
        for shape, action, phase, speed, light in self.distractors:
            pose = _pose(action, time_s * (0.3 + speed / 6), phase)
            self._draw(frame, shape, pose, radius=0.09 * self.side, rgb=(185,) * 3 if light else (75,) * 3)
        if visible := self._event_at(time_s):
            i, event = visible
            pose = _pose(event.action, time_s, self.phases[i])
            if event.floor is not None:
                frame[round(_FLOOR_FROM * len(frame)) :] = FLOORS[event.floor]
            self._draw(frame, event.shape, pose, radius=self.radii[i], rgb=self.tints[i])
        return frame


def render_scene(scene: Scene, path: Path) -> None:
    """Render one scene to an mp4 file. The same scene gives the same frames."""
    painter = _Painter(scene)
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "23", "tune": "fastdecode", "bf": "0"}
        stream = container.add_stream("libx264", rate=scene.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        stream.codec_context.gop_size = round(_KEYFRAME_EVERY_S * scene.rate)
        stream.thread_count = 1
        converter = av.video.reformatter.VideoReformatter()
        for index in range(scene.num_frames):
            frame = av.VideoFrame.from_ndarray(painter.frame(index), format="rgb24")
            # Left to itself, PyAV starts threads for the conversion of each frame.
            yuv = converter.reformat(frame, format=stream.pix_fmt, threads=1)
            yuv.pts = index
            container.mux(stream.encode(yuv))
        container.mux(stream.encode())


def _render_job(job: tuple[Scene, Path]) -> None:
    render_scene(*job)


@contextmanager
def renderers(workers: int | None = None) -> Iterator[ProcessPoolExecutor | None]:
    """Keep rendering processes for several calls of `render_all`; they start when there is something to do.

    Args:
        workers: processes; None: one per core, at most 8; 1: within this process.
    """
    workers = min(8, usable_cores()) if workers is None else workers
    if workers <= 1:
        yield None
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool


def render_all(
    scenes: Iterable[Scene], folder: Path, *, pool: ProcessPoolExecutor | None = None, name: str = "videos"
) -> None:
    """Render scenes to `folder/{vid}.mp4`.

    Args:
        scenes: one per file.
        folder: that is there already.
        pool: of `renderers`; None: within this process.
        name: of what is rendered, for progress.
    """
    jobs = [(scene, folder / f"{scene.vid}.mp4") for scene in scenes]
    jobs.sort(key=lambda job: -job[0].num_frames)  # short ones last: all processes end at the same time
    with tqdm(total=len(jobs), desc=f"render {name}", unit="video") as progress:
        for _ in map(_render_job, jobs) if pool is None else pool.map(_render_job, jobs):
            progress.update()
