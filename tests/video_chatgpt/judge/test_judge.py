"""Scoring: the recorded scores, replies that cannot be used, reruns, and the judges.

Covers `video_chatgpt/judge/` and `runs/endpoint.py`.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers.goldens import Golden, close, golden_root

from videomind.runs.endpoint import EndpointError
from videomind.video_chatgpt.judge import judge as judging
from videomind.video_chatgpt.judge.criteria import CRITERIA, read_answered_rows
from videomind.video_chatgpt.judge.judge import ATTEMPTS, collect, main
from videomind.video_chatgpt.judge.judges import LOCAL_JUDGES
from videomind.video_chatgpt.judge.replies import (
    Judged,
    ReplyError,
    ReplyFolder,
    parse_reply,
    summarize,
    verdict,
)

GOLDEN = Golden(golden_root("video_chatgpt"))
RECORDED = {"correctness": "correctness", "consistency": "consistency", "zeroshot_qa": "zero_shot_qa"}


def row(name="v", q="What?", a="a red ball", pred="a red ball"):
    return {"video_name": name, "Q": q, "A": a, "pred": pred}


def score(tmp_path, rows, judge, monkeypatch, *, criterion="correctness", extra=()):
    """Run the command with a stand-in judge. Returns: exit code, combined, metrics (None if absent)."""
    monkeypatch.setitem(LOCAL_JUDGES, "exact", judge)
    (tmp_path / "pred.json").write_text(json.dumps(rows))
    for name in ("all.json", "all.metrics.json"):
        (tmp_path / name).unlink(missing_ok=True)
    argv = [
        *("--criterion", criterion, "--pred_path", str(tmp_path / "pred.json"), "--judge", "exact"),
        *("--output_dir", str(tmp_path / "replies"), "--output_json", str(tmp_path / "all.json"), *extra),
    ]
    code = main(argv)
    read = [tmp_path / "all.json", tmp_path / "all.metrics.json"]
    return code, *(json.loads(path.read_text()) if path.is_file() else None for path in read)


@pytest.mark.golden
@pytest.mark.parametrize("recorded", RECORDED)
@pytest.mark.parametrize("num_tasks", ["1", "4"])
def test_the_recorded_scores(recorded, num_tasks, tmp_path, monkeypatch, capsys):
    replies = GOLDEN.json(f"g_eval/judge_{recorded}.json")

    def judge(criterion, fields):
        return next(reply for part, reply in replies.items() if any(part in text for text in fields.values()))

    rows = GOLDEN.json(f"g_eval/pred_{recorded}.json")
    extra = ("--num_tasks", num_tasks)
    code, combined, metrics = score(
        tmp_path, rows, judge, monkeypatch, criterion=RECORDED[recorded], extra=extra
    )
    expected, recorded_metrics = (
        GOLDEN.json(f"g_eval/{name}.json") for name in (f"expected_{recorded}_combined", "expected_metrics")
    )
    assert code == 0 and combined == expected
    files = sorted(path.name for path in (tmp_path / "replies").iterdir())
    assert files == recorded_metrics[f"{recorded}_files"]
    stored = {name[:-5]: json.loads((tmp_path / "replies" / name).read_text()) for name in files}
    assert stored == expected

    def numbers(lines):
        return [(name, float(value)) for name, value in (line.split(": ") for line in lines)]

    printed = capsys.readouterr().out.splitlines()
    assert [name for name, _ in numbers(printed)] == [name for name, _ in numbers(recorded_metrics[recorded])]
    assert close(numbers(printed), numbers(recorded_metrics[recorded]))
    assert metrics["scored"] == len(rows) and not metrics["failed"]


def test_zero_shot_predictions_in_the_layout_of_inference(tmp_path, monkeypatch):
    """D613: what inference writes is what the scorer reads; the other layout scores the same."""
    ours = [{"id": f"q{i}", "question": "What?", "answer": "ball", "pred": p} for i, p in enumerate("ab")]
    theirs = [{"video_name": r["id"], "Q": r["question"], "A": r["answer"], "pred": r["pred"]} for r in ours]
    found = []
    for name, rows in (("ours", ours), ("theirs", theirs)):
        (tmp_path / name).mkdir()
        judge = lambda criterion, fields: "{'pred': 'yes', 'score': 2}"  # noqa: E731
        found.append(score(tmp_path / name, rows, judge, monkeypatch, criterion="zero_shot_qa"))
    assert found[0] == found[1] and found[0][0] == 0
    assert list(found[0][1]) == ["q0_0", "q1_0"]
    assert found[0][1]["q0_0"][1] == {"q": "What?", "a": "ball", "pred": "a"}


def test_a_malformed_reply_is_recorded_and_not_asked_for_without_end(tmp_path, monkeypatch, capfd):
    """D614: attempts are bounded, the reason is kept, a rerun asks again for what is missing only."""
    asked = []

    def judge(criterion, fields):
        asked.append(fields["pred"])
        return "Sorry, I cannot say." if fields["pred"] == "bad" else "{'score': 4}"

    rows = [row(pred="good"), row(pred="bad"), row("w", pred="good")]
    code, combined, metrics = score(tmp_path, rows, judge, monkeypatch)
    assert code == 0 and list(combined) == ["v_0", "w_0"]
    assert asked.count("bad") == ATTEMPTS and asked.count("good") == 2
    assert (metrics["scored"], metrics["average_score"]) == (2, 4.0)
    assert metrics["failed"] == [
        {
            "key": "v_1",
            "reason": "not a Python dictionary: 'Sorry, I cannot say.'",
            "reply": "Sorry, I cannot say.",
        }
    ]
    assert "1 of 3 predictions have no score" in capfd.readouterr().err
    asked.clear()
    again = score(tmp_path, rows, lambda c, f: asked.append(f["pred"]) or "{'score': 1}", monkeypatch)
    assert asked == ["bad"] and list(again[1]) == ["v_0", "v_1", "w_0"] and again[2]["average_score"] == 3.0


def test_replies_to_other_predictions_do_not_count(tmp_path, monkeypatch):
    """D614: what another prediction file left in the folder is neither counted nor taken for ours."""
    rows = [row(pred="one"), row("w", pred="two")]
    assert score(tmp_path, rows, lambda c, f: "{'score': 5}", monkeypatch)[2]["average_score"] == 5.0
    (tmp_path / "replies/x_0.json").write_text("not even JSON")
    code, combined, metrics = score(tmp_path, [row(pred="new")], lambda c, f: "{'score': 1}", monkeypatch)
    assert code == 0 and combined == {"v_0": [{"score": 1}, {"q": "What?", "a": "a red ball", "pred": "new"}]}
    assert (metrics["scored"], metrics["average_score"]) == (1, 1.0)


def test_a_cut_off_file_is_asked_for_again(tmp_path, monkeypatch):
    rows = [row(), row("w")]
    whole = score(tmp_path, rows, lambda c, f: "{'score': 5}", monkeypatch)
    for text in ("[{'sc", "[]", "{}", "[3, 4]", "[[], {}]", '[{"score": 9}, {}]'):
        (tmp_path / "replies/v_0.json").write_text(text)
        assert score(tmp_path, rows, lambda c, f: "{'score': 5}", monkeypatch) == whole


def test_a_run_without_any_score_says_why(tmp_path, monkeypatch, capfd):
    code, combined, metrics = score(tmp_path, [row()], lambda c, f: "no idea", monkeypatch)
    assert (code, combined, metrics["average_score"]) == (2, {}, None) and len(metrics["failed"]) == 1
    assert "None of 1 predictions has a score: not a Python dictionary: 'no idea'" in capfd.readouterr().err


def test_replies_of_another_criterion_are_not_mixed(tmp_path, monkeypatch, capfd):
    assert score(tmp_path, [row()], lambda c, f: "{'score': 5}", monkeypatch)[0] == 0
    argv = {"criterion": "detail"}
    assert score(tmp_path, [row()], lambda c, f: "{'score': 1}", monkeypatch, **argv)[0] == 2
    assert "Choose another --output_dir" in capfd.readouterr().err


def test_rows_that_inference_failed_on_are_counted_as_failed(tmp_path, monkeypatch):
    rows = [row(), {"video_name": "w", "Q": "q", "A": "a", "error": "w: no such file"}]
    _, combined, metrics = score(tmp_path, rows, lambda c, f: "{'score': 5}", monkeypatch)
    assert list(combined) == ["v_0"]
    assert metrics["failed"] == [{"key": "w_0", "reason": "no prediction: w: no such file", "reply": None}]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("{'score': 4.8}", 4),
        ("{'score': '3'}", 3),
        ("{'score': '3.9'}", 3),
        ('Here: ```python\n{"score": 2}\n``` Enjoy!', 2),
    ],
)
def test_replies_that_count(text, score, tmp_path):
    reply = parse_reply(text, CRITERIA["detail"])
    found = summarize([Judged(prediction=None, reply=reply)], [], CRITERIA["detail"])
    assert found.average_score == score


@pytest.mark.parametrize(
    "text",
    [
        *("", "4", "{", "}{", "{4}", "{'score'}", "[{'score': 4}]}", "{'score': None}", "{'score': True}"),
        *("{'score': 6}", "{'score': -1}", "{'score': 1e999}", "{'score': 'high'}", "{'points': 4}"),
        *("{'score': 4, 'why': {1, 2}}", "{" * 5000 + "}", "{'score': __import__('os').getpid()}"),
        "{'score': " + "9" * 400 + "}",
    ],
)
def test_replies_that_do_not_count(text):
    with pytest.raises(ReplyError):
        parse_reply(text, CRITERIA["detail"])


def test_the_verdict_is_yes_before_no():
    texts = ("yes", "No.", "not sure", "maybe", "yes and no")
    assert [verdict({"pred": text}) for text in texts] == ["yes", "no", "no", None, "yes"]
    with pytest.raises(ReplyError, match="no text as 'pred'"):
        parse_reply("{'score': 3}", CRITERIA["zero_shot_qa"])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(), "x"], "pred.json, row 1, is a str"),
        ([{"Q": "q"}], "row 0, has no 'video_name' or 'id'"),
        ([row(), {"video_name": "v", "Q": "q", "A": "a"}], "row 1, has no 'pred'"),
        ([row(pred=3)], "row 0: 'pred' is 3, expected str"),
        ([], "pred.json holds no prediction"),
    ],
)
def test_bad_rows_are_named(rows, words, tmp_path, monkeypatch, capfd):
    assert score(tmp_path, rows, None, monkeypatch)[0] == 2
    assert words in capfd.readouterr().err


@pytest.mark.parametrize(
    ("judge", "pred", "reply"),
    [
        ("exact", "A red ball.", "{'pred': 'yes', 'score': 5}"),
        ("exact", "red ball", "{'pred': 'no', 'score': 0}"),
        ("keywords", "it is a RED thing", "{'pred': 'yes', 'score': 3}"),
        ("keywords", "blue", "{'pred': 'no', 'score': 0}"),
    ],
)
def test_local_judges(judge, pred, reply):
    fields = {"q": "What?", "a": "a red ball", "pred": pred}
    assert LOCAL_JUDGES[judge](CRITERIA["zero_shot_qa"], fields) == reply


def test_consistency_is_that_of_the_worse_answer():
    fields = {"q1": "What?", "q2": "Which?", "a": "a red ball", "pred1": "a red ball", "pred2": "blue"}
    assert LOCAL_JUDGES["keywords"](CRITERIA["consistency"], fields) == "{'score': 0}"


class Model(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint that gives everything four points."""

    asked: list[dict] = []
    status = 200

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Model.asked.append({**body, "key": self.headers["Authorization"]})
        message = {"role": "assistant", "content": "{'score': 4}"}
        answer = {"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setattr(judging, "PAUSE_S", 0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Model.asked, Model.status = [], 200
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def test_an_endpoint_judges(endpoint, tmp_path, monkeypatch):
    extra = ("--judge", endpoint, "--judge_model", "m", "--api_key", "secret", "--num_tasks", "3")
    rows = [row(), row(), row("w", a="its own answer")]
    code, combined, metrics = score(tmp_path, rows, None, monkeypatch, extra=extra)
    assert code == 0 and list(combined) == ["v_0", "v_1", "w_0"] and metrics["average_score"] == 4.0
    assert {(a["key"], a["model"]) for a in Model.asked} == {("Bearer secret", "m")}
    assert any("its own answer" in a["messages"][0]["content"] for a in Model.asked)
    assert "secret" not in "".join(p.read_text() for p in tmp_path.rglob("*.json"))


def test_an_endpoint_that_never_answers_ends_the_run(endpoint, tmp_path, monkeypatch, capfd):
    Model.status = 401
    rows = [row(str(i)) for i in range(9)]
    extra = ("--judge", endpoint, "--judge_model", "m")
    assert score(tmp_path, rows, None, monkeypatch, extra=extra)[0] == 2
    assert len(Model.asked) == judging.TRIALS * ATTEMPTS
    screen = capfd.readouterr().err
    assert "401" in screen and endpoint in screen and "Traceback" not in screen
    assert score(tmp_path, rows, None, monkeypatch, extra=("--judge", "http://127.0.0.1:9/v1"))[0] == 2
    assert "refused" in capfd.readouterr().err


def test_an_unanswered_question_does_not_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "PAUSE_S", 0)

    def judge(criterion, fields):
        if fields["pred"] == "filtered":
            raise EndpointError("filtered")
        return "{'score': 2}"

    rows = [row(pred="filtered"), row(), row("w")]
    _, combined, metrics = score(tmp_path, rows, judge, monkeypatch)
    assert list(combined) == ["v_1", "w_0"] and metrics["failed"][0]["reason"] == "filtered"
    assert score(tmp_path, rows, judge, monkeypatch)[1] == combined


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--judge", "exat"], "Did you mean 'exact'?"),
        (["--judge", "https://api.openai.com/v1"], "needs a key: --api_key, or the variable OPENAI_API_KEY"),
        (["--num_tasks", "0"], "--num_tasks must be at least 1"),
    ],
)
def test_errors_are_one_line(extra, words, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert score(tmp_path, [row()], None, monkeypatch, extra=extra)[0] == 2
    screen = capfd.readouterr().err
    assert words in screen and "Traceback" not in screen


def test_prompts_hold_what_is_judged_and_the_form_of_the_reply(tmp_path):
    for criterion in CRITERIA.values():
        prompt = criterion.prompt({name: f"<{name}>" for name in criterion.fields})
        assert all(f"<{name}>" in prompt for name in criterion.fields)
        assert parse_reply(prompt.rsplit("For example:")[-1], criterion)


def test_names_with_folders_stay_within_the_folder(tmp_path):
    (tmp_path / "pred.json").write_text(json.dumps([row("../a/b")]))
    predictions, _ = read_answered_rows(tmp_path / "pred.json", CRITERIA["detail"])
    folder = ReplyFolder(tmp_path / "replies", CRITERIA["detail"], "stub")
    collect(predictions, lambda c, f: "{'score': 1}", CRITERIA["detail"], folder, num_tasks=1)
    assert [path.name for path in (tmp_path / "replies").iterdir()] == ["..%2Fa%2Fb_0.json"]
