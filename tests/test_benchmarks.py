"""The benchmarks run, and what they claim holds at a smaller size."""

import importlib.util
import re
import subprocess
import sys

import pytest
from helpers.runs import REPO, environment


@pytest.fixture(scope="module")
def real_shape(tmp_path_factory):
    """The folder of the benchmark of that name, where a base that was made stays."""
    return tmp_path_factory.mktemp("real_shape")


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_real_shape(real_shape, processes):
    """A base is made, trained, loaded and asked, at a small size."""
    command = [sys.executable, "benchmarks/real_shape.py", "--size", "small", "--folder", str(real_shape)]
    command += ["--processes", processes]
    done = subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split("  ")[0] for line in done.stdout.splitlines()[2:]] == [
        "make the base",
        f"train 2 steps, {processes} process(es)",
        "load, ask one question",
    ]


@pytest.mark.slow
def test_annotations():
    """A large set costs no more per item, nor memory per worker, than a small one."""
    command = [sys.executable, "benchmarks/annotations.py", "--scale", "0.1"]
    done = subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True, check=True)
    rows = [re.split(" +", line.strip().replace(",", "")) for line in done.stdout.splitlines()[-2:]]
    small, large = ([float(number) for number in row] for row in rows)
    assert (small[0], large[0]) == (989, 48_100)
    assert large[3] < 2 * small[3]
    assert large[4] < 60 and large[4] < small[4] + 20
    assert large[2] < large[1] / 4  # from the cache


@pytest.mark.slow
def test_decoding():
    """Two checkouts read the same; against itself neither is the faster by much."""
    command = [sys.executable, "benchmarks/decoding.py", str(REPO), "--rounds", "2", "--seconds", "5"]
    done = subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = done.stdout.splitlines()[2:]
    assert len(rows) == 18 and all(row.split()[-4] == "2" for row in rows)


@pytest.fixture(scope="module")
def cost():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPO / "benchmarks")
        spec = importlib.util.spec_from_file_location("cost", REPO / "benchmarks/cost.py")
        module = sys.modules["cost"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def test_a_frozen_tower_costs_what_its_weights_say(cost):
    """Two operations per weight and patch, and attention within a step: 4 x patches x width of each layer."""
    model, seen = cost.make_model("small", "planner"), cost.Input.of("planner")
    tower = model.get_submodule(model.backbone.vision)
    patches, tokens, vision = 4 * seen.tokens, seen.steps * seen.tokens, model.config.vision_config
    blocks = sum(p.numel() for p in tower.blocks.parameters() if p.dim() > 1)
    embed = sum(p.numel() for p in tower.patch_embed.parameters())
    merger = sum(p.numel() for p in tower.merger.parameters() if p.dim() > 1)
    attention = 4 * patches * vision.embed_dim * vision.depth
    expected = 4 * tokens * (2 * (blocks + embed) + attention) + 2 * tokens * merger
    assert cost.vision_cost(model, seen).flops == pytest.approx(expected, rel=1e-9)


def test_memory_falls_with_devices_and_stages(cost):
    for role in ("planner", "grounder"):
        by_stage = [
            [cost.training_memory("small", role, n, stage) for n in (1, 2, 4, 8)] for stage in (1, 2, 3)
        ]
        for stage in by_stage[:2]:
            assert stage == sorted(stage, reverse=True)
        assert by_stage[0][3] > by_stage[1][3]
    five, two = (cost.chain_memory("small", candidates=n) for n in (5, 2))
    assert five > two > cost.chain_memory("small", candidates=2, devices=2)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["2b", "7b"])
def test_what_the_documents_say_is_what_is_computed(cost, size):
    """Of the tables marked computed: every figure, to the digits that they have."""
    text = "".join((REPO / f"docs/{name}.md").read_text() for name in ("TRAIN", "EVAL", "BENCHMARKS"))
    parts = [*cost.cost_rows(cost.question_cost(size)), *cost.cost_rows(cost.training_cost(size, "grounder"))]
    for row in (*cost.memory_rows(size), *cost.chain_rows(size)):
        cells = [f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row]
        assert f"| {size} | {' | '.join(cells)} |" in text
    for name, tera, share, operators, moved, *seconds in parts:
        cells = [
            name,
            f"{tera:.2f}",
            share,
            f"{operators:.0f}",
            f"{moved:.2f}",
            *(f"{s:.2f}" for s in seconds),
        ]
        assert f"| {size} | {' | '.join(cells)} |" in text


def test_the_first_figures_hold(cost):
    """Counted apart and before: 195 TFLOP of a question at 2B, 62 % of them for vision."""
    parts = cost.question_cost("2b")
    total = sum(part.flops for part in parts.values())
    assert total == pytest.approx(195e12, rel=0.02) and parts["vision"].flops / total == pytest.approx(
        0.62, abs=0.01
    )
