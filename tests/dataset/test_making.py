"""Planning and verifying files made from what is there.

Covers `dataset/commands.py`.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from videomind.dataset.commands import main
from videomind.dataset.making import planning_row, verifying_rows
from videomind.dataset.parts import Entry, load_part
from videomind.dataset.schema import Annotation
from videomind.prediction import Prediction


def planned(**fields) -> tuple:
    row = planning_row(Annotation(source="s", video_path="v.mp4", duration=9, **fields))
    return row["route"], row.get("query")


@pytest.mark.parametrize(
    ("fields", "route", "query"),
    [
        ({"query": "a dog jumps"}, 3, "a dog jumps"),
        ({"question": "why did the man run?"}, 2, None),
        ({"question": "what did he do after the dog  barked ?"}, 1, "the dog barked"),
        ({"question": "how many people are in the room?"}, 4, None),
        ({"question": "what is this video about?"}, 4, None),
        ({"question": "where is it", "task": "DL"}, 4, None),
        ({"question": "why is it", "task": "CW"}, 2, None),
        ({"question": "where is it", "task": ["DO", "x"]}, 4, None),
    ],
)
def test_routes(fields, route, query):
    assert planned(**fields) == (route, query)
    assert planning_row(Annotation(video_path="v.mp4")) is None


def test_verifying_rows_need_a_moment_and_predictions():
    good = {"video_path": "v", "duration": 9, "query": "x", "span": [[1, 2]], "pred": [[1, 2]], "conf": [1]}
    records = [
        {**good, "grounder_success": True, "agents": ["grounder"]},
        {**good, "span": None},
        {**good, "grounder_success": False},
        {"video_path": "v", "error": "broken", "grounder_success": False},
    ]
    assert list(verifying_rows(map(Prediction.from_json, records))) == [good]


@pytest.fixture
def annos(tmp_path):
    rows = [
        {"question": "why did the man run?", "answer": "a dog"},
        {"question": "what is this video about?", "answer": "a dog"},
        {"question": "what is it?", "answer": "b"},
    ]
    (tmp_path / "v.mp4").touch()
    text = "".join(json.dumps({"video": "v.mp4", "duration": 9, **row}) + "\n" for row in rows)
    (tmp_path / "annos.jsonl").write_text(text)
    return str(tmp_path / "annos.jsonl")


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_file_trains_a_planner_and_a_rerun_continues_it(annos, tmp_path):
    out = tmp_path / "plans.jsonl"
    assert main(["make-planning", annos, "--out", str(out)]) == 0
    whole = out.read_text()
    assert [row["route"] for row in lines(out)] == [2, 4, 2]
    first = len(whole.splitlines(keepends=True)[0])
    for length in range(first, first + 9):  # as a kill leaves it, the second line cut short
        out.write_text(whole[:length])
        assert main(["make-planning", annos, "--out", str(out)]) == 0
        assert out.read_text() == whole
    (tmp_path / "data/planning").mkdir(parents=True)
    out.rename(tmp_path / "data/planning/planning_nextqa_qvhighlights_gpt4o_mini.jsonl")
    part = load_part(Entry(name="mixed_planning"), data_root=tmp_path / "data")
    assert len(part.annotations) == 3 and not part.report.dropped


def test_a_weight_below_one_takes_a_part(annos, tmp_path):
    assert main(["make-planning", f"{annos}:0.34", "--out", str(tmp_path / "plans.jsonl")]) == 0
    assert len(lines(tmp_path / "plans.jsonl")) == 1


class Model(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint that turns questions around."""

    asked: list[dict] = []
    status = 200

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Model.asked.append({**body, "path": self.path})
        message = {"role": "assistant", "content": " The man runs. "}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "1", "created": 0, "model": body["model"], "choices": [choice], "usage": {}}
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    server = HTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Model.asked, Model.status = [], 200
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def test_a_language_model_rephrases(annos, tmp_path, endpoint, capfd):
    out = tmp_path / "plans.jsonl"
    argv = ["make-planning", annos, "--out", str(out), "--endpoint", endpoint, "--endpoint_model", "m"]
    assert main(argv) == 0
    assert [(row["route"], row.get("query")) for row in lines(out)] == [
        (1, "The man runs"),
        (4, None),
        (1, "The man runs"),
    ]
    assert [a["path"] for a in Model.asked] == ["/v1/chat/completions"] * 2
    assert "why did the man run?" in Model.asked[0]["messages"][0]["content"]
    assert main(argv) == 0 and len(Model.asked) == 2  # all is there
    out.unlink()
    Model.status = 500
    assert main(argv) == 2
    screen = capfd.readouterr().err
    assert endpoint in screen and "Traceback" not in screen
    assert main(argv[:-2]) == 2
