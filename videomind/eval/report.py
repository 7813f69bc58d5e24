"""What a person reads: tables of an evaluation as text, and what is to be known about them."""

from collections.abc import Iterator, Mapping

from tabulate import tabulate

from videomind.eval.qvhighlights import QVHighlightsScores
from videomind.eval.tables import Evaluation, Table, TableForm

OVERALL = "all"
SHOWN_QIDS = 5


def render_tables(evaluation: Evaluation, forms: Mapping[str, TableForm]) -> str:
    """Show the tables of a run; empty without ground truth."""
    if evaluation.unlabelled == evaluation.records:
        return ""
    sections = [_section(evaluation.tables[name], form) for name, form in forms.items()]
    return "\n\n".join(sections) + "\n"


def render_qvhighlights(scores: QVHighlightsScores) -> str:
    """Show the headline numbers, one per line; empty without ground truth."""
    return "".join(f"{name}: {value}\n" for name, value in scores.metrics.get("brief", {}).items())


def remarks(evaluation: Evaluation) -> Iterator[str]:
    """Say what a reader must know to trust the tables, one sentence each."""
    if evaluation.unlabelled == evaluation.records:
        yield f"None of the {evaluation.records} records has ground truth: nothing to score"
    elif evaluation.unlabelled:
        yield f"{evaluation.unlabelled} of {evaluation.records} records have no ground truth and do not count"
    for reason, count in evaluation.odd.items():
        yield f"{count} records: {reason}"
    for field, count in evaluation.without.items():
        if count:
            yield f"{count} labelled records have no {field!r}; each scores 0"
    if evaluation.repeated:
        yield (
            f"{evaluation.repeated} records repeat the annotation of another one and count again "
            "(are chunks of two runs mixed?)"
        )


def remarks_qvhighlights(scores: QVHighlightsScores) -> Iterator[str]:
    """Say what a reader must know to trust the numbers, one sentence each."""
    if scores.unlabelled:
        yield f"{scores.unlabelled} annotations have no ground truth and do not count"
    if not scores.metrics:
        yield "There is no ground truth for what is predicted: nothing to score"
    for qids, text in (
        (scores.missing, "annotated queries have no prediction; each scores 0"),
        (scores.unknown, "predictions have no annotation and are left out"),
        (scores.repeated, "qids are predicted twice alike and count once"),
        (scores.annotated_twice, "qids are annotated twice alike and count once"),
    ):
        if qids:
            shown = ", ".join(qids[:SHOWN_QIDS]) + (", ..." if len(qids) > SHOWN_QIDS else "")
            yield f"{len(qids)} {text}: qid {shown}"
    for reason, count in scores.odd.items():
        yield f"{count} annotations: {reason}"
    for name in scores.empty_ranges:
        yield f"No true window is of range {name!r}: its numbers repeat those of 'full'"


def _section(table: Table, form: TableForm) -> str:
    """Write a table under its title, and what the verifier changed."""
    if form.measure is None:
        return f"{form.title}:\n{_rows(table)}"
    overall = table.overall
    lines = [f"{form.title}:", _rows(table), ""]
    for name, count in (("Raise", overall.raised), ("Lower", overall.lowered)):
        share = 100 * count / max(1, overall.samples)
        lines.append(f"{form.measure} {name} ({overall.samples} Samples): {count} ({share:.2f}%)")
    return "\n".join(lines)


def _rows(table: Table) -> str:
    """Write one row per task, the overall one last."""
    rows = [
        [name, scores.samples, scores.failed, *(f"{value:.2f}" for value in scores.values.values())]
        for name, scores in [*table.tasks.items(), (OVERALL, table.overall)]
    ]
    header = ["Task", "#Samples", "Failed", *table.overall.values]
    return tabulate(rows, header, tablefmt="pretty", stralign="left", numalign="left")
