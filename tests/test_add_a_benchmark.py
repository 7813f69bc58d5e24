"""docs/ADD_A_BENCHMARK.md to the letter: its files, then its commands, on the workshop's videos and model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.runs import REPO, environment

PAGE = (REPO / "docs/ADD_A_BENCHMARK.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_works_to_the_letter(workshop, tmp_path):
    work = tmp_path / "work_dirs/quickstart_grounder"
    work.mkdir(parents=True)
    (work / "data").symlink_to(workshop / "data")
    (work / "base_warm").symlink_to(workshop / "base")
    (tmp_path / "my").mkdir()
    for name, code in re.findall(r"`my/(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / "my" / name).write_text(code)
    commands = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/videomind").write_text(f'#!/bin/sh\nexec {sys.executable} -m videomind.cli "$@"\n')
    (tmp_path / "bin/videomind").chmod(0o755)
    script = "set -e\n" + "".join(commands).replace('"$PWD/my"', f'"$PWD/my:{REPO}"')
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-c", script.replace('export PATH="$PWD/.venv/bin:$PATH"\n', "")],
        env=environment(PATH=path), cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Counting" in run.stdout and "exact" in run.stdout
    assert len((tmp_path / "my/out/output.jsonl").read_text().splitlines()) == 4


def test_the_page_counts_its_lines():
    codes = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    told = re.search(r"a source of (\d+) lines and a scorer of (\d+)", PAGE)
    assert [len(code.splitlines()) for code in codes] == [int(number) for number in told.groups()]
    assert len(codes[0].splitlines()) <= 40 and len(codes[1].splitlines()) <= 60
