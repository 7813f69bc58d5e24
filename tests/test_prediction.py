"""The lines of output.jsonl: read and written without loss, and refused where they have another form."""

import json
from dataclasses import fields, replace

import pytest
from helpers.goldens import golden_manifest

from videomind.agent.chain import Candidate, Plan, Result, annotation_fields
from videomind.dataset.schema import Annotation
from videomind.prediction import Prediction, read_predictions

CHAINS = [case["id"] for case in golden_manifest("model")["cases"] if case["id"].startswith("infer.")]


@pytest.mark.golden
@pytest.mark.parametrize("case_id", CHAINS)
def test_a_line_of_the_original_is_written_as_it_was_read(golden, case_id):
    for row in golden.json(f"model/{case_id}.output.json"):
        prediction = Prediction.from_json(row)
        assert json.dumps(prediction.to_json()) == json.dumps(row)
        assert prediction.response == row.get("response") and prediction.pred == row.get("pred")


# Values that a line may hold under a key; None is what some files write instead of leaving the key out.
VALUES = {
    "error": "broken",
    "agents": ["grounder"],
    "planner_parsed_query": {"any": "thing"},
    "grounder_success": False,
    "pred": [[0, 1.5], [2, 3]],
    "conf": [0.5, 0],
    "ranks": [1, 0],
    "response": "(A) x",
    "source": "star",
    "span": [[1, 2]],
    "a key that nobody knows": [1],
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("empty", [True, False])
def test_every_key_survives_at_its_place(name, empty):
    names = list(VALUES)
    for shift in range(len(names)):  # orders that differ from the one we write
        row = {key: VALUES[key] for key in names[shift:] + names[:shift]}
        row[name] = None if empty else row[name]
        assert json.dumps(Prediction.from_json(row).to_json()) == json.dumps(row)


def test_what_is_found_later_is_written_too():
    read = Prediction.from_json({"query": "x", "unknown": 1})
    assert list(replace(read, response="A").to_json().items()) == [
        ("query", "x"),
        ("unknown", 1),
        ("response", "A"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "a JSON list, expected a record"),
        ({"pred": [0, 1]}, r"'pred' is \[0, 1\], expected \[\[start, end\]"),
        ({"pred": [[0, 1, 2]]}, "'pred' is"),
        ({"pred": [["a", "b"]]}, "'pred' is"),
        ({"pred_ori": 3}, "'pred_ori' is 3"),
        ({"conf": [True]}, "'conf' is"),
        ({"response": 4}, "'response' is 4, expected text"),
        ({"grounder_success": "no"}, "'grounder_success' is no, expected true or false"),
        ({"agents": "grounder"}, "'agents' is grounder, expected a list of names"),
    ],
)
def test_another_form_is_refused_by_name_and_place(row, message):
    with pytest.raises(ValueError, match=f"line 2: {message}"):
        read_predictions([("line 1", {}), ("line 2", row)])


def test_source_and_tasks():
    named, unnamed = (
        Prediction(annotation=a) for a in ({"source": "star", "task": ["a", "b"]}, {"task": ""})
    )
    assert (named.source, named.tasks) == ("star", ("a", "b"))
    assert (unnamed.source, unnamed.tasks) == ("unknown", ("unknown",))


def test_no_field_of_an_annotation_is_taken_for_a_finding():
    """The two share one line: a name of both would be overwritten, but for a candidate to judge."""
    found = {field.name for field in fields(Prediction)} - {"annotation", "keys"}
    assert found & {field.name for field in fields(Annotation)} == {"pred"}
    judged = Annotation(video_path="v.mp4", query="x", pred=[0, 1], positive=True)
    assert annotation_fields(judged) == {
        "source": "unknown",
        "video_path": "v.mp4",
        "query": "x",
        "positive": True,
    }


def test_the_keys_of_a_line_stand_in_the_published_order():
    result = Result(agents=["planner", "grounder", "verifier", "answerer"], duration=9.0, answer="A")
    result.plan = Plan(response="[]", query="y", is_readable=False)
    result.grounder_response, result.is_grounded = "in <|reg|>", True
    result.proposed = [Candidate(span=[i, i + 1], score=0.5, verdict=0.6) for i in range(2)]
    result.candidates, result.ranks = result.proposed[::-1], [1, 0]
    row = result.prediction(Annotation(source="s", query="x", task="t")).to_json()
    assert list(row) == [
        *("source", "query", "task", "duration", "agents"),
        *("planner_response", "planner_parsed_query", "planner_unparsable"),
        *("grounder_response", "grounder_success", "pred", "conf"),
        *("probs", "ranks", "pred_ori", "conf_ori", "answerer_response", "response"),
    ]
    assert row["pred"] == [[1, 2], [0, 1]] and row["pred_ori"] == [[0, 1], [1, 2]]
