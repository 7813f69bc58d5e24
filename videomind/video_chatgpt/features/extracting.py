"""Makes the features of a folder of videos, shared among processes; threads decode ahead of the tower."""

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from videomind.device import default_dtype, detect, prepare_process, torch_device
from videomind.faults import RunError, is_out_of_memory
from videomind.files import write_json
from videomind.logger import rank, world_size
from videomind.runs.boundary import Fault
from videomind.runs.watch import MachineWatch, common_folder
from videomind.runs.workers import in_flight, shared_order, start_processes
from videomind.video_chatgpt.features.clip import ClipTower, TowerShape, tower_config
from videomind.video_chatgpt.features.frames import read_frames
from videomind.video_chatgpt.features.store import read_features, storable, write_features

log = logging.getLogger(__name__)

REPORT = "failed_videos.json"
VIDEO_EXTENSIONS = frozenset(
    (".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
     ".vob", ".webm", ".wmv")
)  # fmt: skip
NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Job:
    """A video and the file that its features go to."""

    video: Path
    output: Path


@dataclass(frozen=True, kw_only=True)
class FailedVideo:
    """A video that has no features, and why; a row of the report."""

    video: str
    reason: str


def find_videos(folder: Path) -> list[Path]:
    """Find the video files of a folder, by name; other files are named in a notice.

    Raises:
        ValueError: the folder is not there or holds none.
    """
    if not folder.is_dir():
        raise ValueError(f"No folder of videos {folder} (--video_dir_path)")
    with os.scandir(folder) as entries:
        is_video = {
            entry.name: os.path.splitext(entry.name)[1].lower() in VIDEO_EXTENSIONS and entry.is_file()
            for entry in entries
            if not entry.name.startswith(".")
        }
    if others := sorted(name for name in is_video if not is_video[name]):
        log.info("%s: %d entries are no video files: %s", folder, len(others), _some(others))
    if not any(is_video.values()):
        raise ValueError(f"{folder} holds no video ({', '.join(sorted(VIDEO_EXTENSIONS))})")
    return [folder / name for name in sorted(is_video) if is_video[name]]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")


def output_names(videos: Sequence[Path]) -> dict[Path, str]:
    """Name the features' files, without extension.

    As documented: a video's name up to its first dot. Where several videos share that, each keeps all but
    its extension (`a.x` and `a.y`), which is what training data calls them (`<video id>.pkl`).
    """
    shared = Counter(video.name.split(".")[0] for video in videos)
    return {v: v.stem if shared[v.name.split(".")[0]] > 1 else v.name.split(".")[0] for v in videos}


def assign_outputs(
    videos: Sequence[Path], folder: Path, extension: str
) -> tuple[list[Job], list[FailedVideo]]:
    """Say where each video's features go, and which videos cannot have a file of their own.

    Args:
        videos: of one folder.
        folder: of the features.
        extension: of their files.
    """
    names = output_names(videos)
    taken = Counter(names.values())
    if dotted := [v.name for v in videos if names[v] == v.stem != v.name.split(".")[0]]:
        log.warning("%d videos share their name up to the first dot and keep all of it: %s",
                    len(dotted), _some(dotted))  # fmt: skip
    jobs = [Job(video=v, output=folder / f"{n}{extension}") for v, n in names.items() if taken[n] == 1]
    clashes = [
        FailedVideo(video=str(v), reason=f"{taken[n]} videos would have their features in {n}{extension}")
        for v, n in names.items()
        if taken[n] > 1
    ]
    return jobs, clashes


def is_done(job: Job, shape: tuple[int, int]) -> bool:
    """Tell whether a video has its features; a file that cannot be read is made anew, with a warning.

    Args:
        job: the video and its file.
        shape: of the tower's features.

    Raises:
        ValueError: they are of another shape.
    """
    if not job.output.is_file():
        return False
    try:
        stored = read_features(job.output).shape
    except ValueError as error:
        log.warning("%s. It is made anew.", error)
        return False
    if stored != shape:
        raise ValueError(
            f"{job.output} holds features {stored}, this tower gives {shape}. Choose another "
            "--clip_feat_path, or delete it."
        )
    return True


def pending_jobs(jobs: Sequence[Job], shape: tuple[int, int], *, num_workers: int) -> list[Job]:
    """Find the jobs without a valid file, in order; several processes look at a share each."""
    share = jobs[rank() :: world_size()]
    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        done = pool.map(lambda job: is_done(job, shape), share)
        done = list(tqdm(done, total=len(share), desc="look for features", disable=rank() != 0, delay=2))
    missing = [job for job, ready in zip(share, done, strict=True) if not ready]
    every = {job for part in _gather(missing) for job in part}
    return [job for job in jobs if job in every]


def _gather(value: list) -> list[list]:
    """Share a list of each process with all of them."""
    if not dist.is_initialized():
        return [value]
    lists = [None] * dist.get_world_size()
    dist.all_gather_object(lists, value)
    return lists


def extract(
    jobs: Sequence[Job], load: Callable[[], ClipTower], *, size: int, num_workers: int
) -> list[FailedVideo]:
    """Make the features of this process's share of the jobs.

    Args:
        jobs: of all processes.
        load: gives the tower; it is called when the first video is decoded.
        size: pixels of a side of its input.
        num_workers: threads that decode ahead.

    Returns:
        What failed.

    Raises:
        ValueError: the device's memory is too small.
    """

    def tower() -> ClipTower:
        try:
            return load()
        except (ValueError, OSError) as error:  # of no video in particular
            raise RunError(str(error)) from error

    def decode(job: Job) -> tuple[Tensor, list[str]]:
        return read_frames(job.video, size=size)

    def steps(index: int) -> Generator[Job, tuple[Tensor, list[str]], np.ndarray]:
        frames, problems = yield jobs[index]
        for problem in problems:
            log.warning("%s", problem)
        return storable(tower().features(frames), jobs[index].output)

    failures = []
    order = shared_order(len(jobs))
    watch = MachineWatch([common_folder(str(job.video) for job in jobs)])
    ended = in_flight(order, steps, decode, num_threads=num_workers, watch=watch)
    try:
        for index, outcome in tqdm(ended, total=len(jobs), unit="video", disable=rank() != 0):
            if isinstance(outcome, Exception):
                video = str(jobs[index].video)
                failures.append(
                    FailedVideo(video=video, reason=str(Fault.of(outcome)).removeprefix(f"{video}: "))
                )
                tell(failures[-1])
            else:  # here, as a file that cannot be written is not the video's fault
                write_features(jobs[index].output, outcome)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(f"Too little memory on the device; try a smaller --infer_batch ({reason})") from None
    return failures


def tell(failure: FailedVideo) -> None:
    """Say that a video failed: the documented line, and the reason in the log."""
    with tqdm.external_write_mode():
        sys.stdout.write(f"Can't process {failure.video}\n")
        sys.stdout.flush()
        log.warning("Can't process %s: %s", failure.video, failure.reason)


def extract_folder(args: argparse.Namespace, name: str) -> None:
    """Extract what the command line names.

    Args:
        args: of the command line.
        name: of the tower.

    Raises:
        ValueError: a folder or a tower that cannot be used.
    """
    prepare_process(detect())
    start_processes()
    device, folder = torch_device(args.device), Path(args.clip_feat_path)
    dtype = default_dtype(device.type) if args.dtype == "auto" else getattr(torch, args.dtype)
    shape = TowerShape.of(tower_config(name))
    jobs, clashes = assign_outputs(find_videos(Path(args.video_dir_path)), folder, f".{args.format}")
    pending = pending_jobs(jobs, shape.features, num_workers=args.num_workers)
    log.info("%s: %d of %d videos have their features", folder, len(jobs) - len(pending), len(jobs))

    @cache
    def load() -> ClipTower:
        return ClipTower.from_pretrained(name, device=device, dtype=dtype, batch=args.infer_batch)

    failures = extract(pending, load, size=shape.size, num_workers=args.num_workers)
    failures = [failure for part in _gather(failures) for failure in part]
    if rank() == 0:
        for clash in clashes:
            tell(clash)
        report_run(folder, made=len(pending) - len(failures), failures=failures + clashes)


def report_run(folder: Path, *, made: int, failures: Sequence[FailedVideo]) -> None:
    """Write the report of what failed, and say how the run went.

    Args:
        folder: of the features.
        made: how many files the run wrote.
        failures: videos without features.
    """
    report = folder / REPORT
    if failures or report.is_file():
        rows = [{**asdict(failure), "video": str(Path(failure.video).absolute())} for failure in failures]
        write_json(report, sorted(rows, key=lambda row: row["video"]))
    if failures:
        log.warning(
            "%d videos failed; the reasons are in %s, a rerun tries them again", len(failures), report
        )
    log.info("Wrote %d files to %s", made, folder) if made else log.info("%s: nothing to do", folder)
