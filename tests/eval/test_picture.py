"""The picture of predictions is drawn, whatever its samples lack."""

import pytest
from helpers.records import record
from helpers.videos import write_video
from PIL import Image

from videomind.eval.picture import FOUND, LABEL, PASSED_OVER, TRUE, beside, draw_chain, main
from videomind.files import write_json_lines
from videomind.prediction import Prediction


def colours(path) -> set[tuple[int, ...]]:
    return {colour for _, colour in Image.open(path).convert("RGB").getcolors(1 << 20)}


LACKS = [{}, {"duration": None}, {"query": None, "question": "what is it?"}]


@pytest.mark.parametrize("lacks", LACKS, ids=["nothing", "duration", "query"])
def test_moments_and_predictions_are_drawn(tmp_path, lacks):
    write_video(tmp_path / "v.mp4", 20)
    video = {"video_path": str(tmp_path / "v.mp4"), "duration": 2.0, "query": "a dog"}
    row = record([[0.5, 1.5]], [[0.0, 1.0]], **video)
    write_json_lines(tmp_path / "run/output.jsonl", [{**row, **lacks}])
    assert main([str(tmp_path / "out/p.png"), f"run={tmp_path / 'run'}"]) == 0
    assert {TRUE, FOUND} <= colours(tmp_path / "out/p.png")


def test_a_sample_whose_video_cannot_be_read_is_drawn_without(tmp_path, caplog):
    row = {**record([], [[0.0, 1.0]], video_path=str(tmp_path / "gone.mp4"), error="gone"), "pred": None}
    write_json_lines(tmp_path / "run/output.jsonl", [row])
    assert main([str(tmp_path / "p.png"), f"run={tmp_path / 'run'}"]) == 0
    assert TRUE in colours(tmp_path / "p.png") and FOUND not in colours(tmp_path / "p.png")
    assert any("A strip is left empty" in said and "gone.mp4" in said for said in caplog.messages)


CHAIN = {
    "question": "what is the floor?", "options": ["white", "pink"], "ans": "B", "answer": "pink",
    "planner_response": "ground it", "duration": 2.0, "pred": [[0.5, 1.0], [0.0, 0.4]], "conf": [0.4, 0.9],
    "probs": [0.1, 0.7], "ranks": [1, 0], "pred_ori": [[0.0, 0.4], [0.5, 1.0]],
    "conf_ori": [0.9, 0.4], "span": [[0.5, 1.0]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("response", "word"), [("(B) pink", "right: pink"), ("(A)", "wrong: it is B, pink"), ("", "wrong")]
)
def test_what_every_role_did_is_drawn(tmp_path, monkeypatch, response, word):
    """One run of questions: plan, candidates in the grounder's order with both scores, the answer."""
    written = []
    monkeypatch.setattr(
        "videomind.eval.picture.ImageDraw.ImageDraw.text", lambda *args, **_: written.append(args[2])
    )
    write_video(tmp_path / "v.mp4", 20)
    row = CHAIN | {"video_path": str(tmp_path / "v.mp4"), "response": response}
    write_json_lines(tmp_path / "run/output.jsonl", [row])
    assert main([str(tmp_path / "p.png"), f"run={tmp_path / 'run'}"]) == 0
    assert {TRUE, FOUND, PASSED_OVER} <= colours(tmp_path / "p.png")
    assert written[0] == "“what is the floor?”" and "ground it" in written
    assert "grounder 0.90, verifier 0.10" in written and "grounder 0.40, verifier 0.70" in written
    assert written.index("1.") < written.index("2. chosen") < written.index("answer")
    assert any(word in text for text in written)


@pytest.mark.parametrize("lacks", [name for name in CHAIN if name not in ("duration", "question")])
def test_a_chain_is_drawn_whatever_did_not_run(tmp_path, lacks):
    write_video(tmp_path / "v.mp4", 20)
    row = CHAIN | {"video_path": str(tmp_path / "v.mp4"), "response": "(B)", lacks: None}
    assert draw_chain(Prediction.from_json(row)).width > 0


@pytest.mark.parametrize("moment", [(80, 200), (80, 700), (500, 760), (300, 560), (640, 836)])
def test_words_lie_beside_the_moment_and_on_the_bar(moment):
    left = beside([moment], 150, 836)
    assert left + 150 < moment[0] or left > moment[1]
    assert left >= LABEL and (left + 150 < 836 or moment == (80, 700))  # which leaves no room at all
