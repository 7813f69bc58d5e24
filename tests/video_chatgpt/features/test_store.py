"""Feature files: what is written is read, in both formats; anything else is refused by name."""

import os
import pickle

import numpy as np
import pytest
from helpers.goldens import Golden, golden_root
from safetensors.numpy import save_file

from videomind.video_chatgpt.features.store import (
    FEATURE_EXTENSIONS,
    find_features,
    read_features,
    write_features,
)

GOLDEN = Golden(golden_root("video_chatgpt"))
ARRAY = np.arange(12, dtype=np.float16).reshape(4, 3)


class Harm:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("extension", FEATURE_EXTENSIONS)
@pytest.mark.parametrize("array", [ARRAY, ARRAY.astype(np.float32).T, np.asfortranarray(ARRAY)])
def test_what_is_written_is_read(extension, array, tmp_path):
    path = tmp_path / f"v{extension}"
    write_features(path, array)
    found = read_features(path)
    assert type(found) is np.ndarray and found.dtype == np.float16 and np.array_equal(found, array)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_pickle_is_one_as_documented(tmp_path):
    """One default-protocol pickle of the array."""
    write_features(tmp_path / "v.pkl", ARRAY)
    assert (tmp_path / "v.pkl").read_bytes() == pickle.dumps(ARRAY)


def test_a_harmful_pickle_is_refused_by_name(tmp_path):
    """D601: pickles are read by an unpickler that runs nothing."""
    payload = pickle.dumps({"features": ARRAY, "more": Harm(tmp_path / "harm")})
    (tmp_path / "evil.pkl").write_bytes(payload)
    with pytest.raises(ValueError, match=r"evil\.pkl is refused: it refers to (posix|nt)\.system"):
        read_features(tmp_path / "evil.pkl")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[1.0]], "holds a list"),
        (ARRAY[0], r"an array \(3,\) of float16"),
        (ARRAY[:0], r"an array \(0, 3\)"),
        (ARRAY.astype(np.int64), "of int64"),
        (np.array([["a"]], dtype=object), "of object"),
        (np.where(ARRAY == 5, np.nan, ARRAY), "1 of 12 feature values are not finite"),
    ],
)
def test_what_is_no_features_is_refused(value, words, tmp_path):
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match=rf"v\.pkl.*{words}"):
        read_features(tmp_path / "v.pkl")


@pytest.mark.parametrize("extension", FEATURE_EXTENSIONS)
def test_damaged_files_are_refused(extension, tmp_path):
    path = tmp_path / f"v{extension}"
    write_features(path, ARRAY)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"v{extension}"):
            read_features(path)


def test_files_of_other_kinds_are_named(tmp_path):
    save_file({"other": ARRAY}, tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match=r"v\.safetensors holds \['other'\], expected .*'features'"):
        read_features(tmp_path / "v.safetensors")
    for path in (tmp_path / "v.npy", tmp_path / "none.pkl", tmp_path / "none.safetensors"):
        with pytest.raises(ValueError, match=path.name):
            read_features(path)
    with pytest.raises(ValueError, match=r"v\.npy. Allowed: \.pkl, \.safetensors"):
        write_features(tmp_path / "v.npy", ARRAY)


def test_values_beyond_half_precision_are_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"v\.pkl: 1 of 1 feature values are not finite"):
        write_features(tmp_path / "v.pkl", np.array([[1e6]], dtype=np.float32))
    assert not list(tmp_path.iterdir())


def test_a_name_finds_its_file_in_either_format(tmp_path):
    for name in ("a.pkl", "b.safetensors", "c.x.pkl", "d.pkl", "d.safetensors"):
        write_features(tmp_path / name, ARRAY)
    found = {
        name: find_features(tmp_path, name).name
        for name in ("a.pkl", "a.safetensors", "a.mp4", "a", "b.pkl", "c.x.pkl", "c.x", "d.pkl",
                     "d.safetensors", "d")
    }  # fmt: skip
    assert found == {
        **dict.fromkeys(("a.pkl", "a.safetensors", "a.mp4", "a"), "a.pkl"),
        "b.pkl": "b.safetensors",
        **dict.fromkeys(("c.x.pkl", "c.x"), "c.x.pkl"),
        **dict.fromkeys(("d.pkl", "d"), "d.pkl"),
        "d.safetensors": "d.safetensors",
    }


@pytest.mark.parametrize("name", ["x" * 5_000, "a/" * 3_000 + "v", "a\0b", "half\ud800", "a.b" * 2_000])
def test_features_that_no_file_can_be_are_absent(tmp_path, name):
    with pytest.raises(ValueError, match="No features of "):
        find_features(tmp_path, name)


def test_absent_features_are_named_and_nothing_stands_in(tmp_path):
    write_features(tmp_path / "odd.pkl", ARRAY)
    with pytest.raises(ValueError, match=r"No features of 'v_2\.pkl' in .*$"):
        find_features(tmp_path, "v_2.pkl")
    with pytest.raises(ValueError, match=r"'odd\.size\.pkl' in .*there is odd\.pkl"):
        find_features(tmp_path, "odd.size.pkl")
    with pytest.raises(ValueError, match="No folder of features"):
        find_features(tmp_path / "none", "v.pkl")
