"""Replies of a judge: what counts as one, where they are stored, and the means over them."""

import ast
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomind.files import read_json, write_json, write_text
from videomind.video_chatgpt.judge.criteria import AnsweredRow, Criterion, Unscored
from videomind.video_chatgpt.judge.judges import MAX_SCORE

log = logging.getLogger(__name__)

REPLY_SHOWN = 200  # characters of a reply in messages


class ReplyError(ValueError):
    """A judge's reply that cannot be used.

    Attributes:
        reply: the whole text.
    """

    def __init__(self, reason: str, reply: str):
        super().__init__(f"{reason}: {reply[:REPLY_SHOWN]!r}")
        self.reply = reply


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A prediction with the judge's reply."""

    prediction: AnsweredRow
    reply: dict[str, Any]

    @property
    def stored(self) -> list[dict]:
        """As it is written."""
        return [self.reply, self.prediction.fields]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run came to.

    Attributes:
        criterion: its name.
        average_score: 0 to 5; None without any.
        scored: predictions with a score.
        yes: verdicts, None where the criterion has none.
        no: the same.
        accuracy: share of yes; None without any verdict.
        failed: predictions without a score.
    """

    criterion: str
    average_score: float | None
    scored: int
    yes: int | None
    no: int | None
    accuracy: float | None
    failed: list[Unscored]

    def lines(self) -> list[str]:
        """Write what the command prints."""
        if self.yes is None:
            return [f"Average score for {self.criterion}: {self.average_score}"]
        return [
            f"Yes count: {self.yes}",
            f"No count: {self.no}",
            f"Accuracy: {self.accuracy}",
            f"Average score: {self.average_score}",
        ]


def parse_reply(text: str, criterion: Criterion) -> dict[str, Any]:
    """Read the dictionary of a reply; text around its braces does not count.

    Raises:
        ReplyError: it holds no score from 0 to 5, or no text as `pred` where the criterion wants one.
    """
    try:
        reply = ast.literal_eval(text[max(text.find("{"), 0) : text.rfind("}") + 1])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ReplyError("not a Python dictionary", text) from None
    if not isinstance(reply, dict):
        raise ReplyError("not a Python dictionary", text)
    try:
        reply = json.loads(json.dumps(reply))  # as it will be stored
    except TypeError:
        raise ReplyError("values that JSON has no word for", text) from None
    try:
        score = float(reply.get("score"))
    except (ValueError, TypeError, OverflowError):
        raise ReplyError("no number as 'score'", text) from None
    if isinstance(reply["score"], bool) or not (math.isfinite(score) and 0 <= score <= MAX_SCORE):
        raise ReplyError(f"a 'score' that is not within 0 and {MAX_SCORE}", text)
    if criterion.has_verdict and not isinstance(reply.get("pred"), str):
        raise ReplyError("no text as 'pred'", text)
    return reply


def verdict(reply: dict[str, Any]) -> str | None:
    """Read `yes` or `no`, whichever `pred` holds, yes first; None for neither."""
    return next((word for word in ("yes", "no") if word in reply["pred"].lower()), None)


def summarize(judged: Sequence[Judged], failed: Sequence[Unscored], criterion: Criterion) -> Summary:
    """Average over the replies; scores count without their fraction."""
    scores = [int(float(item.reply["score"])) for item in judged]
    yes = no = accuracy = None
    if criterion.has_verdict:
        verdicts = [verdict(item.reply) for item in judged]
        yes, no = verdicts.count("yes"), verdicts.count("no")
        accuracy = yes / (yes + no) if yes + no else None
    return Summary(
        criterion=criterion.name,
        average_score=sum(scores) / len(scores) if scores else None,
        scored=len(scores),
        yes=yes,
        no=no,
        accuracy=accuracy,
        failed=sorted(failed, key=lambda failure: failure.key),
    )


class ReplyFolder:
    """The replies of one run, a file each.

    Args:
        folder: where they lie.
        criterion: of the run.
        judge: the name of who replies.

    Raises:
        ValueError: the folder holds replies of another criterion or judge.
    """

    def __init__(self, folder: str | Path, criterion: Criterion, judge: str):
        self.folder, self._criterion = Path(folder).absolute(), criterion
        settings = {"criterion": criterion.name, "judge": judge}
        # Beside the folder, which holds replies only.
        path = self.folder.with_name(f"{self.folder.name}.settings.json")
        is_used = path.is_file() and any(self.folder.glob("*.json"))
        if is_used and (stored := read_json(path)) != settings:
            raise ValueError(
                f"{self.folder} holds replies for {stored}, not {settings}. Choose another --output_dir, or "
                f"delete it and {path.name}."
            )
        write_json(path, settings)

    def path(self, prediction: AnsweredRow) -> Path:
        """Name the file of a prediction's reply."""
        return self.folder / f"{prediction.key.replace('/', '%2F')}.json"

    def read(self, prediction: AnsweredRow) -> Judged | None:
        """Read the stored reply; None when there is none, or only one to another question or answer."""
        path = self.path(prediction)
        if not path.is_file():
            return None
        try:
            stored = read_json(path)
            reply = parse_reply(repr(stored[0]), self._criterion)
        except (ValueError, LookupError, TypeError):
            log.warning("%s holds no reply that can be read; it is asked for again", path)
            return None
        judged = Judged(prediction=prediction, reply=reply)
        return judged if stored == judged.stored else None

    def write(self, judged: Judged) -> None:
        """Store a reply."""
        write_text(self.path(judged.prediction), json.dumps(judged.stored))
