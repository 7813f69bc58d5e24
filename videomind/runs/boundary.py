"""A sample's boundary: whatever one sample's data causes ends that sample, with class, place and reason.

Training, inference and both families pass through it. What would meet every other sample too goes on and ends
the run (`videomind.faults`).

    with Boundary() as sample:
        encoded = encoder(view.sample(anno, rng), frames)
    if sample.fault:
        record(sample.fault)
"""

import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from videomind.faults import ends_run

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What ended a sample.

    Attributes:
        kind: the error's class.
        raised_at: file, line and function where it was raised; of this package where it went through it.
        reason: the error's text.
        is_stated: whether this package raised the error itself, so that its text says all.
    """

    kind: str
    raised_at: str
    reason: str
    is_stated: bool

    @classmethod
    def of(cls, error: Exception) -> "Fault":
        """Describe an error that was raised."""
        kind = type(error)
        in_package = kind.__module__.partition(".")[0] == PACKAGE.name
        name = (
            kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        )
        return cls(kind=name, raised_at=_raised_at(error), reason=str(error) or name, is_stated=in_package)

    def __str__(self) -> str:
        return self.reason if self.is_stated else f"{self.kind} at {self.raised_at}: {self.reason}"


def _raised_at(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    own = [frame for frame in frames if PACKAGE in Path(frame.filename).parents]
    frame = (own or frames)[-1]
    path = Path(frame.filename)
    name = path.relative_to(PACKAGE.parent).as_posix() if own else path.name
    return f"{name}:{frame.lineno} ({frame.name})"


def release_frames(error: BaseException | None) -> None:
    """Let go of the variables that an error's traceback holds; its lines stay.

    Else the tensors of a sample that was too large for the device would be there while the next one runs.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class Boundary:
    """A block that errors of one sample do not leave.

    Args:
        also: errors of the machine that count as the sample's here, because its size decides.

    Attributes:
        error: what ended the block, or None.
        fault: the same in words.
    """

    def __init__(self, *also: type[Exception]):
        self._also = also
        self.error: Exception | None = None

    @property
    def fault(self) -> Fault | None:
        """What ended the block in words, or None."""
        return None if self.error is None else Fault.of(self.error)

    def __enter__(self) -> "Boundary":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or (ends_run(error) and not isinstance(error, self._also)):
            return False
        self.error = error
        release_frames(error)
        return True
