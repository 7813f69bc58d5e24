"""The submission of QVHighlights: every query once, whatever the chain found for it.

Covers `eval/scorers/qvhighlights.py`.
"""

import itertools
import json
from dataclasses import replace

import pytest

from videomind.agent.chain import Candidate, Plan, Result, even_spans
from videomind.dataset.schema import Annotation
from videomind.eval.qvhighlights import evaluate_qvhighlights
from videomind.eval.scorers.qvhighlights import QVHighlightsScorer, submission_row
from videomind.prediction import Prediction

DURATION = 24.0
ANNO = Annotation(
    source="qvhighlights", query="x", duration=DURATION, span=[[0, 8]], meta={"vid": "v", "qid": 3}
)


def predicted(*, has_plan: bool, found: bool | None, has_verifier: bool, error: bool) -> Prediction:
    """What each kind of chain makes of a query."""
    if error:
        return Prediction(annotation=ANNO.to_dict(), error="broken", grounder_success=False)
    result = Result(duration=DURATION)
    if has_plan:
        result.plan = Plan(response="[]", should_ground=found is not None)
    if found is not None:
        result.grounder_response, result.is_grounded = "said", found
        spans = [[0, 8], [8, 16]] if found else even_spans(DURATION) if has_verifier else [[0, DURATION]]
        scores = [0.75, 0.25] if found else [0] * len(spans)
        result.proposed = [
            Candidate(span=s, score=c, verdict=0.5) for s, c in zip(spans, scores, strict=True)
        ]
        result.candidates = result.proposed
        if has_verifier:
            result.ranks = list(range(len(spans)))[::-1]
            result.candidates = result.proposed[::-1]
    return result.prediction(ANNO)


CHAINS = [
    dict(zip(("has_plan", "found", "has_verifier", "error"), chain, strict=True))
    for chain in itertools.product((True, False), (True, False, None), (True, False), (True, False))
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_every_chain_gives_a_row_that_the_official_metrics_read(chain):
    prediction = predicted(**chain)
    read_again = Prediction.from_json(json.loads(json.dumps(prediction.to_json())))
    row = submission_row(read_again)
    assert row == submission_row(prediction)
    assert (row["vid"], row["qid"]) == ("v", 3)
    windows = row["pred_relevant_windows"]
    assert windows and all(len(window) == 3 for window in windows)
    scores = evaluate_qvhighlights([row], [{"qid": 3, "relevant_windows": [[0, 8]]}])
    assert scores.missing == ()
    if chain["error"]:
        assert scores.metrics["full"]["MR-mIoU"] == 0
    elif chain["found"] is None:
        assert windows == [[0, DURATION, 1.0]]
    elif chain["found"]:
        expected = [[0, 8, 0.75], [8, 16, 0.25]]
        assert windows == (expected[::-1] if chain["has_verifier"] else expected)
    else:
        assert [window[:2] for window in windows] == prediction.pred
        assert {window[2] for window in windows} == {1.0}


def test_a_row_that_is_no_query_of_it_is_named():
    strange = replace(predicted(**CHAINS[-1]), annotation={"query": "x", "vid": "v"})
    with pytest.raises(ValueError, match="A record of 'x' has no 'qid'"):
        submission_row(strange)
    with pytest.raises(ValueError, match="qid 3: 1 windows have 0 scores"):
        submission_row(Prediction(annotation=ANNO.to_dict(), pred=[[0, 1]]))


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("valid", "hl_val_submission"),
        ("test", "hl_test_submission"),
        (None, "hl_submission"),
    ],
)
def test_the_servers_name_of_the_file(split, name):
    assert QVHighlightsScorer().submission([predicted(**CHAINS[0])], split).file_name == f"{name}.jsonl"


TRUTH = {"qid": 3, "vid": "v", "duration": 24, "relevant_windows": [[0, 8]]}
LABELS = {"relevant_clip_ids": [0], "saliency_scores": [[1, 2, 3]]}


def scored(path, *rows):
    """The outcome of scoring one prediction with a file of annotations."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prediction = Prediction(annotation=ANNO.to_dict(), pred=[[0, 8]], conf=[1.0])
    return QVHighlightsScorer(qvhighlights_anno=path).report([prediction], ["output.jsonl:1"])


@pytest.mark.parametrize(
    "change",
    [
        *({"relevant_windows": value} for value in ({}, 0, "x", [[0]], [[0, 10**400]], [["a", 1]])),
        *({**LABELS, "duration": value} for value in (None, "24", -1, 2**70, 10**400, float("nan"), 1e308)),
        *({**LABELS, "relevant_clip_ids": value} for value in ({}, 0, [-1], [99], [10**400], [0, 1])),
        *({**LABELS, "saliency_scores": value} for value in ({}, 0, [[1, 2]], [[10**400] * 3])),
        {"qid": None},
    ],
    ids=str,
)
def test_annotations_of_another_form_are_named_with_file_and_line(tmp_path, change):
    with pytest.raises(ValueError, match=r"anno\.jsonl:2: "):
        scored(tmp_path / "anno.jsonl", TRUTH, {**TRUTH, "qid": 4, **change})


def test_windows_of_a_submission_of_another_form_are_named_with_their_line(tmp_path):
    (tmp_path / "anno.jsonl").write_text(json.dumps(TRUTH))
    wrong = Prediction(annotation={"qid": 3, "vid": "v", "pred_relevant_windows": [[0, 1]]})
    with pytest.raises(ValueError, match="hl.jsonl:7: .*expected a list of rows of 3"):
        QVHighlightsScorer(qvhighlights_anno=tmp_path / "anno.jsonl").report([wrong], ["hl.jsonl:7"])


def test_odd_and_equal_annotations_are_said(tmp_path):
    odd = [{**TRUTH, "relevant_windows": [window]} for window in ([-2, 0], [4, 2], [0, 30])]
    rows = [TRUTH, TRUTH, *({**row, "qid": 10 + i} for i, row in enumerate(odd))]
    remarks = " ".join(scored(tmp_path / "anno.jsonl", *rows).remarks)
    assert "1 qids are annotated twice alike and count once: qid 3" in remarks
    for reason in ("begins before the video", "ends before it starts, or at once", "reaches beyond"):
        assert f"1 annotations: moment {reason}" in remarks
