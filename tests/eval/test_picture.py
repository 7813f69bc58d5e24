"""The picture of predictions is drawn, whatever its samples lack."""

import pytest
from helpers.records import record
from helpers.videos import write_video
from PIL import Image

from videomind.eval.picture import FOUND, TRUE, main
from videomind.files import write_json_lines


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
