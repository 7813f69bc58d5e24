"""A role that runs alone is folded into the weights: the same answers, without the adapter's operators."""

import json

import pytest
import torch
from helpers.role_rows import role_row, videos_of
from helpers.runs import SMALL, arguments
from peft import PeftModel

from videomind import VideoMind
from videomind.agent import predicting
from videomind.agent.infer import main as infer
from videomind.agent.predicting import is_of_one_role
from videomind.agent.samples import ChainSettings
from videomind.device import let_adapters_be_fast
from videomind.model.checkpoint import LoadSettings, load_model
from videomind.model.merging import merge_only_adapter
from videomind.roles import BudgetOverride
from videomind.train.train import main as train

TINY = ChainSettings(planning=True, rephrasing=True, budget=BudgetOverride(min_tokens=4, max_tokens=4))


@pytest.fixture(scope="module")
def rows(workshop) -> dict[str, dict]:
    return {role: role_row(role, videos_of(workshop)[0]) for role in ("grounder", "answerer")}


@pytest.fixture(scope="module")
def folders(workshop, rows, tmp_path_factory):
    """Both kinds of adapters: with tables of their own (grounder), and without."""
    root, made = tmp_path_factory.mktemp("alone"), {}
    for role, row in rows.items():
        (root / f"{role}.jsonl").write_text((json.dumps(row) + "\n") * 4)
        extra = ("--role", role, "--datasets", str(root / f"{role}.jsonl"), "--max_steps", "3")
        extra += ("--per_device_train_batch_size", "2")
        assert train(arguments(workshop, root / role, *extra)) == 0
        made[role] = root / role
    return made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("role", ["grounder", "answerer"])
def test_a_role_alone_says_the_same_merged(folders, rows, role, dtype):
    video, results = rows[role]["video"], []
    for merge in (False, True):
        agent = VideoMind.from_pretrained(
            roles={role: folders[role]}, max_new_tokens=4, dtype=dtype, fold_adapter=merge
        )
        assert isinstance(agent.pipeline.model, PeftModel) != merge and agent.pipeline.has(role)
        asked = {"query": "a red square"} if role == "grounder" else {"question": "what is it?"}
        results.append(agent(video, **asked, settings=TINY))
    apart, merged = results
    assert merged.agents == apart.agents and merged.grounder_response == apart.grounder_response
    if dtype == "float32":
        assert merged.answer == apart.answer
        for ours, theirs in zip(merged.candidates, apart.candidates, strict=True):
            assert ours.span == theirs.span and ours.score == pytest.approx(theirs.score, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("role", ["grounder", "answerer"])
def test_merged_logits(folders, role, seed):
    ids = torch.randint(5, 400, (2, 23), generator=torch.Generator().manual_seed(seed))
    model = load_model(folders[role], LoadSettings()).model.eval()
    with torch.inference_mode():
        apart = model(input_ids=ids).logits
    with torch.no_grad():
        merged = merge_only_adapter(model)(input_ids=ids).logits
    torch.testing.assert_close(merged, apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("roles", "answers", "is_one"),
    [
        (["grounder"], False, True),
        (["grounder"], True, False),
        (["answerer"], True, True),
        (["grounder", "verifier"], False, False),
        (["planner", "answerer"], True, False),
        ([], True, False),
    ],
)
def test_where_one_adapter_is_all(roles, answers, is_one):
    assert is_of_one_role(roles, answers=answers) == is_one


@pytest.mark.parametrize(("extra", "merges"), [((), True), (("--merge", "no"), False)])
def test_the_command_merges_unless_told_otherwise(folders, rows, tmp_path, monkeypatch, extra, merges):
    seen = []
    load = VideoMind.from_pretrained
    monkeypatch.setattr(
        predicting.VideoMind, "from_pretrained", lambda **how: seen.append(how["fold_adapter"]) or load(**how)
    )
    argv = ["--video", rows["grounder"]["video"], "--model_gnd_path", str(folders["grounder"]), *SMALL[:4]]
    argv += ["--max_new_tokens", "4", *extra]
    assert infer([*argv, "--query", "a square", "--pred_path", str(tmp_path / "a")]) == 0
    assert infer([*argv, "--question", "what?", "--pred_path", str(tmp_path / "b")]) == 0
    assert seen == [merges, False]


@pytest.mark.parametrize(
    ("dtype", "kind", "precision"),
    [
        (torch.bfloat16, "cuda", "high"),
        (torch.float16, "cuda", "high"),
        (torch.float32, "cuda", "highest"),
        (torch.bfloat16, "cpu", "highest"),
    ],
)
def test_tf32_serves_adapters_and_not_float32_weights(dtype, kind, precision):
    before = torch.get_float32_matmul_precision()
    try:
        let_adapters_be_fast(dtype, kind)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
