"""Frames kept on disk: what `read_excerpt` gave once is read again instead of decoded, pixel for pixel.

For trainings that see the same excerpts in every epoch. Any number of processes and nodes may share a folder:
a file appears there whole, is never changed, and may go at any time.
"""

import hashlib
import io
import json
import logging
import os
import platform
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path

import av
import numpy as np
import PIL
import torch

from videomind.files import atomic_path
from videomind.imports import reached_files
from videomind.video import excerpts
from videomind.video.excerpts import Frames, read_excerpt
from videomind.video.reader import BadVideoError, file_identity
from videomind.video.readers import choose_reader, reader_name
from videomind.video.request import Excerpt, ImageList

log = logging.getLogger(__name__)

GB = 10**9
MARKER = "videomind_frames"  # file that makes a folder one of this cache
_ENTRY = re.compile(r"[0-9a-f]{64}\.frames\.npz")
_UNFINISHED = re.compile(rf"\.{_ENTRY.pattern}\.[0-9a-f]+\.tmp")  # see `atomic_path`
_DRAWER = re.compile(r"[0-9a-f]{2}")  # subfolder: some file systems are slow with all in one
_ABANDONED_S = 3600  # an unfinished file of this age is of a process that was killed
_LOOK_AFTER = 0.01  # of the bound, in bytes written, until the folder is measured again
# What the zip and npy formats raise on damaged bytes; a length or checksum that is wrong is a BadZipFile.
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, struct.error, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip


class FrameCache:
    """Frames of excerpts in files of a folder.

    Args:
        folder: of the cache alone; it is made where it is not there.
        max_gb: gigabytes that the files may have; those used longest ago go first. Each process that writes
            may exceed it by a hundredth before it looks again.

    Raises:
        ValueError: the bound is not above 0, or the folder holds other things.
    """

    def __init__(self, folder: str | os.PathLike, *, max_gb: float):
        if not max_gb > 0:
            raise ValueError(f"--cache_frames_gb must be above 0, not {max_gb}")
        self.folder, self.max_bytes = Path(folder).absolute(), max_gb * GB
        self._unmeasured = self.max_bytes  # written since the folder was measured, which it never was
        self._can_write = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            others = [name for name in os.listdir(self.folder) if not name.startswith(".")]
            if others and MARKER not in others:
                raise ValueError(
                    f"--cache_frames {folder}: the folder holds other things ({others[0]}, no {MARKER}). "
                    "Name one of its own, new or empty."
                )
            with atomic_path(self.folder / MARKER):  # says at the start what could not be written later
                pass
        except OSError as error:
            self._give_up_writing(error)

    def read(self, excerpt: Excerpt) -> Frames:
        """Give what `read_excerpt` gives, decoded now or at an earlier time.

        A video that cannot be used is tried again each time.

        Raises:
            BadVideoError: the video is unusable.
            RunError: the reader is.
        """
        key = _key(excerpt)
        path = self._path(key)
        if (kept := self._load(path, key)) is not None:
            return kept
        frames = read_excerpt(excerpt)
        if self._can_write and _is_still(excerpt, key):
            self._keep(path, key, frames)
        return frames

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.frames.npz"

    def _load(self, path: Path, key: str) -> Frames | None:
        """Read a file of the cache; None where there is none, or not a whole one."""
        try:
            frames = _unpacked(path, key)
        except FileNotFoundError:
            return None
        except _DAMAGE as error:
            log.warning("%s is damaged, its frames are decoded again: %s", path, error)
            return None
        with suppress(OSError):  # gone just now, or of a folder that can only be read
            os.utime(path)  # used: the time of access is not kept everywhere
        return frames

    def _keep(self, path: Path, key: str, frames: Frames) -> None:
        if frames.frames.nbytes > self.max_bytes:
            return
        try:
            (self.folder / MARKER).stat()  # else the folder is gone, and would be made again somewhere else
            with atomic_path(path) as temporary:
                _pack(temporary, frames, key)
            self._unmeasured += frames.frames.nbytes
            if self._unmeasured >= _LOOK_AFTER * self.max_bytes:
                self._evict()
                self._unmeasured = 0
        except OSError as error:
            self._give_up_writing(error)

    def _give_up_writing(self, error: OSError) -> None:
        self._can_write = False
        log.warning("No more frames are kept in %s, what is there is used: %s", self.folder, error)

    def _evict(self) -> None:
        """Remove the files used longest ago until the rest is within the bound."""
        entries = []
        for path, stat in self._files():
            if _ENTRY.fullmatch(path.name):
                entries.append((stat.st_mtime_ns, path, stat.st_size))
            elif _is_abandoned(stat, self.folder / MARKER):
                path.unlink(missing_ok=True)
        excess = sum(size for _, _, size in entries) - self.max_bytes
        for _, path, size in sorted(entries):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)  # another process may evict the same
            excess -= size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """List the files that have a name of this cache, in folders that have one; links are none."""
        for drawer in _entries(self.folder):
            if not (_DRAWER.fullmatch(drawer.name) and drawer.is_dir(follow_symlinks=False)):
                continue
            for entry in _entries(drawer.path):
                if _ENTRY.fullmatch(entry.name) or _UNFINISHED.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        if entry.is_file(follow_symlinks=False):
                            yield Path(entry.path), entry.stat(follow_symlinks=False)


def _entries(folder: str | os.PathLike) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _is_abandoned(stat: os.stat_result, marker: Path) -> bool:
    """Tell an unfinished file that no process writes any more, by the clock of the folder's file system."""
    os.utime(marker)
    return marker.stat().st_mtime - stat.st_mtime > _ABANDONED_S


def _is_still(excerpt: Excerpt, key: str) -> bool:
    """Tell whether an excerpt's files are what they were: they may be replaced while they are read."""
    try:
        return _key(excerpt) == key
    except BadVideoError:
        return False


def _pack(path: Path, frames: Frames, key: str) -> None:
    """Write frames in numpy's .npz format, whose members have checksums.

    Args:
        path: of the file.
        frames: to keep.
        key: what they depend on.
    """
    fields = {name: value for name, value in vars(frames).items() if name != "frames"}
    text = json.dumps({"key": key, **fields}).encode()
    with open(path, "wb") as file:
        np.savez(file, frames=frames.frames.numpy(), fields=np.frombuffer(text, np.uint8))


def _unpacked(path: Path, key: str) -> Frames:
    """Read what `_pack` wrote.

    Raises:
        ValueError: it is of another excerpt; with damaged bytes, any of `_DAMAGE`.
    """
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed, which none of this cache's is")
        # Read whole, which compares the checksum, before a header's word on a size is taken.
        members = [io.BytesIO(archive.read(f"{name}.npy")) for name in ("frames", "fields")]
    pixels, text = (np.lib.format.read_array(member, allow_pickle=False) for member in members)
    fields = json.loads(text.tobytes())
    if fields.pop("key") != key:
        raise ValueError("it is of another excerpt")
    return Frames(frames=torch.from_numpy(pixels), **fields)


def _key(excerpt: Excerpt) -> str:
    """Write all that an excerpt's frames depend on.

    Raises:
        BadVideoError: its file is not there.
        RunError: its reader is not.
    """
    if isinstance(excerpt.path, list | tuple):
        files = [_image_state(path) for path in excerpt.path]
    else:
        files = [_file_state(excerpt.path)]
    rate = excerpt.path.fps if isinstance(excerpt.path, ImageList) else None
    return json.dumps([asdict(excerpt), rate, files, *_makers(reader_name())], default=str)


def _file_state(path: str | os.PathLike) -> list:
    """Describe a file as every node sees it: without the number of its device, which is each node's own."""
    full_path, _, *state = file_identity(os.fspath(path))
    return [full_path, *state]


def _image_state(path: str | os.PathLike) -> list | None:
    """Describe one file of a list, which may lack some."""
    try:
        return _file_state(path)
    except BadVideoError:
        return None


@cache
def _makers(reader: str) -> tuple:
    """Describe what makes frames of a file: code, libraries, and the instructions that resize has here."""
    digest = hashlib.sha256()
    for path in reached_files([Path(excerpts.__file__), Path(__file__)]):
        digest.update(path.read_bytes())
    module = choose_reader(reader).load()
    versions = {
        "reader": [reader, str(module.__version__), str(getattr(module, "ffmpeg_major_version", None))],
        "av": [av.__version__, sorted(map(str, av.library_versions.items()))],
        "pillow": PIL.__version__,
        "torch": [torch.__version__, torch.backends.cpu.get_cpu_capability(), platform.machine()],
    }
    return digest.hexdigest(), versions
