"""Pickles of plain data only: containers, text, numbers and numpy arrays."""

import pickle
from collections import OrderedDict
from typing import Any

import numpy as np


class _PlainDtype:
    """Stands for an array's type while a pickle is read.

    numpy's own trusts the state that a pickle gives it, and a false one crashes the process.
    """

    def __init__(self, code: str, *_: object):
        if not isinstance(code, str):
            raise pickle.UnpicklingError(f"it holds an array of type {code!r}")
        self.value = np.dtype(code)
        if self.value.kind in "mM":  # their unit is in the state
            raise pickle.UnpicklingError("it holds an array of times")

    def __setstate__(self, state: tuple) -> None:
        _, order, subtype, names, fields, *_ = state
        if (subtype, names, fields) != (None, None, None):
            raise pickle.UnpicklingError("it holds an array of records")
        self.value = self.value.newbyteorder(order)


class _PlainArray(np.ndarray):
    """An array that takes a `_PlainDtype`."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, data = state
        super().__setstate__((version, shape, dtype.value, fortran, data))


def _reconstruct(*_: object) -> _PlainArray:
    return np.zeros(0).view(_PlainArray)


def _scalar(dtype: _PlainDtype, data: object) -> np.generic:
    return np.frombuffer(data, dtype.value, count=1)[0]


def _frombuffer(data: object, dtype: _PlainDtype, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


# What a pickle of plain containers, strings, numbers and numpy arrays refers to.
_CORES = ("core", "_core")  # of numpy, before and after version 2
_BUILTINS = (set, frozenset, bytes, bytearray, complex)
_ALLOWED_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    # the second module in old protocols
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in _BUILTINS},
    ("numpy", "ndarray"): None,  # only named, for `_reconstruct`
    ("numpy", "dtype"): _PlainDtype,
    ("_codecs", "encode"): _latin1,  # bytes of arrays in old protocols
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in _CORES},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in _CORES},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in _CORES},
}


class PlainUnpickler(pickle.Unpickler):
    """Builds plain data only: a pickle can name any function, and running them is how one does harm."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return _ALLOWED_GLOBALS[module, name]
