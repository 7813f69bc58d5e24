"""Scorer: how the predictions of a benchmark become tables and, where there is one, a submission.

A source names its scorer (`Source.scorer`). A new one is one file in `videomind/eval/scorers/`, found by the
`name` of its class; one outside of the package is named MODULE:CLASS, the module being importable. Its class
says which tables there are, and what one record scores in them:

    class Counting(Scorer):
        name = "counting"
        tables = {"count": TableForm(title="Counting", columns=("exact",), field="response")}

        def score_record(self, prediction):
            if "count" not in prediction.annotation:  # the source put it into `meta`
                return {}  # no ground truth
            is_right = prediction.response == str(prediction.annotation["count"])
            return {"count": Marks(values={"exact": 100.0 * is_right})}
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from videomind.eval import report
from videomind.eval.tables import Evaluation, Marks, TableForm, average, has_stage
from videomind.prediction import Prediction
from videomind.roles import nearest

_PACKAGE = "videomind.eval.scorers"
_REGISTRY: dict[str, type["Scorer"]] = {}
# Two records that agree in all of these are the same annotation, predicted twice.
_IDENTITY = ("source", "video_path", "vid", "qid", "uid", "task", "query", "question", "options", "span")


@dataclass(frozen=True, kw_only=True)
class Option:
    """A command-line argument of one scorer.

    Attributes:
        name: of the argument, and of the keyword that the scorer is made with.
        help: what it does.
        default: its value when it is not given.
        type: makes a value of the argument's text.
        decides: whether giving it chooses the scorer, where records do not say where they come from.
    """

    name: str
    help: str
    default: Any = None
    type: Callable[[str], Any] = str
    decides: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What scoring a run gave.

    Attributes:
        text: the tables; empty without ground truth.
        content: of metrics.json.
        remarks: what a reader must know to trust the figures, one sentence each.
    """

    text: str
    content: dict[str, Any]
    remarks: list[str]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What a benchmark's server wants.

    Attributes:
        file_name: of the file of JSON lines.
        rows: its lines.
    """

    file_name: str
    rows: list[dict[str, Any]]


class Scorer(ABC):
    """How one kind of benchmark is scored.

    Attributes:
        name: of the scorer.
        tables: its tables by the names that they have in metrics.json.
        options: its command-line arguments, each a keyword of the class.
        compared: label to (table, column), the figures that `compare` shows; none of them are all.
        compared_answers: the same with `--questions`.
    """

    name: ClassVar[str]
    tables: ClassVar[dict[str, TableForm]]
    options: ClassVar[tuple[Option, ...]] = ()
    compared: ClassVar[dict[str, tuple[str, str]]] = {}
    compared_answers: ClassVar[dict[str, tuple[str, str]]] = {}

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            other = _REGISTRY.setdefault(cls.name, cls)
            if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(
                    f"Scorer name {cls.name!r} of {cls.__module__} is taken by {other.__module__}"
                )
            _REGISTRY[cls.name] = cls

    @abstractmethod
    def score_record(self, prediction: Prediction) -> dict[str, Marks]:
        """Score one record.

        Returns:
            Table name to what it scored there, for every table that its ground truth is for, whether it
            holds a prediction or not; nothing without ground truth.

        Raises:
            ValueError: the ground truth has another form.
        """

    def oddities(self, prediction: Prediction) -> list[str]:
        """Say what is odd about a record, mostly its ground truth; it is counted and reported."""
        return []

    def submission(self, predictions: Sequence[Prediction], split: str | None) -> Submission | None:
        """Make what the benchmark's server wants, or None where it has none.

        Args:
            predictions: all records of the run.
            split: its name, None if it is not known.
        """
        return None

    def report(self, predictions: Sequence[Prediction], origins: Sequence[str] | None = None) -> Outcome:
        """Score a run for a reader, as `evaluate` does."""
        evaluation = self.evaluate(predictions, origins)
        return Outcome(
            text=report.render_tables(evaluation, self.tables),
            content=evaluation.to_json(),
            remarks=[*report.remarks(evaluation)],
        )

    def evaluate(self, predictions: Sequence[Prediction], origins: Sequence[str] | None = None) -> Evaluation:
        """Score a run.

        Args:
            predictions: one per annotation.
            origins: where each came from, for messages.

        Raises:
            ValueError: there is no prediction, or a record has another form; names where it came from.
        """
        if not predictions:
            raise ValueError("There is no prediction record to evaluate")
        fields = sorted({form.field for form in self.tables.values()})
        is_run = any(p.error is not None for p in predictions)
        if not is_run and not any(has_stage(predictions, form) for form in self.tables.values()):
            expected = " nor ".join(map(repr, fields))
            raise ValueError(f"No record holds a prediction: neither {expected} (are these annotations?)")
        marks = self._score_all(predictions, origins)
        labelled = [p for p, own in zip(predictions, marks, strict=True) if own]
        return Evaluation(
            scorer=self.name,
            tables={
                name: average(predictions, [own.get(name) for own in marks], form)
                for name, form in self.tables.items()
            },
            records=len(predictions),
            failed=sum(p.error is not None for p in predictions),
            unlabelled=len(predictions) - len(labelled),
            without={field: self._count_without(field, predictions, marks) for field in fields},
            odd=dict(Counter(reason for p in predictions for reason in self.oddities(p))),
            repeated=_count_repeated(predictions),
        )

    def _score_all(
        self, predictions: Sequence[Prediction], origins: Sequence[str] | None
    ) -> list[dict[str, Marks]]:
        marks = []
        for prediction, origin in zip(predictions, origins_of(predictions, origins), strict=True):
            try:
                marks.append(self.score_record(prediction))
            except ValueError as error:
                raise ValueError(f"{origin}: {error}") from error
        return marks

    def _count_without(
        self, field: str, predictions: Sequence[Prediction], marks: Sequence[dict[str, Marks]]
    ) -> int:
        """Count labelled records that lack what the tables of a field score, in a run that had this stage."""
        forms = {name: form for name, form in self.tables.items() if form.field == field}
        if not any(has_stage(predictions, form) for form in forms.values()):
            return 0
        return sum(
            not own.keys().isdisjoint(forms) and p.error is None and getattr(p, field) is None
            for p, own in zip(predictions, marks, strict=True)
        )


def _count_repeated(predictions: Iterable[Prediction]) -> int:
    keys = [repr([p.annotation.get(name) for name in _IDENTITY]) for p in predictions]
    return len(keys) - len(set(keys))


def origins_of(predictions: Sequence[Prediction], origins: Sequence[str] | None) -> Sequence[str]:
    """Say where each record came from, for messages: as it is told, else its number."""
    return origins or [f"record {i}" for i in range(len(predictions))]


def scorer_names() -> list[str]:
    """List all scorers of the package, and those that were imported from elsewhere, sorted."""
    package = importlib.import_module(_PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{_PACKAGE}.{module.name}")
    return sorted(_REGISTRY)


def get_scorer(spec: str) -> type[Scorer]:
    """Look a scorer up.

    Args:
        spec: a scorer's name, or MODULE:CLASS.

    Raises:
        ValueError: there is none; names the nearest one.
    """
    module, colon, name = spec.partition(":")
    if not colon:
        if spec not in (names := scorer_names()):
            elsewhere = "One outside of the package is named MODULE:CLASS."
            raise ValueError(f"Unknown scorer {spec!r}. {nearest(spec, names)} {elsewhere}")
        return _REGISTRY[spec]
    try:
        scorer = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"The scorer {spec!r} cannot be imported: {error}") from error
    if not (isinstance(scorer, type) and issubclass(scorer, Scorer)):
        raise ValueError(f"{spec!r} is no scorer: it is {scorer!r}")
    return scorer


def spec_of(scorer: type[Scorer]) -> str:
    """Name a scorer so that another process finds it."""
    is_ours = scorer.__module__.startswith(f"{_PACKAGE}.")
    return scorer.name if is_ours else f"{scorer.__module__}:{scorer.__qualname__}"
