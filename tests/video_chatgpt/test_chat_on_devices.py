"""Video-ChatGPT's answers and its tower on pretended accelerators: as on the host, and little waits."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pretended import FIRST, PretendedDevices, place_of
from helpers.videochat import (
    BASE,
    GOLDEN,
    TOWER,
    VIDEOS,
    write_recorded_features,
    write_seeing_adapter,
)
from helpers.waits import assert_no_more, waits_of
from torch import Tensor, nn
from transformers import set_seed

from videomind.model.checkpoint import LoadSettings
from videomind.runs.workers import ResultFile
from videomind.video_chatgpt.adapter import load_chat
from videomind.video_chatgpt.asking import answer_rows, kind_of
from videomind.video_chatgpt.chat import StoredFeatures, VideoChat
from videomind.video_chatgpt.features.clip import ClipTower, tower_config
from videomind.video_chatgpt.features.extract import main as extract
from videomind.video_chatgpt.features.store import read_features
from videomind.video_chatgpt.infer import main as ask

pytestmark = pytest.mark.golden
WHOLE = GOLDEN.root / "e_model/full_save"
CLIPS = GOLDEN.root / "c_features/videos"
SEED = 7
DEVICES = [pytest.param("auto", marks=pytest.mark.slow), "cuda:1"]
EXACT = ("--max_new_tokens", "4", "--temperature", "0", "--dtype", "float32", "--max_bad_share", "1")
QUESTIONS = [
    {"video_name": VIDEOS[0], "Q1": "Who?", "Q2": "Which of the two men is it?", "A": "x"},
    {"video_name": VIDEOS[-1], "Q": "What?", "A": "x"},
    {"video_name": "lost", "Q": "What?", "A": "x"},
    {"video_name": VIDEOS[0], "Q": "Where?", "A": "x"},
]


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    return write_recorded_features(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def sees(tmp_path_factory) -> list[str]:
    """Arguments of a model that looks at videos through the recorded tower."""
    adapter, tower = write_seeing_adapter(tmp_path_factory.mktemp("adapter"))
    return ["--model-name", str(BASE), "--projection_path", str(adapter), "--vision_tower", str(tower)]


def rows_on(out: Path, *argv: str, how: Sequence[str] = ()) -> list[dict]:
    assert ask([*argv, *EXACT, *how, "--output_dir", str(out), "--output_name", "pred"]) == 0
    return json.loads((out / "pred.json").read_text())


@pytest.mark.parametrize("size", ["1", "3"])
@pytest.mark.parametrize("device", DEVICES)
def test_answers_from_features(features, tmp_path, device, size):
    (tmp_path / "gt.json").write_text(json.dumps(QUESTIONS))
    argv = ["--model-name", str(WHOLE), "--clip_feat_path", str(features), "--batch_size", size]
    argv += ["--gt_file", str(tmp_path / "gt.json")]
    host = rows_on(tmp_path / "host", *argv)
    with PretendedDevices(2):
        assert rows_on(tmp_path / "device", *argv, "--device", device) == host
    assert ["error" in row for row in host] == [False, False, True, False]


@pytest.mark.parametrize("device", DEVICES)
def test_answers_from_videos(sees, tmp_path, device):
    argv = [*sees, "--video_dir", str(CLIPS), "--question", "What happens?"]
    host = rows_on(tmp_path / "host", *argv)
    with PretendedDevices(2):
        assert rows_on(tmp_path / "device", *argv, "--device", device) == host
    assert sum("pred" in row for row in host) == len(host) - 1 == 4  # broken.mp4


@pytest.mark.parametrize("device", DEVICES)
def test_answers_about_one_video(sees, monkeypatch, capfd, device):
    argv = [*sees, *EXACT[:6], "--video_path", str(CLIPS / "short_v1.mp4")]

    def answers(*more: str) -> list[str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("Who?\nWhere?\n"))
        assert ask([*argv, *more]) == 0
        return capfd.readouterr().out.splitlines()

    host = answers()
    with PretendedDevices(2):
        assert answers("--device", device) == host
    assert len(host) == 2


@pytest.mark.parametrize(("device", "batch"), [("auto", "32"), ("cuda:1", "7")])
def test_features_of_a_folder(tmp_path, device, batch):
    argv = ["--video_dir_path", str(CLIPS), "--vision_tower", str(TOWER), "--dtype", "float32"]
    argv += ["--infer_batch", batch]
    assert extract([*argv, "--clip_feat_path", str(tmp_path / "host")]) == 0
    with PretendedDevices(2):
        assert extract([*argv, "--device", device, "--clip_feat_path", str(tmp_path / "device")]) == 0
    names = sorted(path.name for path in (tmp_path / "host").glob("*.pkl"))
    assert names == sorted(path.name for path in (tmp_path / "device").glob("*.pkl")) and len(names) == 4
    for name in names:
        ours, host = (read_features(tmp_path / folder / name) for folder in ("device", "host"))
        np.testing.assert_array_equal(ours, host)


@pytest.mark.parametrize("dtype", ["auto", "float16", "bfloat16"])
def test_no_precision_mixes_places(features, sees, tmp_path, dtype):
    """Sampling neither; what is answered may differ from the host's."""
    (tmp_path / "gt.json").write_text(json.dumps(QUESTIONS[:2]))
    stored = ["--model-name", str(WHOLE), "--clip_feat_path", str(features), "--batch_size", "2"]
    stored += ["--gt_file", str(tmp_path / "gt.json")]
    seen = [*sees, "--video_dir", str(CLIPS), "--question", "What happens?"]
    how = ["--dtype", dtype, "--temperature", "0.7", "--device", "cuda:1"]
    with PretendedDevices(2):
        rows = rows_on(tmp_path / "stored", *stored, how=how) + rows_on(tmp_path / "seen", *seen, how=how)
    (failed,) = [row for row in rows if "error" in row]
    assert failed["video_name"] == "broken.mp4" and len(rows) == 7


@pytest.mark.parametrize("index", [0, 1])
def test_the_tower_lies_where_it_is_told_to(index):
    """Its batches are joined there, and after the first they wait for nothing."""
    size = tower_config(str(TOWER)).image_size
    frames = torch.randint(0, 256, (5, size, size, 3), dtype=torch.uint8)
    with PretendedDevices(2) as devices:
        device = torch.device("cuda", index)
        tower = ClipTower.from_pretrained(str(TOWER), device=device, dtype=torch.float32, batch=5)
        tower.patches(frames)
        devices.clear()
        found = tower.patches(frames)
        assert place_of(found) == device
        assert_no_more("a batch of CLIP frames", *waits_of(devices))


def test_an_answer_waits_no_more_than_recorded(features):
    with PretendedDevices() as devices:
        loaded = load_chat(WHOLE, None, LoadSettings(device=FIRST))
        loaded.model.to(FIRST)
        chat = VideoChat(loaded, StoredFeatures(features), max_new_tokens=4, temperature=0)
        assert {place_of(param) for param in loaded.model.parameters()} == {FIRST}
        asked = [(chat.features(VIDEOS[0]), "Who?")]
        chat.answer(asked)
        devices.clear()
        chat.answer(asked)
        assert_no_more("a chat answer", *waits_of(devices))


# ---- too little memory ----


@pytest.fixture
def chat(features) -> VideoChat:
    loaded = load_chat(WHOLE, None, LoadSettings())
    return VideoChat(loaded, StoredFeatures(features), max_new_tokens=4, temperature=0.7)


def answered(chat: VideoChat, rows: list[dict], folder: Path) -> list[dict]:
    """All rows in one batch."""
    results = ResultFile(folder, {})
    answer_rows(chat, rows, [range(len(rows))], results, seed=SEED, num_threads=1)
    return results.complete(len(rows))


def alone(chat: VideoChat, row: dict) -> dict:
    """A row whose questions are answered one by one, with the batch's seed."""
    kind, texts = kind_of(row), []
    for name in kind:
        set_seed(SEED)
        texts += chat.answer([(chat.features(row["video_name"]), row[name])])
    return row | dict(zip(kind.values(), texts, strict=True))


def refuse(chat: VideoChat, is_too_large: Callable[[tuple[int, int]], bool], error: type[Exception]) -> None:
    """As a device does: bound the prompts and tokens that a feed-forward layer is given at once."""

    def look(_: nn.Module, args: tuple[Tensor]) -> None:
        if is_too_large(args[0].shape[:2]):
            raise error("NPU out of memory. Tried to allocate 2.00 GiB")

    chat.model.model.layers[0].mlp.register_forward_pre_hook(look)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError, pytest.param(RuntimeError, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("is_at_a_later_token", [False, True])
@pytest.mark.parametrize("kept", [slice(0, 4), slice(0, 1)], ids=["rows", "two questions of a row"])
def test_a_batch_that_is_too_large_is_answered_one_by_one(
    chat, tmp_path, caplog, error, is_at_a_later_token, kept
):
    rows = [row for row in QUESTIONS[kept] if row["video_name"] != "lost"]
    one_by_one = [alone(chat, row) for row in rows]
    refuse(chat, lambda size: size[0] > 1 and (size[1] == 1 or not is_at_a_later_token), error)
    assert answered(chat, rows, tmp_path) == one_by_one
    (said,) = [line for line in caplog.messages if "Too little memory" in line]
    assert f"answer {sum(map(len, map(kind_of, rows)))} questions at once: once more one by one" in said


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError, pytest.param(RuntimeError, marks=pytest.mark.slow)]
)
def test_a_question_that_alone_is_too_large_fails_its_row(chat, tmp_path, error):
    long = {"video_name": VIDEOS[0], "Q": "word " * 200, "A": "x"}
    rows = [QUESTIONS[0], long, QUESTIONS[1]]
    one_by_one = [alone(chat, row) for row in (rows[0], rows[2])]
    most = len(chat._prompt(chat.features(VIDEOS[0]), QUESTIONS[0]["Q2"])) + 50
    refuse(chat, lambda size: size[0] * size[1] > most, error)
    first, failed, last = answered(chat, rows, tmp_path)
    assert [first, last] == one_by_one
    assert "pred" not in failed and "OutOfMemoryError" in failed["error"] and "2.00 GiB" in failed["error"]


# ---- numbers that are none ----


@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize("number", [torch.inf, torch.nan])
def test_what_is_no_number_is_no_answer(features, tmp_path, number, temperature):
    """One weight suffices; with it away the same model answers."""
    loaded, rows = load_chat(WHOLE, None, LoadSettings()), QUESTIONS[:2]
    chat = VideoChat(loaded, StoredFeatures(features), max_new_tokens=4, temperature=temperature)
    assert not any("error" in row for row in answered(chat, rows, tmp_path / "whole"))
    with torch.no_grad():
        loaded.model.model.layers[0].mlp.down_proj.weight[0, 0] = number
    failed = answered(chat, rows, tmp_path / "broken")
    assert not any(name.startswith("pred") for row in failed for name in row)
    words = "probability tensor contains" if temperature else "what the model says are not finite numbers"
    assert all(words in row["error"] for row in failed)
