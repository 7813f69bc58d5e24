"""Which scorer records get: their own data set's, whatever stands beside them or on the command line.

Covers `eval/scorer.py`.
"""

import pytest

from videomind.dataset.base import get_source, source_names
from videomind.eval.choice import choose_scorer
from videomind.eval.scorer import Scorer, get_scorer, scorer_names, spec_of
from videomind.eval.scorers.cgbench import CGBenchScorer
from videomind.eval.scorers.default import DefaultScorer
from videomind.eval.scorers.qvhighlights import QVHighlightsScorer
from videomind.prediction import PredictedSplit, Prediction


def of(*sources: str | None) -> list[Prediction]:
    """A record of each source."""
    return [Prediction(annotation={} if source is None else {"source": source}) for source in sources]


@pytest.mark.parametrize("name", source_names())
def test_the_scorer_of_every_data_set_is_there(name):
    assert issubclass(get_scorer(get_source(name).scorer), Scorer)


@pytest.mark.parametrize("name", scorer_names())
def test_every_scorer_is_found_by_its_name_and_its_place(name):
    scorer = get_scorer(name)
    assert scorer.name == name == spec_of(scorer)
    assert get_scorer(f"{scorer.__module__}:{scorer.__qualname__}") is scorer
    columns = {(table, column) for table, form in scorer.tables.items() for column in form.columns}
    assert {*scorer.compared.values(), *scorer.compared_answers.values()} <= columns


@pytest.mark.parametrize(
    ("sources", "dataset", "expected"),
    [
        (["cgbench", "cgbench"], None, CGBenchScorer),
        (["qvhighlights"], None, QVHighlightsScorer),
        (["nextgqa", "star"], None, DefaultScorer),
        ([None, "cgbench"], None, CGBenchScorer),
        ([None], None, DefaultScorer),
        (["my_file"], None, DefaultScorer),
        ([None], "cgbench", CGBenchScorer),
        (["my_file"], "cgbench", CGBenchScorer),
        (["my_file"], "my_file", DefaultScorer),
        (["cgbench"], "cgbench", CGBenchScorer),
        (["nextgqa"], "nextgqa", DefaultScorer),
        ([None], "videomind.eval.scorers.cgbench:CGBenchScorer", CGBenchScorer),
    ],
)
def test_records_choose(sources, dataset, expected):
    assert choose_scorer(of(*sources), dataset=dataset) is expected


@pytest.mark.parametrize(
    ("sources", "dataset", "message"),
    [
        (["nextgqa"], "cgbench", "--dataset 'cgbench' is not what the records come from. Allowed: nextgqa"),
        (["cgbench"], "nextgqa", "--dataset 'nextgqa' is not what the records come from. Allowed: cgbench"),
        (["star"], "sta", "Did you mean 'star'"),
        ([None], "cgbenhc", "Did you mean 'cgbench'"),
        (["cgbench", "nextgqa"], None, r"not scored alike: cgbench \(cgbench\), nextgqa \(default\)"),
        (["cgbench", "my_file"], None, "not scored alike"),
        ([None], "no.such.module:X", "'no.such.module:X' cannot be imported"),
        ([None], "videomind.files:write_text", "is no scorer"),
    ],
)
def test_what_contradicts_the_records_is_refused(sources, dataset, message):
    with pytest.raises(ValueError, match=message):
        choose_scorer(of(*sources), dataset=dataset)


def test_a_run_that_says_its_scorer_is_believed():
    """As that of a file of one's own which has a data set's name."""
    split = PredictedSplit(dataset="my/cgbench.jsonl", split="test", scorer="default", samples=1, dropped={})
    assert choose_scorer(of("cgbench"), split) is DefaultScorer


def test_a_scorer_that_is_not_there_has_a_nearest():
    with pytest.raises(ValueError, match="Unknown scorer 'cgbnch'.*Did you mean 'cgbench'"):
        get_scorer("cgbnch")
