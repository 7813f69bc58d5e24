"""Shared fixtures. The golden folder comes from `$VIDEOMIND_GOLDEN` (default tests/golden)."""

import gc
import lzma
import os
import shutil
from pathlib import Path

import pytest
from helpers.goldens import Golden, golden_root
from helpers.npu import npu_env  # noqa: F401 - a fixture

from videomind.dataset import base
from videomind.synthetic import make_data, make_tiny_base

# One process per test worker uses few threads, so that parallel runs don't fight for cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

gc.disable()  # until all test modules and their libraries are imported, which goes a fifth faster

# Modules that take minutes, the longest first: none is left to be run alone at the end.
LONG = [
    *("test_agent_quickstart", "test_fresh", "test_matrix", "test_runs", "test_eval_auto", "test_cuts"),
    *("test_every_frame", "test_benchmarks", "test_chain", "test_on_devices", "test_chat_quickstart"),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Let the collector leave alone what is there now: it would look through a million objects every time."""
    gc.enable()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Annotations are cached in a folder of this test run, for sub-processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDEOMIND_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def golden_tree(tmp_path_factory) -> Golden:
    """The golden tree with its .xz files decompressed."""
    source = golden_root()
    if not (source / "manifest.json").is_file():
        pytest.fail(f"No golden data in {source} (set VIDEOMIND_GOLDEN to the folder that holds it)")
    dest = tmp_path_factory.mktemp("golden") / "videomind"
    shutil.copytree(source, dest)
    for packed in dest.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return Golden(dest)


@pytest.fixture
def golden(golden_tree, monkeypatch) -> Golden:
    """The golden tree as the working directory: its paths are relative to its root."""
    monkeypatch.chdir(golden_tree.root)
    return golden_tree


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Path:
    """A folder with data/ (both data sets), base/ (tied) and untied/."""
    root = tmp_path_factory.mktemp("workshop")
    make_data(root / "data", num_train=8, num_valid=2, num_test=2, workers=1)
    make_tiny_base(root / "base")
    make_tiny_base(root / "untied", is_tied=False)
    return root


@pytest.fixture
def own_registry(monkeypatch):
    """What a test registers is gone after it."""
    base.source_names()
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
