"""The scripts run where newcomers try them: with the bash 3.2 and the BSD tools of macOS, too."""

import random
import shutil
import string
import subprocess
import sys
from collections.abc import Sequence

import pytest
from helpers.runs import REPO, environment
from helpers.shell_rules import SCRIPTS, read_rules, unguarded_arrays

BASH_RULES = read_rules("bash")
RULES = [*BASH_RULES, *read_rules("tools")]
LINUX_ONLY = {"fresh.sh", "enter.sh", "train.sbatch"}  # these may use what every Linux has
CONTEXTS = (
    "{}",
    "    {}",
    "if true; then {}\nfi",
    "cd x && {}",
    "a=b {}",
    "set -e\n{}\necho done",
    "{} # why",
)
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def variants(snippets: Sequence[str]) -> list[str]:
    """Snippets with made-up names, each in every place where a command may stand."""
    rng = random.Random(0)
    letters = string.ascii_lowercase + "_"
    names = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(3)]
    named = {snippet.replace("VAR", name) for snippet in snippets for name in names}
    return [context.format(snippet) for snippet in sorted(named) for context in CONTEXTS]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_rule_knows_its_kind(rule):
    assert [text for text in variants(rule.offends) if not rule.finds(text)] == []
    assert [text for text in variants(rule.passes) if rule.finds(text)] == []
    comments = [f"true # {line}" for text in rule.offends for line in text.splitlines()]
    assert [text for text in comments if rule.finds(text)] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_keep_the_rules(path):
    rules = BASH_RULES if path.name in LINUX_ONLY else RULES
    script = path.read_text(encoding="utf-8")
    assert [rule.name for rule in rules if rule.finds(script)] == []


def test_arrays_that_may_be_empty_are_guarded():
    declared = "set -u\nextra=()\n[[ $1 ]] && extra=(--x)\n"
    for use in (
        'cmd "${extra[@]}"',
        'cmd "${extra[*]}"',
        'x=("${extra[@]}" y)',
        "for i in ${extra[@]}; do x; done",
    ):
        assert list(unguarded_arrays([declared + use])), use
        assert list(unguarded_arrays([declared, use])), use
    for use in (
        'cmd ${extra[@]+"${extra[@]}"}',
        'cmd "${other[@]}"',
        "echo ${#extra[@]}",
        '# cmd "${extra[@]}"',
    ):
        assert not list(unguarded_arrays([declared + use])), use
    assert not list(unguarded_arrays([path.read_text(encoding="utf-8") for path in SCRIPTS]))


@needs_bash
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(path):
    """With whatever bash this is; on macOS the one that the rules are about."""
    run = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@needs_bash
def test_linters_look_at_tracked_files_alone(tmp_path):
    """What a run has written into the checkout is not formatted as ours is."""
    git = shutil.which("git") or pytest.skip("needs git")
    for name in ("scripts/test.sh", "scripts/env.sh", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)
    (tmp_path / "tests/golden").mkdir(parents=True)
    (tmp_path / ".ci").mkdir()
    for name in ("ours.py", "removed.py", "tests/golden/theirs.py"):
        (tmp_path / name).write_text("a = 1\n" if name == "ours.py" else "x=1;y=2")
    subprocess.run([git, "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([git, "add", "."], cwd=tmp_path, check=True)
    (tmp_path / "removed.py").unlink()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/zero_to_fp32.py").write_text("import os;x=1")

    python = tmp_path / ".git/python"  # all but the tests
    python.write_text(f'#!/bin/sh\n[ "$2" = pytest ] && exec echo reached\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)

    def linted() -> bool:
        run = subprocess.run(
            ["bash", "scripts/test.sh"],
            cwd=tmp_path,
            env=environment(PYTHON=str(python)),
            capture_output=True,
            text=True,
        )
        return "reached" in run.stdout

    assert linted()
    (tmp_path / "ours.py").write_text("a=1")
    assert not linted()


def test_cores_are_counted_in_one_place():
    counts = ("cpu_count", "sched_getaffinity")
    files = [
        path for folder in ("videomind", "benchmarks", "scripts") for path in (REPO / folder).rglob("*.py")
    ]
    assert files
    found = [str(p.relative_to(REPO)) for p in files if any(name in p.read_text("utf-8") for name in counts)]
    assert found == ["videomind/runs/cores.py"]
