"""How a process starts: libraries are imported without the garbage collector."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 200  # modules


@contextmanager
def importing() -> Iterator[None]:
    """Import libraries; the collector neither runs meanwhile nor looks at what they have made later on.

    torch, transformers and peft make half a million objects that stay. Left on, the collector goes through
    them again and again, which is a fifth of the time of their import, and then in every full collection.
    """
    if not gc.isenabled():  # within another import, or as the user wants it
        yield
        return
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if len(sys.modules) - before > MANY:
            gc.freeze()
