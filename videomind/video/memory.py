"""What was found out of files that are read again soon: every role of a chain opens the same video."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Memory(Generic[T]):
    """Keeps what was made of the files that were asked for last; several threads may ask at once.

    Args:
        most: weight of all that is kept.
        weight: of one.
    """

    def __init__(self, most: int, weight: Callable[[T], int] = lambda _: 1):
        self._most, self._weight = most, weight
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = Lock()

    def take(self, key: Hashable, make: Callable[[], T]) -> T:
        """Give what is kept of a file, or make it.

        Args:
            key: of the very file, as `file_identity` gives it.
            make: called where nothing is kept; other threads may work on other files meanwhile.
        """
        with self._lock:
            value = self._kept.pop(key, None)
        if value is None:
            value = make()
        with self._lock:
            self._kept[key] = value
            while sum(map(self._weight, self._kept.values())) > self._most:
                self._kept.popitem(last=False)
        return value
