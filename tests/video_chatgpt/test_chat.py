"""Answers about one video, a folder, and the three kinds of evaluation files.

Covers `video_chatgpt/asking.py`, `video_chatgpt/infer.py` and `video_chatgpt/options.py`.
"""

import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.videochat import (
    BASE,
    GOLDEN,
    VIDEOS,
    recorded_features,
    unrolled,
    with_last_letters,
    write_recorded_features,
    write_seeing_adapter,
)
from transformers import PreTrainedTokenizerFast

from videomind.model.checkpoint import LoadSettings
from videomind.runs.workers import ResultFile
from videomind.video.reader import BadVideoError
from videomind.video_chatgpt import infer as video_chatgpt
from videomind.video_chatgpt.adapter import load_chat
from videomind.video_chatgpt.asking import answer_rows
from videomind.video_chatgpt.chat import VideoChat, clean, find_video
from videomind.video_chatgpt.disk import LoadedVideoModel
from videomind.video_chatgpt.features.store import write_features
from videomind.video_chatgpt.infer import main
from videomind.video_chatgpt.tokenizer import decode_pieces

pytestmark = pytest.mark.golden
WHOLE = GOLDEN.root / "e_model/full_save"
ADAPTER = GOLDEN.root / "e_model/train/out/mm_projector.bin"
CASES = GOLDEN.json("e_model/expected_generation.json")
ONE, TWO, THREE = (VIDEOS * 3)[:3]
GENERAL = [
    {"video_name": name, "Q": f"What is {n}?", "A": "It."}
    for n, name in zip("ABCA", (ONE, TWO, THREE, ONE), strict=True)
]


class Recorded:
    """The recorded features, as a source; reading "lost" fails."""

    def __init__(self):
        self.found, self.read_names = recorded_features(), Counter()
        self.reads = threading.Semaphore(0)  # one for each

    def read(self, name: str) -> np.ndarray:
        self.read_names[name] += 1
        self.reads.release()
        if name == "lost":
            raise BadVideoError("lost: gone")
        return self.found[name]

    def features(self, found: np.ndarray) -> np.ndarray:
        return found


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    return write_recorded_features(tmp_path_factory.mktemp("features"))


@pytest.fixture
def ask(tmp_path, features):
    """Runs the command. Returns: its exit code and the rows it wrote."""

    def run(*argv: str, name: str = "pred", **files: object) -> tuple[int, list[dict]]:
        for flag, content in files.items():
            path = tmp_path / f"{flag}.json"
            path.write_text(json.dumps(content))
            argv = (*argv, f"--{flag}", str(path))
        argv = (*argv, "--output_dir", str(tmp_path / "out"), "--output_name", name)
        if "--clip_feat_path" not in argv and "--vision_tower" not in argv:
            argv = (*argv, "--clip_feat_path", str(features))
        code = main([*SMALL, *argv])
        path = tmp_path / f"out/{name}.json"
        return code, json.loads(path.read_text()) if path.is_file() else []

    return run


SMALL = ("--model-name", str(WHOLE), "--max_new_tokens", "4", "--temperature", "0")


@pytest.mark.parametrize("row", GOLDEN.json("d_samples/postprocess_table.json"))
def test_answers_keep_their_last_letters(row):
    """D617: the original cut every s, /, < and > off the end."""
    assert clean(row["raw"]) == with_last_letters(row["raw"], row["cleaned"])


def test_what_cleaning_leaves():
    assert [clean(text) for text in (" cats</s> ", "glass", "a <b>", "</s>")] == [
        "cats",
        "glass",
        "a <b>",
        "",
    ]


@pytest.mark.parametrize("model", [(WHOLE, None), (BASE, ADAPTER)], ids=["whole", "adapter"])
@pytest.mark.parametrize("together", [True, False])
def test_the_recorded_answers(model, together):
    loaded = load_chat(*model, LoadSettings())
    for cases in [CASES] if together else [[case] for case in CASES]:
        check_answers(loaded, cases)


def test_recorded_answers_that_lost_their_last_letters():
    """D617: the recorded answers again, each as if it had ended where the original cuts something off."""
    loaded = load_chat(WHOLE, None, LoadSettings())
    for case in CASES:
        for shorter in ending_with_letters_of_the_mark(case, loaded.tokenizer):
            assert clean(shorter["decoded"]) != shorter["cleaned"]
            check_answers(loaded, [shorter])


def ending_with_letters_of_the_mark(case: dict, tokenizer: PreTrainedTokenizerFast) -> Iterator[dict]:
    """A recorded case at each shorter length whose last letters are some of those of `</s>`."""
    for length in range(1, len(case["new_token_ids"])):
        ids = case["new_token_ids"][:length]
        text = decode_pieces(tokenizer, ids)
        if (cut := text.strip().rstrip("</s>").strip()) != text.strip():
            yield {**case, "new_token_ids": ids, "decoded": text, "cleaned": cut}


def check_answers(loaded: LoadedVideoModel, cases: list[dict]) -> None:
    """Answer recorded cases in one batch; the one difference allowed is that of D617."""
    length = max(len(case["new_token_ids"]) for case in cases)
    chat = VideoChat(loaded, Recorded(), max_new_tokens=length, temperature=0)
    prompts = [torch.tensor(unrolled(case["prompt_input_ids_rle"])) for case in cases]
    answers = chat.generate(prompts, [chat.features(case["features"]) for case in cases])
    for case, ids in zip(cases, answers.tolist(), strict=True):
        recorded = case["new_token_ids"]
        assert ids[: len(recorded)] == recorded
        text = decode_pieces(loaded.tokenizer, recorded)
        assert text == case["decoded"]
        assert clean(text) == with_last_letters(text, case["cleaned"])


def test_general_questions(ask):
    code, rows = ask(gt_file=GENERAL)
    assert code == 0
    assert [{k: v for k, v in row.items() if k != "pred"} for row in rows] == GENERAL
    assert all(row["pred"] for row in rows)


def test_consistency_questions(ask):
    gt = [{"video_name": ONE, "Q1": "Who?", "Q2": "Which man?", "A": "x"}]
    code, rows = ask(gt_file=gt)
    assert code == 0 and [set(row) - set(gt[0]) for row in rows] == [{"pred1", "pred2"}]
    single = ask(name="one", gt_file=[{"video_name": ONE, "Q": "Which man?", "A": "x"}])[1]
    assert single[0]["pred"] == rows[0]["pred2"]


def test_zero_shot_questions_are_matched_by_position(ask):
    asked = [
        {"video_name": name, "question": f"{n}?", "question_id": f"q{n}"}
        for n, name in (("B", TWO), ("A", ONE))
    ]
    code, rows = ask(gt_file_question=asked, gt_file_answers=[{"answer": "one"}, {"answer": "two"}])
    assert code == 0
    assert [{k: v for k, v in row.items() if k != "pred"} for row in rows] == [
        {"id": "qB", "question": "B?", "answer": "one"}, {"id": "qA", "question": "A?", "answer": "two"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"gt_file": [{"video_name": "a"}]}, "row 0, has no video_name with Q"),
        ({"gt_file": {}}, "holds no list of questions"),
        ({"gt_file_question": []}, "go together"),
        (
            {
                "gt_file_question": [{"video_name": "a", "question": "b", "question_id": "1"}],
                "gt_file_answers": [{"answer": "x", "question_id": "2"}],
            },
            "row 0, is not the answer to question '1'",
        ),
        *(
            ({"gt_file_question": [{"video_name": "a", "question": "b"}], "gt_file_answers": [answer]}, words)
            for answer in (None, 3, "x", [], {})
            for words in ["gt_file_answers.json, row 0, has no answer"]
        ),
        (
            {"gt_file_question": [{"video_name": "a", "Q": "b"}], "gt_file_answers": [{"answer": "x"}]},
            "gt_file_question.json, row 0, has no question",
        ),
    ],
)
def test_files_that_are_none(ask, capfd, files, words):
    code, rows = ask(**files)
    assert code == 2 and not rows
    assert words in capfd.readouterr().err


@pytest.mark.parametrize("first", [True, False])
def test_a_missing_video_is_not_replaced(ask, first):
    """D612: the first one was a NameError, a later one got the previous video's answer."""
    lost = {"video_name": "lost", "Q": "What is A?", "A": "It."}
    code, rows = ask(gt_file=[lost, *GENERAL] if first else [*GENERAL, lost])
    assert code == 3 and len(rows) == 5  # more than --max_bad_share
    (failed,) = [row for row in rows if "error" in row]
    assert failed["video_name"] == "lost" and "pred" not in failed
    assert "No features of 'lost'" in failed["error"]


def test_a_rerun_does_what_is_missing_or_failed(ask, features, tmp_path, monkeypatch):
    asked: list[str] = []
    answer, rows = VideoChat.answer, [*GENERAL, {"video_name": "late", "Q": "Where?", "A": "x"}]

    def record(self, batch):
        asked.extend(question for _, question in batch)
        if len(asked) == 3 and "killed" not in asked:
            asked.append("killed")
            raise KeyboardInterrupt
        return answer(self, batch)

    monkeypatch.setattr(VideoChat, "answer", record)
    folder = tmp_path / "features"
    write_recorded_features(folder)
    with pytest.raises(KeyboardInterrupt):
        ask("--clip_feat_path", str(folder), gt_file=rows)
    first = ask("--clip_feat_path", str(folder), gt_file=rows)[1]
    answered, again = asked[:2], asked[4:]  # the third was killed
    assert sorted([*answered, *again]) == ["What is A?", "What is A?", "What is B?", "What is C?"]
    assert "error" in first[-1]
    write_features(folder / "late.safetensors", recorded_features()[TWO])
    second = ask("--clip_feat_path", str(folder), gt_file=rows)[1]
    assert asked[6:] == ["Where?"]
    assert second[:-1] == first[:-1] and second[-1]["pred"]
    ask("--clip_feat_path", str(folder), gt_file=rows)
    assert len(asked) == 7


def test_videos_are_read_ahead_and_once(tmp_path, monkeypatch):
    """While one row is answered the next two videos are read; rows about one video share its features."""
    source, answer = Recorded(), VideoChat.answer
    answered: list[int] = []
    read_before_the_first: set[str] = set()
    chat = VideoChat(load_chat(WHOLE, None, LoadSettings()), source, max_new_tokens=2, temperature=0)

    def wait_then_answer(self, batch):
        if not answered:
            for _ in range(3):
                assert source.reads.acquire(timeout=60), "nothing is read ahead"
            read_before_the_first.update(source.read_names)
        answered.append(len(batch))
        return answer(self, batch)

    monkeypatch.setattr(VideoChat, "answer", wait_then_answer)
    names = [ONE, TWO, "lost", THREE, THREE, THREE]
    rows = [{"video_name": name, "Q": "What?", "A": "x"} for name in names]
    results = ResultFile(tmp_path, {})
    answer_rows(chat, rows, [[i] for i in range(6)], results, seed=0, num_threads=2)
    assert read_before_the_first == {ONE, TWO, "lost"}
    assert [source.read_names[name] for name in (ONE, TWO, THREE)] == [1, 1, 1]
    done = results.done()
    assert sorted(done) == list(range(6)) and [i for i in done if "error" in done[i]] == [2]


def test_batches_change_no_answer(ask):
    one = ask(gt_file=GENERAL)[1]
    assert ask("--batch_size", "3", name="batches", gt_file=GENERAL)[1] == one


def test_a_prompt_longer_than_the_model_and_what_it_cannot_do_end_one_row(ask, monkeypatch):
    """D629: whichever rows share its batch."""
    answer = VideoChat.answer

    def fails(self, asked):
        if any("fails" in question for _, question in asked):
            raise RuntimeError("shapes differ")
        return answer(self, asked)

    monkeypatch.setattr(VideoChat, "answer", fails)
    long = {"video_name": ONE, "Q": "word " * 3000, "A": "x"}
    wrong = {"video_name": TWO, "Q": "what fails?", "A": "x"}
    good = ask(gt_file=GENERAL)[1]
    for size in ("1", "2", "6"):
        argv = ("--batch_size", size, "--max_bad_share", "1")
        code, rows = ask(*argv, name=f"of_{size}", gt_file=[GENERAL[0], long, wrong, *GENERAL[1:]])
        assert code == 0 and [rows[0], *rows[3:]] == good
        assert "tokens, the model has 2048 positions" in rows[1]["error"] and "pred" not in rows[1]
        assert "RuntimeError" in rows[2]["error"] and "shapes differ" in rows[2]["error"]


def test_other_settings_need_another_name(ask, capfd):
    ask(gt_file=GENERAL)
    assert ask("--conv-mode", "vicuna_v1_1", gt_file=GENERAL)[0] == 2
    assert "Choose another --output_name" in capfd.readouterr().err


def test_one_video_is_asked_what_stdin_holds(features, monkeypatch, capfd):
    monkeypatch.setattr("sys.stdin", io.StringIO("Who?\n\nWhere?\n"))
    argv = [*SMALL, "--clip_feat_path", str(features), "--video_path", f"some/{ONE}.mp4"]
    assert main(argv) == 0
    found = capfd.readouterr().out.splitlines()
    assert len(found) == 2
    assert main([*argv, "--question", "Where?"]) == 0
    assert capfd.readouterr().out.splitlines() == found[1:]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory) -> tuple[Path, Path]:
    return write_seeing_adapter(tmp_path_factory.mktemp("adapter"))


def test_videos_of_a_folder_through_the_tower(seeing, ask, tmp_path):
    """The tower that is named is the one that is used; stored features give the same answers."""
    adapter, tower = seeing
    model = ("--model-name", str(BASE), "--projection_path", str(adapter))
    videos = GOLDEN.root / "c_features/videos"
    seen = (*model, "--video_dir", str(videos), "--question", "What happens?")
    code, rows = ask(*seen, "--vision_tower", str(tower), "--max_bad_share", "0.5")
    assert code == 0
    assert {row["video_name"] for row in rows} == {path.name for path in videos.iterdir()}
    (failed,) = [row for row in rows if "error" in row]
    assert failed["video_name"] == "broken.mp4"
    arrays = GOLDEN.npz("c_features/expected_features.npz")
    stored = tmp_path / "stored"
    for video in GOLDEN.json("c_features/videos.json"):
        name = video["pickle_name"].removesuffix(".pkl")
        features = arrays[f"{name}__f32"].astype(np.float16)
        write_features(stored / f"{Path(video['video']).stem}.pkl", features)
    again = ask(*seen, "--clip_feat_path", str(stored), name="stored")[1]
    assert [row.get("pred") for row in again] == [row.get("pred") for row in rows]


def test_a_tower_of_another_size_is_refused(seeing, tmp_path, capfd, ask):
    adapter, tower = seeing
    settings = json.loads(adapter.with_suffix(".json").read_text())
    settings["num_video_tokens"] += 1
    copy = tmp_path / "mm_projector.bin"
    copy.write_bytes(adapter.read_bytes())
    copy.with_suffix(".json").write_text(json.dumps(settings))
    model = ("--model-name", str(BASE), "--projection_path", str(copy), "--vision_tower", str(tower))
    assert ask(*model, "--video_dir", "x", gt_file=GENERAL)[0] == 2
    wanted = f"but the model was trained on ({settings['num_video_tokens']}, "
    message = capfd.readouterr().err
    assert wanted in message and "Choose that tower (--vision_tower)" in message


def test_extensions_are_tried_in_order(tmp_path):
    for name in ("a.mkv", "a.mov", "b.x.avi"):
        (tmp_path / name).touch()
    assert find_video(tmp_path, "a").name == "a.mov"
    assert find_video(tmp_path, "b.x").name == "b.x.avi"
    assert find_video(tmp_path, "a.mkv").name == "a.mkv"
    with pytest.raises(ValueError, match="No video 'c' in .*.mp4, .avi, .mov, .mkv"):
        find_video(tmp_path, "c")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--clip_feat_path", "x"], "Give either --video_path, or --video_dir"),
        ([], "Nothing to look at"),
        (["--conv-mode", "v", "--video_path", "x"], "Unknown conversation 'v'"),
        (["--video_dir", "nowhere", "--question", "q"], "needs --output_dir and --output_name"),
    ],
)
def test_arguments_that_cannot_be_used(argv, words, capfd):
    assert video_chatgpt.main([*SMALL, *argv]) == 2
    assert words in capfd.readouterr().err
