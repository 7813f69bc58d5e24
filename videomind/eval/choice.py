"""Which scorer a run's predictions are scored by: that of the data set they come from."""

from collections.abc import Sequence

from videomind.dataset.base import get_source, source_names
from videomind.eval.scorer import Scorer, get_scorer
from videomind.eval.scorers.default import DefaultScorer
from videomind.prediction import UNKNOWN, PredictedSplit, Prediction
from videomind.roles import nearest


def choose_scorer(
    predictions: Sequence[Prediction],
    split: PredictedSplit | None = None,
    *,
    dataset: str | None = None,
    otherwise: type[Scorer] = DefaultScorer,
) -> type[Scorer]:
    """Choose the scorer of predictions.

    Args:
        predictions: the records of a run.
        split: what the run predicted, if it says so.
        dataset: the data set, or a scorer as MODULE:CLASS, instead of what the run says; it may not say
            another.
        otherwise: the scorer of records that do not say where they come from.

    Raises:
        ValueError: records come from another data set than `dataset`, or from several that are not scored
            alike.
    """
    sources = {prediction.source for prediction in predictions} - {UNKNOWN}
    if dataset is not None:
        return get_scorer(dataset if ":" in dataset else _scorer_of(_checked(dataset, sources)))
    if split is not None:
        return get_scorer(split.scorer)
    scorers = {_scorer_of(name): name for name in sorted(sources)}
    if len(scorers) > 1:
        names = ", ".join(f"{name} ({scorer})" for scorer, name in scorers.items())
        raise ValueError(
            f"The records come from data sets that are not scored alike: {names}. Score each alone."
        )
    return get_scorer(next(iter(scorers))) if scorers else otherwise


def _scorer_of(name: str) -> str:
    """Name the scorer of a data set; a file of one's own has the default one."""
    return get_source(name).scorer if name in source_names() else DefaultScorer.name


def _checked(dataset: str, sources: set[str]) -> str:
    """Check a data set's name.

    Raises:
        ValueError: There is none, or records come from another.
    """
    registered = set(source_names())
    others = (sources & registered) - {dataset}
    if dataset not in registered | sources or others:
        hint = nearest(dataset, sources or registered)
        raise ValueError(f"--dataset {dataset!r} is not what the records come from. {hint}")
    return dataset
