"""Who judges: a chat model behind an endpoint, or a rule that needs none, for tests and a first look.

A judge is a function of a criterion and the fields of one prediction that returns text: a Python dictionary
with a score from 0 to 5, and with `pred`, yes or no, where the criterion asks for it.
"""

import re
from collections.abc import Callable, Mapping

from videomind.endpoint import Endpoint
from videomind.video_chatgpt.judge.criteria import Criterion

Judge = Callable[[Criterion, Mapping[str, str]], str]
MAX_TOKENS = 256  # of a reply
MAX_SCORE = 5
RIGHT = 0.5  # share of the answer's words from which on the keyword judge says yes


def endpoint_judge(endpoint: Endpoint) -> Judge:
    """Make a judge of a chat model. It raises an EndpointError when it does not answer."""
    return lambda criterion, fields: endpoint.ask(criterion.prompt(fields), max_tokens=MAX_TOKENS)


def exact(criterion: Criterion, fields: Mapping[str, str]) -> str:
    """Give full score for the same words in the same order; case and punctuation do not count."""
    return _by_likeness(criterion, fields, lambda answer, words: float(answer == words))


def keywords(criterion: Criterion, fields: Mapping[str, str]) -> str:
    """Score the share of the correct answer's words that the given one holds."""

    def recall(answer: list[str], words: list[str]) -> float:
        return len(set(answer) & set(words)) / len(set(answer)) if answer else float(not words)

    return _by_likeness(criterion, fields, recall)


def _by_likeness(
    criterion: Criterion, fields: Mapping[str, str], likeness: Callable[[list[str], list[str]], float]
) -> str:
    """Reply by the likeness, 0 to 1, of the correct answer and the (least like) given one."""
    answer = _words(fields["a"])
    least = min(likeness(answer, _words(text)) for name, text in fields.items() if name.startswith("pred"))
    verdict = {"pred": "yes" if least >= RIGHT else "no"} if criterion.has_verdict else {}
    return str({**verdict, "score": round(MAX_SCORE * least)})


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


LOCAL_JUDGES: dict[str, Judge] = {"exact": exact, "keywords": keywords}
