"""One file of features per video: written by the extraction, read by training and inference.

The array is (N, C) float16: the temporal rows, then one row per patch (see `clip.py` beside this file). A
`.pkl` holds it as the published feature files do, a `.safetensors` under the name `features`.
"""

import os
import pickle
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from videomind.dataset.readers import read_pickle
from videomind.files import atomic_path
from videomind.roles import nearest

PICKLE, SAFE = FEATURE_EXTENSIONS = (".pkl", ".safetensors")
TENSOR = "features"


class FeatureError(ValueError):
    """Features that cannot be used; the message names the file and what is wrong."""


def check_features(array: object, path: str | Path) -> np.ndarray:
    """Check that an array is finite (N, C) floats.

    Args:
        array: what was read.
        path: where it is from, for messages.

    Returns:
        The array itself.

    Raises:
        FeatureError: it is not.
    """
    if not isinstance(array, np.ndarray):
        raise FeatureError(f"{path} holds a {type(array).__name__}, expected a numpy array (N, C)")
    if array.ndim != 2 or 0 in array.shape or array.dtype not in (np.float16, np.float32):
        raise FeatureError(
            f"{path} holds an array {array.shape} of {array.dtype}, expected (N, C) of float16 or float32"
        )
    if wrong := array.size - np.count_nonzero(np.isfinite(array)):
        raise FeatureError(f"{path}: {wrong} of {array.size} feature values are not finite")
    return np.asarray(array)


def storable(array: np.ndarray, path: str | Path) -> np.ndarray:
    """Make of features (N, C) what is stored, float16.

    Args:
        array: the features.
        path: where they will go, for messages.

    Raises:
        FeatureError: a value is not finite as float16.
    """
    with np.errstate(over="ignore"):  # becomes infinite, which is refused
        return check_features(np.ascontiguousarray(array, dtype=np.float16), path)


def write_features(path: str | Path, array: np.ndarray) -> None:
    """Write features atomically as float16.

    Args:
        path: its extension decides the format.
        array: (N, C).

    Raises:
        FeatureError: a value is not finite as float16.
        ValueError: another extension.
    """
    path = Path(path)
    if path.suffix not in FEATURE_EXTENSIONS:
        raise ValueError(f"Cannot write features to {path}. {nearest(path.suffix, FEATURE_EXTENSIONS)}")
    array = storable(array, path)
    with atomic_path(path) as temporary:
        if path.suffix == SAFE:
            save_file({TENSOR: array}, temporary)
        else:
            temporary.write_bytes(pickle.dumps(array))


def read_features(path: str | Path) -> np.ndarray:
    """Read features as they are stored; a pickle builds nothing but the array.

    Returns:
        (N, C).

    Raises:
        ValueError: names the file and what is wrong with it.
    """
    path = Path(path)
    if path.suffix not in FEATURE_EXTENSIONS:
        raise ValueError(f"Cannot read features from {path}. {nearest(path.suffix, FEATURE_EXTENSIONS)}")
    return check_features(read_pickle(path) if path.suffix == PICKLE else _read_safe(path), path)


def _read_safe(path: Path) -> np.ndarray:
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise ValueError(f"No such file: {path}") from None
    except (SafetensorError, OSError, KeyError) as error:  # KeyError: a type that numpy lacks
        raise FeatureError(f"{path} is not a safetensors file that numpy can read: {error}") from None
    if tensors.keys() != {TENSOR}:
        raise FeatureError(f"{path} holds {sorted(tensors)}, expected one tensor named {TENSOR!r}")
    return tensors[TENSOR]


def find_features(folder: str | Path, name: str) -> Path:
    """Find the features of a video in a folder, in either format.

    Args:
        folder: of the features.
        name: as training data gives it, such as `v_1.pkl`. An extension, whichever, does not count; the file
            that is named exactly comes first where there are several.

    Raises:
        ValueError: names the folder and what was looked for.
    """
    folder, exact = Path(folder), Path(name)
    names = [
        f"{base}{extension}" for base in (exact, exact.with_suffix("")) for extension in FEATURE_EXTENSIONS
    ]
    if exact.suffix in FEATURE_EXTENSIONS:
        names.insert(0, name)
    candidates = [folder / name for name in names]
    if existing := next(filter(os.path.isfile, candidates), None):
        return existing
    if not folder.is_dir():
        raise ValueError(f"No folder of features {folder}")
    raise ValueError(f"No features of {name!r} in {folder}{_hint(folder, name)}")


def _hint(folder: Path, name: str) -> str:
    """Guess what a dotted name meant: files are named by a video's name up to its first dot."""
    short = [folder / f"{name.split('.')[0]}{extension}" for extension in FEATURE_EXTENSIONS]
    there = [path.name for path in filter(os.path.isfile, short)]
    return f" (there is {there[0]}; names of videos count up to their first dot)" if there else ""
