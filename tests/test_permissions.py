"""Everything that commands write has a new file's permissions, whichever library wrote it."""

import json
import os
import stat
from pathlib import Path

import pytest
from helpers import videochat
from helpers.runs import SMALL, arguments

from videomind.agent.infer import main as infer
from videomind.eval.compare import main as compare
from videomind.eval.evaluate import main as evaluate
from videomind.eval.picture import main as picture
from videomind.model.combine import main as combine
from videomind.synthetic.__main__ import main as synthetic
from videomind.train.train import main as train
from videomind.video_chatgpt.convert import main as convert
from videomind.video_chatgpt.features.extract import main as extract
from videomind.video_chatgpt.infer import main as chat
from videomind.video_chatgpt.judge.judge import main as judge
from videomind.video_chatgpt.train import main as train_chat

# 002 tells private files and those of the usual 022 apart from what follows the umask.
slowly = pytest.mark.slow
UMASKS = (0o002, pytest.param(0o022, marks=slowly), pytest.param(0o077, marks=slowly))


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def unlike_new(folder: Path, umask: int) -> dict[str, str]:
    """Files and folders below a folder whose permissions are not those of new ones."""
    unlike = {}
    for path in folder.rglob("*"):
        permissions = stat.S_IMODE(path.stat().st_mode)
        if permissions != (0o777 if path.is_dir() else 0o666) & ~umask:
            unlike[str(path.relative_to(folder))] = oct(permissions)
    return unlike


@pytest.mark.slow
@pytest.mark.golden
def test_the_agents_files_follow_the_umask(workshop, tmp_path, umask, monkeypatch):
    """Two checkpoints with the optimizer's state, the role, the whole model, and what is made with them."""
    monkeypatch.setenv("VIDEOMIND_CACHE", str(tmp_path / "cache"))
    role, out = tmp_path / "role", tmp_path / "out"
    steps = ("--max_steps", "2", "--save_steps", "1", "--save_full_model", "True")
    assert train(arguments(workshop, role, *steps, "--report_to", "tensorboard")) == 0
    assert combine([str(tmp_path / "combined"), f"grounder={role}"]) == 0
    of_data = ["--dataset", "charades_sta", "--data_root", str(workshop / "data")]
    assert infer([*of_data, "--model_gnd_path", str(role), "--pred_path", str(out), *SMALL[:4]]) == 0
    assert evaluate([str(out / "output.jsonl")]) == 0
    assert compare([f"it={out}", "--out", str(out / "compared.json")]) == 0
    assert picture([str(out / "strips.png"), f"it={out}"]) == 0
    assert synthetic(["base", str(tmp_path / "base")]) == 0
    assert synthetic(["chat_base", str(tmp_path / "chat_base")]) == 0
    written = {path.name for path in tmp_path.rglob("*")}
    assert {"optimizer.pt", "adapter_model.safetensors", "model.safetensors", "train.log"} <= written
    assert unlike_new(tmp_path, umask) == {}


@pytest.mark.golden
def test_video_chatgpts_files_follow_the_umask(tmp_path, umask):
    golden = videochat.GOLDEN.root
    features = videochat.write_recorded_features(tmp_path / "recorded")
    adapter = ("--tune_mm_mlp_adapter", "True")
    for name, flags in (("whole", ()), ("adapter", adapter)):
        assert train_chat(videochat.arguments(tmp_path / name, features, "--max_steps", "2", *flags)) == 0
    (tmp_path / "rows.json").write_text(json.dumps([{"q": "Who?", "a": "It.", "video_id": "vidA"}]))
    rows, instructions = str(tmp_path / "rows.json"), str(tmp_path / "instructions.json")
    assert convert(["--input_json_file", rows, "--output_json_file", instructions]) == 0
    videos = ["--video_dir_path", str(golden / "c_features/videos")]
    tower = ["--vision_tower", str(golden / "c_features/clip")]
    for kind in ("pkl", "safetensors"):
        made = ["--clip_feat_path", str(tmp_path / kind), "--format", kind]
        assert extract([*videos, *made, *tower]) == 0
    (tmp_path / "asked.json").write_text(json.dumps([{"video_name": "vidA", "Q": "Who?", "A": "It."}]))
    asked = ["--gt_file", str(tmp_path / "asked.json"), "--clip_feat_path", str(features)]
    answers = ["--output_dir", str(tmp_path / "out"), "--output_name", "answers", "--max_new_tokens", "2"]
    assert chat(["--model-name", str(tmp_path / "whole"), *asked, *answers]) == 0
    replies = ["--output_dir", str(tmp_path / "replies"), "--output_json", str(tmp_path / "all.json")]
    scored = ["--criterion", "detail", "--judge", "exact", "--pred_path", str(tmp_path / "out/answers.json")]
    assert judge([*scored, *replies]) == 0
    written = {path.name for path in tmp_path.rglob("*")}
    assert {"optimizer.pt", "pytorch_model.bin", "mm_projector.bin", "chat.log"} <= written
    assert unlike_new(tmp_path, umask) == {}
