"""Roles from training to the agent: each trains, they load from one folder or several, the chain runs.

Covers `model/assembly.py` and `model/combine.py`.
"""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.goldens import golden_checkpoints
from helpers.runs import SMALL, arguments

from videomind import VideoMind
from videomind.agent.infer import main as infer
from videomind.agent.samples import ChainSettings
from videomind.dataset.commands import main as data
from videomind.eval.compare import main as compare
from videomind.eval.evaluate import main as evaluate
from videomind.model.adapters import bare
from videomind.model.combine import main as combine
from videomind.roles import BudgetOverride
from videomind.synthetic.render import render_scene
from videomind.synthetic.scenes import charades_scene
from videomind.train.train import main as train

BUDGET = SMALL[:4]
TINY = ChainSettings(planning=True, rephrasing=True, budget=BudgetOverride(min_tokens=4, max_tokens=4))


@pytest.fixture(scope="module")
def rows(workshop) -> dict[str, list[dict]]:
    """Rows for every role about the workshop's videos."""
    videos = sorted((workshop / "data/charades_sta/videos_3fps_480_noaudio").glob("*.mp4"))[:4]
    made: dict[str, list[dict]] = {"verifier": [], "planner": [], "answerer": []}
    for i, path in enumerate(videos):
        video, moment = {"video": str(path), "duration": 20}, [i, i + 3]
        judged = {"query": "a red square", "pred": [moment], "positive": i % 2 == 0}
        planned = {"question": "what comes after it", "query": "it", "route": i % 4 + 1}
        asked = {"question": "what is it", "answer": "red", "options": ["red", "blue"], "span": [moment]}
        made["verifier"].append(video | judged)
        made["planner"].append(video | planned)
        made["answerer"].append(video | asked)
    return made


@pytest.fixture(scope="module")
def folders(workshop, rows, tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of every role, trained for two steps."""
    root = tmp_path_factory.mktemp("roles")
    made = {}
    for role in ("grounder", "verifier", "planner", "answerer", "all_in_one"):
        datasets = "charades_sta"
        if role != "grounder":
            files = []
            for name in [role] if role in rows else rows:
                (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
                files.append(str(root / f"{name}.jsonl"))
            datasets = ",".join(files) if role in rows else ",".join([datasets, *files])
        extra = (
            "--role",
            role,
            "--datasets",
            datasets,
            "--max_steps",
            "2",
            "--per_device_train_batch_size",
            "2",
        )
        assert train(arguments(workshop, root / role, *extra)) == 0
        made[role] = root / role
    return made


def test_each_role_writes_its_adapter(folders):
    for role, folder in folders.items():
        assert (folder / role / "adapter_model.safetensors").is_file()
        has_head = role in ("grounder", "all_in_one")
        assert (folder / "pytorch_model.safetensors").is_file() == has_head


def test_roles_of_several_folders_run_as_one_agent(folders, rows):
    roles = {role: folders[role] for role in ("grounder", "verifier", "planner", "answerer")}
    agent = VideoMind.from_pretrained(roles=roles, max_new_tokens=4)
    video = rows["answerer"][0]["video"]
    result = agent(video, "what is it?", options=["red", "blue"], settings=TINY)
    assert result.agents[0] == "planner" and result.agents[-1] == "answerer"
    assert result.answer is not None and result.duration > 1
    assert set(result.timings) >= {"decode", "planner", "grounder", "answerer"}
    found = agent(video, query="a red square", settings=TINY)
    assert "answerer" not in found.agents and found.candidates
    free = agent(video, "what happens?", settings=TINY)
    assert free.answer is not None
    with pytest.raises(ValueError, match="Give a question to answer, or a query to find"):
        agent(video)


def test_one_folder_holds_the_roles(folders, tmp_path, rows, capfd):
    out = tmp_path / "agent"
    pairs = [f"{role}={folders[role]}" for role in ("grounder", "verifier", "planner")]
    assert combine([str(out), *pairs]) == 0
    apart = VideoMind.from_pretrained(
        roles={role: folders[role] for role in ("grounder", "verifier", "planner")}, max_new_tokens=4
    )
    together = VideoMind.from_pretrained(out, max_new_tokens=4)
    video = rows["answerer"][0]["video"]
    first, second = (
        a(video, "what is it?", options=["red", "blue"], settings=TINY) for a in (apart, together)
    )
    assert (first.candidates, first.answer, first.plan) == (second.candidates, second.answer, second.plan)
    assert combine([str(out), *pairs]) == 2
    assert combine([str(tmp_path / "x"), f"planner={folders['verifier']}"]) == 2
    assert combine([str(tmp_path / "y"), pairs[0], f"verifier={folders['all_in_one']}"]) == 2
    screen = capfd.readouterr().err
    assert "is not empty" in screen and "has no adapter for the planner" in screen
    assert "It holds: all_in_one" in screen and "Traceback" not in screen


@pytest.mark.golden
def test_a_combined_folder_has_the_published_layout(golden, folders, tmp_path):
    """The files and keys of the golden three-role folder (our tokenizer files are the fast ones)."""
    pairs = [f"{role}={folders[role]}" for role in ("grounder", "verifier", "planner")]
    assert combine([str(tmp_path / "agent"), *pairs]) == 0
    published = golden.root / golden_checkpoints()[0]
    theirs = {str(p.relative_to(published)) for p in published.rglob("*") if p.is_file()}
    ours = {str(p.relative_to(tmp_path / "agent")) for p in (tmp_path / "agent").rglob("*") if p.is_file()}
    assert theirs - ours <= {"added_tokens.json", "special_tokens_map.json"}
    assert ours <= theirs
    for role in ("grounder", "verifier", "planner"):
        name = f"{role}/adapter_config.json"
        assert read(tmp_path / "agent" / name).keys() == read(published / name).keys()
    assert read(tmp_path / "agent/config.json").keys() >= read(published / "config.json").keys() - {
        "in_chans"
    }


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_an_all_in_one_adapter_plays_every_role(folders, rows):
    roles = dict.fromkeys(("grounder", "verifier", "planner"), folders["all_in_one"])
    agent = VideoMind.from_pretrained(roles=roles, max_new_tokens=4)
    result = agent(rows["answerer"][0]["video"], query="a red square", settings=TINY)
    assert result.agents[:2] == ["planner", "grounder"]


def test_the_chain_on_a_file_of_ones_own(folders, rows, tmp_path, capsys):
    """Two chunks, bad videos and all, give one result; then the metrics."""
    bad = {
        "corrupt": b"no video at all",
        "zero": b"",
        "truncated": Path(rows["answerer"][0]["video"]).read_bytes()[:1500],
    }
    lines = list(rows["answerer"])
    for name, content in bad.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
        lines.append({**lines[0], "video": str(tmp_path / f"{name}.mp4")})
    lines.append({**lines[0], "video": str(tmp_path / "missing.mp4")})
    render_scene(replace(charades_scene(random.Random(0), 0), num_frames=1), tmp_path / "one_frame.mp4")
    lines.append({**lines[0], "video": str(tmp_path / "one_frame.mp4"), "duration": 1, "span": [[0, 1]]})
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    argv = ["--dataset", str(tmp_path / "qa.jsonl"), *BUDGET, "--max_new_tokens", "4"]
    for role, short in (("grounder", "gnd"), ("verifier", "ver"), ("planner", "pla")):
        argv += [f"--model_{short}_path", str(folders[role])]
    assert infer([*argv, "--pred_path", str(tmp_path / "whole")]) == 3  # five of nine fail
    for index, code in (("1", 0), ("0", 3)):  # the last one to end knows
        chunk = ["--chunk", "2", "--index", index]
        assert infer([*argv, *chunk, "--pred_path", str(tmp_path / "chunks")]) == code
    whole = (tmp_path / "whole/output.jsonl").read_bytes()
    assert (tmp_path / "chunks/output.jsonl").read_bytes() == whole
    records = [json.loads(line) for line in whole.splitlines()]
    assert len(records) == len(lines)
    failed = [Path(r["video_path"]).stem for r in records if "error" in r]
    assert failed == [*bad, "missing", "one_frame"]
    assert all(r["agents"][-1] == "answerer" for r in records if "error" not in r)
    assert evaluate([str(tmp_path / "whole"), "--max_bad_share", "0.6"]) == 0
    assert "QA:" in capsys.readouterr().out
    assert compare(["--questions", f"chain={tmp_path / 'whole'}"]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("qa all")]
    assert row[2] == "chain" and row[-2:] == ["9", "5"]
    assert float(row[-3]) == pytest.approx(100 * 4 / 9, abs=0.1)


@pytest.mark.slow
def test_data_for_the_verifier(folders, workshop, tmp_path):
    argv = ["--dataset", "charades_sta", "--split", "train", "--data_root", str(workshop / "data"), *BUDGET]
    assert (
        infer([*argv, "--model_gnd_path", str(folders["grounder"]), "--pred_path", str(tmp_path / "p")]) == 0
    )
    records = [json.loads(line) for line in (tmp_path / "p/output.jsonl").read_text().splitlines()]
    for record in records[1:]:  # as if the grounder had found something
        record |= {"grounder_success": True, "pred": [[0, 1], [2, 3]], "conf": [0.5, 0.4]}
    (tmp_path / "p/output.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert data(["make-verifying", str(tmp_path / "p/output.jsonl"), str(tmp_path / "v.json")]) == 0
    made = json.loads((tmp_path / "v.json").read_text())
    assert len(made) == len(records) - (not records[0]["grounder_success"])
    extra = ("--role", "verifier", "--datasets", str(tmp_path / "v.json"), "--max_steps", "1")
    assert train(arguments(workshop, tmp_path / "verifier", *extra)) == 0
    shutil.rmtree(tmp_path / "p")
    assert data(["make-verifying", str(tmp_path / "p/output.jsonl"), str(tmp_path / "v.json")]) == 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_runs_every_role(folders, rows, dtype):
    """What a GPU computes in by default; the heads and the adapters must follow."""
    roles = {role: folders[role] for role in ("grounder", "verifier", "planner", "answerer")}
    whole, half = (
        VideoMind.from_pretrained(roles=roles, max_new_tokens=4, dtype=d) for d in ("float32", dtype)
    )
    video = rows["answerer"][0]["video"]
    first, second = (
        agent(video, "what is it?", options=["red", "blue"], settings=TINY) for agent in (whole, half)
    )
    assert second.agents == first.agents and second.answer
    assert [c.span for c in second.proposed] == [c.span for c in first.proposed]
    for ours, exact in zip(second.proposed, first.proposed, strict=True):
        assert abs(ours.verdict - exact.verdict) < 1e-3
    found = half(video, query="a red square", settings=TINY)
    assert found.candidates and all(0 <= c.verdict <= 1 for c in found.candidates)


def test_too_little_memory_for_all_candidates_judges_fewer(folders, rows):
    agent = VideoMind.from_pretrained(
        roles={"grounder": folders["grounder"], "verifier": folders["verifier"]}
    )
    video, model, sizes = rows["answerer"][0]["video"], agent.pipeline.model, []
    whole = agent(video, query="a red square", settings=TINY)
    assert len(whole.candidates) == 5

    def limit(module, args, inputs):
        """Refuse batches of candidates as a device does whose memory they exceed."""
        if model.active_adapter == "verifier":
            sizes.append(len(inputs["input_ids"]))
            if sizes[-1] > room:
                raise torch.OutOfMemoryError("CUDA out of memory")

    bare(model).base_model.register_forward_pre_hook(limit, with_kwargs=True)
    room = 2
    fewer = agent(video, query="a red square", settings=TINY)
    assert sizes == [5, 2, 2, 1]
    assert [c.span for c in fewer.proposed] == [c.span for c in whole.proposed]
    for ours, theirs in zip(fewer.proposed[:5], whole.proposed[:5], strict=True):
        assert abs(ours.verdict - theirs.verdict) < 1e-5
    sizes.clear()
    agent(video, query="a red square", settings=TINY)
    assert sizes == [2, 2, 1]  # remembered
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        agent(video, query="a red square", settings=TINY)


def test_types_of_samples_do_not_mix_across_processes(folders, workshop, tmp_path, capfd):
    """Processes with and without gradients of the head would wait for each other."""
    verifying = folders["verifier"].parent / "verifier.jsonl"
    extra = ("--role", "all_in_one", "--datasets", f"charades_sta,{verifying}", "--max_steps", "1")
    argv = arguments(workshop, tmp_path, *extra, "--group_by_data_type", "False")
    assert train([*argv, "--per_device_train_batch_size", "2"]) == 2
    assert "found grounding and multimodal in global micro-batches of 2" in capfd.readouterr().err
    assert train([*argv, "--per_device_train_batch_size", "1"]) == 0
