"""Training data of verifier and planner, made from what is there.

Verifier: a grounder's predictions on a training split. Planner: questions and queries of other data sets,
each with the route that answers it, by rules; a language model may rephrase questions into queries.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from videomind.dataset.phrases import clean_query
from videomind.dataset.schema import Annotation, Route
from videomind.prediction import Prediction

VERIFYING_FIELDS = ("video_path", "duration", "query", "span", "pred", "conf", "task")
# NExT-QA's descriptive questions (count, location, other) are about the whole video.
DESCRIPTIVE = re.compile(r"D[CLO]")
OVERVIEW = re.compile(
    r"\b(this video|video about|whole|overall|main(ly)?|in total|relationship|how many|the (topic|theme))\b",
    re.IGNORECASE,
)
CLAUSE = re.compile(r"\b(?:before|after|when|while|as soon as|once)\s+(.+?)\??$", re.IGNORECASE)
REPHRASE = (
    "Rewrite this question about a video as a short statement of the event that has to be found to answer "
    "it. Give the statement only.\nQuestion: {}"
)


def verifying_rows(predictions: Iterable[Prediction]) -> Iterator[dict[str, Any]]:
    """Make the rows of a verifying file from a grounder's predictions, leaving out those without moment."""
    for prediction in predictions:
        if prediction.pred and prediction.annotation.get("span") and prediction.grounder_success is not False:
            row = prediction.to_json()
            yield {name: row[name] for name in VERIFYING_FIELDS if name in row}


def planning_row(anno: Annotation, rephrase: Callable[[str], str] | None = None) -> dict[str, Any] | None:
    """Make a planning row from an annotation, or None when it says too little.

    A query alone asks for a moment. A question about the video as a whole is answered at once. One that
    names another event ("... after he sits down") is grounded by that event; any other by itself, or, with
    `rephrase`, by what that makes of it.
    """
    row = {"source": anno.source, "data_type": "multimodal", "video_path": anno.video_path}
    if anno.duration is not None:
        row["duration"] = anno.duration
    if not anno.question:
        if not anno.query:
            return None
        return row | {
            "route": Route.MOMENT,
            "question": f"When does this happen: {anno.query}?",
            "query": anno.query,
        }
    row["question"] = anno.question
    if _is_overview(anno):
        return row | {"route": Route.DIRECT}
    if rephrase is not None:
        return row | {"route": Route.REPHRASED, "query": clean_query(rephrase(anno.question))}
    if clause := CLAUSE.search(anno.question):
        return row | {"route": Route.REPHRASED, "query": clean_query(clause[1])}
    return row | {"route": Route.QUESTION}


def _is_overview(anno: Annotation) -> bool:
    tasks = anno.task if isinstance(anno.task, list) else [anno.task or ""]
    return any(DESCRIPTIVE.fullmatch(task) for task in tasks) or bool(OVERVIEW.search(anno.question))


def rephrase_prompt(question: str) -> str:
    """Word what a language model is asked."""
    return REPHRASE.format(json.dumps(question, ensure_ascii=False))
