"""What the scripts may not use: what came after the bash 3.2 of macOS, and what only GNU's tools know."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.runs import REPO

SCRIPTS = sorted(
    path
    for name in ("scripts", ".ci")
    for path in (REPO / name).rglob("*")
    if path.suffix in (".sh", ".sbatch") or path.name == "run"
)
# Where a command may start, with the assignments before it.
COMMAND = r"(?:^|[;&|({`!]|\b(?:then|do|else|if|while|exec|xargs|time)\s)\s*(?:\w+=\S*\s+)*"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One thing that the scripts may not use.

    Attributes:
        name: what it is.
        pattern: finds it in a script.
        command: whether the pattern stands where a command may start.
        offends: examples, with `VAR` for a variable's name.
        passes: what looks like it and is allowed.
    """

    name: str
    pattern: str
    offends: tuple[str, ...]
    passes: tuple[str, ...]
    command: bool = False

    def finds(self, script: str) -> bool:
        """Whether a script breaks the rule."""
        pattern = COMMAND + self.pattern if self.command else self.pattern
        return re.search(pattern, bare(script), re.M) is not None


def read_rules(kind: str) -> list[Rule]:
    """The rules of a kind, `bash` or `tools`."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return [Rule(**rule) for rule in table[kind]]


def bare(script: str) -> str:
    """A script without its comments (a `#` that starts a word, outside quotes), continued lines in one."""
    kept = []
    for line in script.replace("\\\n", " ").splitlines():
        starts = (found.start() for found in re.finditer(r"(?:^|(?<=\s))#", line))
        outside = (at for at in starts if not line[:at].count("'") % 2 and not line[:at].count('"') % 2)
        kept.append(line[: next(outside, len(line))])
    return "\n".join(kept)


def unguarded_arrays(scripts: list[str]) -> Iterator[str]:
    """Expansions of arrays that may be empty, which bash before 4.4 takes for unset under `set -u`.

    Args:
        scripts: texts that share their variables.

    Yields:
        The expansion. Allowed is `${name[@]+"${name[@]}"}`.
    """
    texts = [bare(script) for script in scripts]
    empty = {name for text in texts for name in re.findall(r"\b(\w+)=\(\s*\)", text)}
    for text in texts:
        text = re.sub(r"\$\{(\w+)\[@\]\+\"\$\{\1\[@\]\}\"\}", "", text)
        for found in re.finditer(r"\$\{(\w+)\[[@*]\][^}]*\}", text):
            if found[1] in empty:
                yield found[0]
