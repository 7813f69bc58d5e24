"""Where the files of a data set lie below the data root, and how they are looked into."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from videomind.dataset.readers import read_pickle
from videomind.dataset.schema import as_number, as_text
from videomind.files import FileError, read_json
from videomind.roles import nearest

T = TypeVar("T")
# What code that takes a row apart raises when the row is of another shape. (RuntimeError: a generator that
# runs out, brackets too deep; AssertionError: a source's own check.)
_ROW_ERRORS = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, AssertionError
)  # fmt: skip
_SPLIT_ALIASES = {"val": "valid", "validation": "valid"}


@contextmanager
def blaming(where: str, name: str) -> Iterator[None]:
    """Let errors in taking something apart name where it is, but for those that name a file already.

    Args:
        where: file and row.
        name: of the data set.
    """
    try:
        yield
    except FileError:
        raise
    except _ROW_ERRORS as error:
        what = f"no field {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise FileError(f"{where} does not fit {name}: {what}") from error


class Layout:
    """The files of one data set.

    Attributes:
        splits: split to its annotation file or files below the data root; a folder stands for its .json
            files.
        durations: files of id to seconds, the first that knows an id decides; None when rows carry it.
        extra_files: whatever else it reads.
        video_root: folder of its videos.
        video_name: file name of a video id.
        only_present: whether annotations of videos that are not there are left out.
        train_split: the default one for training; "train" unless given. None without such a split.
        eval_split: the default one for evaluation; "test", else "valid", else "train" unless given.
    """

    splits: ClassVar[dict[str, str | tuple[str, ...]]] = {}
    durations: ClassVar[str | tuple[str, ...] | None] = None
    extra_files: ClassVar[tuple[str, ...]] = ()
    video_root: ClassVar[str | None] = None
    video_name: ClassVar[str] = "{vid}.mp4"
    only_present: ClassVar[bool] = False
    train_split: ClassVar[str | None] = None
    eval_split: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "splits" in vars(cls):
            if "train_split" not in vars(cls):
                cls.train_split = "train" if "train" in cls.splits else None
            if "eval_split" not in vars(cls):
                cls.eval_split = next((s for s in ("test", "valid", "train") if s in cls.splits), None)

    def __init__(self, name: str, data_root: str | Path = "data"):
        self.name = name
        self.data_root = Path(data_root)
        self._mappings: dict[str, dict[str, Any]] = {}

    def resolve_split(self, split: str | None) -> str:
        """Find a declared split by its name; None is the training split.

        Raises:
            ValueError: there is none; the message says what to write.
        """
        if split is None:
            if self.train_split is None:
                raise ValueError(
                    f"{self.name} has no split to train on. Its splits: "
                    f"{', '.join(f'{self.name}@{split}' for split in sorted(self.splits))}."
                )
            return self.train_split
        if split not in self.splits:
            split = _SPLIT_ALIASES.get(split, split)
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}. {nearest(split, self.splits)}")
        return split

    def files(self, split: str) -> list[Path]:
        """Name the annotation files of a split.

        Raises:
            FileError: a folder holds none.
        """
        names = self.splits[split]
        return [p for name in ([names] if isinstance(names, str) else names) for p in self.json_files(name)]

    def json_files(self, name: str) -> list[Path]:
        """Name a file below the data root, or all .json files of a folder.

        Raises:
            FileError: the folder holds none.
        """
        path = self.data_root / name
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise FileError(f"The folder {path} of {self.name} holds no .json file")
        return inside

    def annotation_files(self, split: str) -> list[Path]:
        """Name all files that are read for a split: rows, durations and whatever else."""
        return [
            *self.files(split),
            *(self.data_root / name for name in (*self.duration_files, *self.extra_files)),
        ]

    def inputs(self, split: str) -> list[Path]:
        """Name all that the annotations of a split depend on: when none of it changed, neither did they."""
        return [*self.annotation_files(split), *(self.video_folders() if self.only_present else ())]

    def video_folders(self) -> list[Path]:
        """Name the folders of the videos; none when the rows say where each one is."""
        return [] if self.video_root is None else [self.data_root / self.video_root]

    def check_videos(self) -> None:
        """Look whether the video folders are there.

        Raises:
            FileError: one is not.
        """
        for folder in self.video_folders():
            if not folder.is_dir():
                raise FileError(
                    f"No video folder {folder} for {self.name}. Put the videos there (data/README.md), "
                    "or name another data root with --data_root."
                )

    @property
    def duration_files(self) -> tuple[str, ...]:
        """The durations files below the data root."""
        names = self.durations
        return () if names is None else (names,) if isinstance(names, str) else names

    def duration(self, vid: str) -> float | None:
        """Look up the length of a video, s; None when the durations files lack it.

        Raises:
            FileError: it is no number.
        """
        for name in self.duration_files:
            durations = self.mapping(name, "id to seconds")
            if vid in durations:
                path, value = self.data_root / name, durations[vid]
                try:
                    return as_number(value)
                except (TypeError, ValueError):
                    words = f"the duration of {vid!r} is {value!r}, not a number of seconds"
                    raise FileError(f"{path}: {words}") from None
        return None

    def entry(self, name: str, what: str, key: str, take: Callable[[Any], T]) -> T:
        """Look a key up in a file that belongs to the rows.

        Args:
            name: the file's, below the data root.
            what: what it maps, for errors.
            key: of the row.
            take: takes what is needed out of the entry, and checks it: what it raises is that file's fault.

        Raises:
            ValueError: the file has no such entry.
            FileError: the entry is of another shape; names this file, not the rows'.
        """
        values = self.mapping(name, what)
        if as_text(key) not in values:
            raise ValueError(f"{self.data_root / name} has no entry {key!r}")
        with blaming(f"{self.data_root / name}, entry {key!r},", self.name):
            return take(values[key])

    def mapping(self, name: str, what: str) -> dict[str, Any]:
        """Read a mapping below the data root (.json or .pkl), once.

        Args:
            name: the file's.
            what: what it maps, for errors.

        Raises:
            FileError: it is not there, or no mapping.
        """
        if name not in self._mappings:
            path = self.data_root / name
            if not path.is_file():
                raise FileError(f"No file {path} for {self.name} ({path.suffix}, {what})")
            value = read_pickle(path) if path.suffix == ".pkl" else read_json(path)
            if not isinstance(value, dict):
                raise FileError(f"{path} holds a {type(value).__name__}, expected a mapping of {what}")
            self._mappings[name] = value
        return self._mappings[name]

    @cached_property
    def folder(self) -> str:
        """The folder of the videos."""
        return str(self.data_root / str(self.video_root))

    @cached_property
    def present(self) -> frozenset[str]:
        """The names of all files in the folder of the videos."""
        self.check_videos()
        folder = self.video_folders()[0]
        try:
            return frozenset(path.name for path in folder.iterdir())
        except OSError as error:
            raise FileError(f"The video folder {folder} cannot be read: {error.strerror}") from None
