"""The evaluation scripts: where outputs go, which roles run, which words are arguments of inference."""

import subprocess
import sys

import pytest
from helpers.runs import REPO, environment

SCRIPTS = REPO / "scripts/evaluation"


@pytest.fixture
def ask(tmp_path):
    """Runs a copy of a script with a python that prints its arguments; gives one list per call of it."""
    folder = tmp_path / "scripts/evaluation"
    folder.mkdir(parents=True)
    for name in ("eval_qvhighlights.sh", "eval_auto.sh", "infer.sh"):
        (folder / name).write_bytes((SCRIPTS / name).read_bytes())
    printing = tmp_path / "python"
    printing.write_text(f'#!{sys.executable}\nimport sys\nprint("|".join(sys.argv[1:]))\n')
    printing.chmod(0o755)
    (tmp_path / "elsewhere").mkdir()

    def run(*words: str, script: str = "eval_qvhighlights.sh", **variables: str) -> list[list[str]]:
        done = subprocess.run(
            ["bash", str(folder / script), *words],
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


def predicting(calls: list[list[str]]) -> list[list[str]]:
    """The calls of inference; the others score."""
    return [call for call in calls if "infer" in call]


@pytest.mark.parametrize("model", ["org/name", "some-org/VideoMind-2B.v1"])
@pytest.mark.parametrize("extra", [(), ("--fps", "1")])
def test_a_model_of_the_hub_gets_no_folder_of_its_name(ask, tmp_path, model, extra):
    calls = predicting(ask(model, *extra))
    assert [values(call, "--split") for call in calls] == ["valid", "test"]
    for call in calls:
        assert values(call, "--model_gnd_path") == model
        assert values(call, "--pred_path").startswith(f"outputs_qvhighlights/{model.replace('/', '_')}/")
        assert call[len(call) - len(extra) :] == list(extra)
    assert not (tmp_path / model).exists()


def test_a_folder_keeps_its_outputs(ask, tmp_path):
    (tmp_path / "work_dirs/grounder").mkdir(parents=True)
    (valid,) = predicting(ask("work_dirs/grounder", SPLITS="valid"))
    assert values(valid, "--pred_path") == "work_dirs/grounder/outputs_qvhighlights/valid"


@pytest.mark.parametrize("extra", [(), ("--fps", "1", "--max_frames", "9"), ("-h",)])
def test_what_begins_with_a_dash_is_no_folder(ask, extra):
    for out in ((), ("my/outputs",)):
        (call,) = predicting(ask("org/name", *out, *extra, SPLITS="test"))
        assert values(call, "--pred_path") == f"{out[0] if out else 'outputs_qvhighlights/org_name'}/test"
        assert call[call.index("--pred_path") + 2 :] == list(extra)


def test_what_was_predicted_is_scored(ask):
    calls = ask("org/name", "out", DATA_ROOT="elsewhere")
    valid, test = [call for call in calls if call not in predicting(calls)]
    assert valid[:3] == ["-m", "videomind.eval.evaluate", "out/valid"]
    assert values(valid, "--qvhighlights_anno").startswith("elsewhere/")
    assert test == ["-m", "videomind.eval.evaluate", "out/test", "--max_bad_share", "1"]


@pytest.mark.parametrize("words", [[], ["--fps", "1"]])
def test_without_a_model_it_says_how(words):
    script = SCRIPTS / "eval_qvhighlights.sh"
    run = subprocess.run(["bash", str(script), *words], capture_output=True, text=True)
    assert run.returncode == 2 and f"Usage: bash {script} MODEL" in run.stderr


@pytest.mark.parametrize(
    ("words", "variables", "roles"),
    [
        ([], {}, {"gnd", "ver"}),
        (["--fps", "1"], {}, {"gnd", "ver"}),
        (["--auto_planning"], {}, {"gnd", "ver", "pla"}),
        (["test", "--use_subtitle", "--auto_rephrasing", "--fps", "1"], {}, {"gnd", "ver", "pla"}),
        (["--auto_planning"], {"ROLES": "pla ans"}, {"pla", "ans"}),
        (["--verify_query"], {"ROLES": "gnd"}, {"gnd"}),
    ],
)
def test_a_planner_runs_where_it_decides(ask, words, variables, roles):
    (predicted,) = predicting(ask("2b", "nextgqa", *words, script="eval_auto.sh", **variables))
    flags = {word for word in predicted if word.startswith("--model_")}
    assert flags == {f"--model_{role}_path" for role in roles}


@pytest.mark.parametrize("script", ["eval_qvhighlights.sh", "eval_auto.sh"])
def test_of_several_nodes_the_first_one_scores(ask, script):
    words = ("org/name", "out") if script == "eval_qvhighlights.sh" else ("2b", "nextgqa")
    for node in range(3):
        calls = ask(*words, script=script, NNODES="3", NODE_RANK=str(node))
        predicted = predicting(calls)
        assert predicted and (len(calls) > len(predicted)) == (node == 0)
