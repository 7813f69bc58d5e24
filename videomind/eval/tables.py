"""Tables of scores: what single records scored, averaged per task and over all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import fsum
from typing import Any

from videomind.prediction import Prediction


@dataclass(frozen=True, kw_only=True)
class TableForm:
    """What a table shows.

    Attributes:
        title: its heading.
        columns: names of its figures, each a mean over records.
        field: what of a prediction it scores, an attribute of Prediction. Where no prediction of a run has
            it, the run did not have this stage, and no record counts.
        measure: what the verifier raised or lowered, where that is reported.
    """

    title: str
    columns: tuple[str, ...]
    field: str
    measure: str | None = None


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What one record scored in one table.

    Attributes:
        values: column to value, in the unit of the column; all columns of the table.
        failed: whether there was nothing to score: no `<|reg|>`, an answer that cannot be read.
        change: above 0 if the verifier raised the record's value, below if it lowered it.
    """

    values: Mapping[str, float]
    failed: bool = False
    change: int = 0


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One row of a table.

    Attributes:
        samples: how many records the figures are means of.
        failed: how many of them failed.
        values: column to mean.
        raised: how often the verifier raised a value.
        lowered: how often it lowered one.
    """

    samples: int
    failed: int
    values: dict[str, float]
    raised: int = 0
    lowered: int = 0


@dataclass(frozen=True, kw_only=True)
class Table:
    """Scores by task name (sorted; a record with several tasks counts in each) and over all records."""

    tasks: dict[str, Scores]
    overall: Scores


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All scores of a run, and what a reader must know to trust them.

    Attributes:
        scorer: its name.
        tables: by name.
        records: how many there are.
        failed: those that hold an error instead of a prediction; they score 0.
        unlabelled: those without any ground truth, which no table counts.
        without: by field, how many labelled ones that did not fail lack what a table scores; they score 0.
        odd: reason to count of labelled ones with an odd ground truth.
        repeated: equal annotations beyond the first, which count again.
    """

    scorer: str
    tables: dict[str, Table]
    records: int
    failed: int
    unlabelled: int
    without: dict[str, int]
    odd: dict[str, int] = field(default_factory=dict)
    repeated: int = 0

    def to_json(self) -> dict[str, Any]:
        """Make the content of metrics.json."""
        content = {"scorer": self.scorer, **{name: asdict(table) for name, table in self.tables.items()}}
        counts = {"records": self.records, "failed": self.failed, "unlabelled": self.unlabelled}
        counts |= {f"without_{name}": count for name, count in self.without.items()}
        return {**content, **counts, "odd": self.odd, "repeated": self.repeated}


def average(predictions: Sequence[Prediction], marks: Sequence[Marks | None], form: TableForm) -> Table:
    """Average what records scored in one table.

    Args:
        predictions: all records of the run.
        marks: what each scored, None where it does not count in this table.
        form: of the table.
    """
    if not has_stage(predictions, form):
        marks = [None] * len(marks)
    members: dict[str, list[Marks]] = {}
    for prediction, mark in zip(predictions, marks, strict=True):
        for task in prediction.tasks:
            members.setdefault(task, []).extend([] if mark is None else [mark])
    return Table(
        tasks={task: _mean(members[task], form) for task in sorted(members)},
        overall=_mean([mark for mark in marks if mark is not None], form),
    )


def has_stage(predictions: Sequence[Prediction], form: TableForm) -> bool:
    """Tell whether a run had the stage of a table: one that only answered has no failed groundings."""
    return any(getattr(prediction, form.field) is not None for prediction in predictions)


def _mean(marks: Sequence[Marks], form: TableForm) -> Scores:
    changes = Counter((mark.change > 0) - (mark.change < 0) for mark in marks)
    count = max(len(marks), 1)
    return Scores(
        samples=len(marks),
        failed=sum(mark.failed for mark in marks),
        values={name: fsum(mark.values[name] for mark in marks) / count for name in form.columns},
        raised=changes[1],
        lowered=changes[-1],
    )
