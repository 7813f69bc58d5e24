"""eval_qvhighlights.sh: where outputs go, and which of its words are arguments of inference."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.runs import REPO, environment

SCRIPT = REPO / "scripts/evaluation/eval_qvhighlights.sh"


@pytest.fixture
def ask(tmp_path):
    """Runs a copy of the script with a python that prints its arguments. Returns: one list per call of it."""
    for name in ("eval_qvhighlights.sh", "infer.sh"):
        path = tmp_path / "scripts/evaluation" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((SCRIPT.parent / name).read_bytes())
    printing = tmp_path / "python"
    printing.write_text(f'#!{sys.executable}\nimport sys\nprint("|".join(sys.argv[1:]))\n')
    printing.chmod(0o755)
    (tmp_path / "elsewhere").mkdir()

    def run(*words: str, **variables: str) -> list[list[str]]:
        done = subprocess.run(
            ["bash", str(path.with_name(SCRIPT.name)), *words],
            env=environment(PYTHON=str(printing), **variables),
            cwd=tmp_path / "elsewhere",
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [line.split("|") for line in done.stdout.splitlines()]

    return run


def values(call: list[str], flag: str) -> str:
    return call[call.index(flag) + 1]


@pytest.mark.parametrize("model", ["org/name", "some-org/VideoMind-2B.v1"])
@pytest.mark.parametrize("extra", [(), ("--fps", "1")])
def test_a_model_of_the_hub_gets_no_folder_of_its_name(ask, tmp_path, model, extra):
    calls = ask(model, *extra)
    assert [values(call, "--split") for call in calls] == ["valid", "test"]
    for call in calls:
        assert values(call, "--model_gnd_path") == model
        assert values(call, "--pred_path").startswith(f"outputs_qvhighlights/{model.replace('/', '_')}/")
        assert call[len(call) - len(extra) :] == list(extra)
    assert not (tmp_path / model).exists()


def test_a_folder_keeps_its_outputs(ask, tmp_path):
    (tmp_path / "work_dirs/grounder").mkdir(parents=True)
    (valid,) = ask("work_dirs/grounder", SPLITS="valid")
    assert values(valid, "--pred_path") == "work_dirs/grounder/outputs_qvhighlights/valid"


@pytest.mark.parametrize("extra", [(), ("--fps", "1", "--max_frames", "9"), ("-h",)])
def test_what_begins_with_a_dash_is_no_folder(ask, extra):
    for out in ((), ("my/outputs",)):
        calls = ask("org/name", *out, *extra, SPLITS="test")
        (call,) = calls
        assert values(call, "--pred_path") == f"{out[0] if out else 'outputs_qvhighlights/org_name'}/test"
        assert call[call.index("--pred_path") + 2 :] == list(extra)


def test_metrics_follow_where_val_was_predicted(ask, tmp_path):
    submission = tmp_path / "out/valid/hl_val_submission.jsonl"
    submission.parent.mkdir(parents=True)
    submission.touch()
    *_, scored = ask("org/name", "out", DATA_ROOT="elsewhere")
    assert scored[:3] == ["-m", "videomind.eval.evaluate", "out/valid/hl_val_submission.jsonl"]
    assert values(scored, "--qvhighlights_anno").startswith("elsewhere/")


@pytest.mark.parametrize("words", [[], ["--fps", "1"]])
def test_without_a_model_it_says_how(words):
    run = subprocess.run(["bash", str(SCRIPT), *words], capture_output=True, text=True)
    assert run.returncode == 2 and Path(SCRIPT).name in run.stderr and "Usage" in run.stderr
