"""The grounder at inference against the original chain: what it says, where it points, what is submitted."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.goldens import assert_same_window, golden_bases, golden_manifest, in_seconds, slow_if_untied
from PIL import Image

from videomind.agent.pipeline import GrounderOutput, Pipeline, prepare
from videomind.agent.samples import ChainSettings, asked_text, grounder_sample
from videomind.backbones.registry import load_processor
from videomind.dataset.schema import Annotation
from videomind.encoding.encoder import BadSampleError, Encoder
from videomind.eval.scorers.qvhighlights import submission_row
from videomind.model.adapters import bare
from videomind.model.checkpoint import LoadSettings, load_model
from videomind.prediction import Prediction
from videomind.roles import BudgetOverride
from videomind.video.excerpts import video_duration

CASES = [case for case in golden_manifest("model")["cases"] if case["id"].startswith("infer")]
UNITS = {"i_a": 0.1, "i_b": 0.001, "i_q": 2.0}  # of the made-up data sets, see the manifest's note
MAX_NEW_TOKENS = 40
MARGIN = 1e-2  # a token with a smaller lead may fairly differ


@pytest.fixture(scope="module")
def pipelines(golden_tree):
    made = {}

    def get(folder: str) -> Pipeline:
        if folder not in made:
            loaded = load_model(folder, LoadSettings(), roles=["grounder"])
            made[folder] = Pipeline(loaded.model, loaded.processor, max_new_tokens=MAX_NEW_TOKENS)
        return made[folder]

    return get


def annotations(golden, case: dict) -> list[dict]:
    return golden.json("model/infer_annos.json")[case["inputs"].get("dataset", "i_q")]


def agree(ids: list[int], recorded: dict) -> None:
    """Equal ids up to the first one whose lead was too small to tell."""
    for ours, theirs, margin in zip(ids, recorded["output_ids"], recorded["margins"], strict=False):
        if ours != theirs:
            assert margin < MARGIN
            return
    assert len(ids) == len(recorded["output_ids"])


def planned_queries(golden, case: dict) -> dict[int, str]:
    """Queries that the planner of a recorded chain put in place of the annotation's."""
    outputs = golden.json(f"model/{case['id']}.output.json")
    return {
        i: out["planner_parsed_query"] for i, out in enumerate(outputs) if out.get("planner_parsed_query")
    }


@pytest.mark.golden
@pytest.mark.parametrize("case", [slow_if_untied(c["id"], c) for c in CASES if c["id"].startswith("infer.")])
def test_the_grounder_of_every_chain(golden, pipelines, case):
    pipeline = pipelines(case["inputs"]["checkpoint"])
    trace = golden.json(f"model/{case['id']}.trace.json")
    arrays = golden.npz(f"model/{case['id']}.npz")
    outputs = golden.json(f"model/{case['id']}.output.json")
    calls = [(i, c) for i, c in enumerate(trace) if c["kind"] == "generate" and c["adapter"] == "grounder"]
    queries = planned_queries(golden, case)
    encoder = Encoder(pipeline.processor)
    compared = 0
    for number, anno in enumerate(annotations(golden, case)):
        record = outputs[number]
        if "grounder_response" not in record:
            continue
        query = queries.get(number, asked_text(Annotation(**anno), ChainSettings()))
        prepared = prepare(grounder_sample(anno["video_path"], query, ChainSettings()), encoder)
        result = pipeline.ground(prepared)
        generated = pipeline.generate(prepared.encoded)
        # The recording labels the answerer's calls with the adapter that was last set: tell them by grid.
        grid = [prepared.encoded.grid.tolist()]
        said = record["grounder_response"]
        index, call = next((i, c) for i, c in calls if c["grid"] == grid and c["text"].startswith(said))
        calls = [(i, c) for i, c in calls if i > index]
        pixels = pipeline.processor.normalized(prepared.encoded.pixel_values)
        assert pixels.mean().item() == pytest.approx(call["pv_mean"], abs=1e-3)
        agree(generated.ids, call)
        assert result.success == record["grounder_success"]
        assert result.response == record["grounder_response"]
        boundaries = None
        if result.success:
            boundaries = arrays[f"{index}.reg0"]
            compare_boundaries(result.boundaries, boundaries)
        compare_spans(result, anno, record, boundaries, UNITS[case["inputs"]["dataset"]])
        compared += 1
    assert compared


def compare_boundaries(ours: torch.Tensor, recorded: np.ndarray) -> None:
    assert ours.shape == recorded.shape
    kept = [rows[rows[:, 2] > 0] for rows in (ours.numpy(), recorded)]
    assert len(kept[0]) == len(kept[1])
    ours, recorded = (rows[np.argsort(-rows[:, 2], kind="stable")] for rows in kept)
    np.testing.assert_allclose(ours[:, :2], recorded[:, :2], atol=2e-3)
    np.testing.assert_allclose(ours[:, 2], recorded[:, 2], atol=1e-4)


def compare_spans(result, anno: dict, record: dict, boundaries: np.ndarray | None, unit_s: float) -> None:
    """Seconds on the data set's grid; the chain's own list is `pred_ori` where a verifier reordered it.

    From the recorded boundaries our rule gives the recorded windows exactly.
    """
    duration = anno.get("duration") or video_duration(anno["video_path"])
    assert duration == pytest.approx(record["duration"])
    spans, scores = result.scored_spans(duration, unit_s)
    if not result.success and "verifier" in record["agents"]:
        return  # then the verifier's five spans take their place
    recorded = record.get("pred_ori", record["pred"])
    assert len(spans) == len(recorded)
    if boundaries is None:
        np.testing.assert_allclose(spans, recorded, atol=1e-6)
    else:
        ruled, _ = replace(result, boundaries=torch.from_numpy(boundaries)).scored_spans(duration, unit_s)
        np.testing.assert_allclose(ruled, recorded, atol=1e-6)
        exact = in_seconds(boundaries, duration)
        for i in [i for i, score in enumerate(scores) if score > 0]:
            assert_same_window(spans[i], recorded[i], exact[i], unit_s=unit_s, duration_s=duration)
    np.testing.assert_allclose(scores, record.get("conf_ori", record["conf"]), atol=1e-4)


@pytest.mark.golden
@pytest.mark.parametrize("case", [c for c in CASES if c["id"].startswith("infer_qvh")], ids=lambda c: c["id"])
def test_qvhighlights_submission(golden, pipelines, case):
    pipeline = pipelines(case["inputs"]["checkpoint"])
    stored = (golden.root / "model" / case["outputs"]).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in stored.splitlines()]
    encoder = Encoder(pipeline.processor)
    annos = annotations(golden, case)
    assert len(annos) == len(rows)
    for anno, row in zip(annos, rows, strict=True):
        result = pipeline.ground(
            prepare(grounder_sample(anno["video_path"], anno["query"], ChainSettings()), encoder)
        )
        spans, scores = result.scored_spans(anno["duration"], UNITS["i_q"])
        record = {**anno, "pred": spans, "conf": scores, "grounder_success": result.success}
        ours = submission_row(Prediction.from_json(record))
        assert (ours["vid"], ours["qid"]) == (row["vid"], row["qid"])
        assert len(ours["pred_relevant_windows"]) == len(row["pred_relevant_windows"])
        whole = {"unit_s": UNITS["i_q"], "duration_s": anno["duration"]}
        exact = in_seconds(result.boundaries, anno["duration"]) if result.success else spans
        for window, recorded, times in zip(
            *(r["pred_relevant_windows"] for r in (ours, row)), exact, strict=True
        ):
            assert_same_window(window[:2], recorded[:2], times, **whole)
            assert window[2] == pytest.approx(recorded[2], abs=1e-4)


@pytest.mark.parametrize("rounded", [np.floor, np.ceil, lambda x: np.floor(x) + 1])
def test_another_rounding_would_be_told(rounded):
    times, unit_s = in_seconds(np.random.default_rng(0).random((50, 2)), 150.0), 2.0
    right, wrong = (how(times / unit_s) * unit_s for how in (np.round, rounded))
    told = 0
    for window, other, exact in zip(right, wrong, times, strict=True):
        assert_same_window(window, window, exact, unit_s=unit_s, duration_s=150.0)
        if not np.array_equal(window, other):
            with pytest.raises(AssertionError):
                assert_same_window(other, window, exact, unit_s=unit_s, duration_s=150.0)
            told += 1
    assert told > 20


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES[:1], ids=lambda c: c["id"])
def test_a_draft_gives_what_decoding_step_by_step_gives(golden, pipelines, case):
    """The shortcut changes nothing, whether the draft is what the model says or not."""
    pipeline = pipelines(case["inputs"]["checkpoint"])
    encoder = Encoder(pipeline.processor)
    for anno in annotations(golden, case)[:3]:
        prepared = prepare(grounder_sample(anno["video_path"], anno["query"], ChainSettings()), encoder)
        with torch.inference_mode():
            slow = pipeline.generate(prepared.encoded)
            for draft in (slow.ids, slow.ids[:-1] + [slow.ids[-1] + 1], pipeline.grounder_draft):
                fast = pipeline.generate(prepared.encoded, draft=draft)
                assert fast.ids == slow.ids and fast.text == slow.text
                shared = min(len(fast.states), len(slow.states))
                torch.testing.assert_close(fast.states[:shared], slow.states[:shared], atol=1e-3, rtol=1e-3)


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES[:1], ids=lambda c: c["id"])
def test_the_settings_of_a_chat_do_not_count(golden, pipelines, case, monkeypatch):
    """Published bases come with sampling and a penalty for repetitions; the agent decodes greedily."""
    pipeline = pipelines(case["inputs"]["checkpoint"])
    anno = annotations(golden, case)[0]
    sample = grounder_sample(anno["video_path"], anno["query"], ChainSettings())
    prepared = prepare(sample, Encoder(pipeline.processor))
    plain = pipeline.generate(prepared.encoded)
    chat = {"do_sample": True, "temperature": 0.5, "top_k": 2, "repetition_penalty": 20.0}
    for name, value in chat.items():
        monkeypatch.setattr(bare(pipeline.model).generation_config, name, value)
    assert pipeline.generate(prepared.encoded).ids == plain.ids


def test_no_moment_gives_the_whole_video():
    result = GrounderOutput(response="?", success=False, boundaries=torch.empty(0, 3))
    assert result.scored_spans(12.0, 0.1) == ([[0.0, 12.0]], [0.0])


@pytest.mark.golden
@pytest.mark.parametrize("name", ["v.gif", "v.GIF", "v.Gif"])
@pytest.mark.parametrize("fps", [0.5, 1.0, 2.0])
def test_a_gif_is_as_long_whatever_rate_a_role_reads_it_at(golden, tmp_path, name, fps):
    """Its frames have no rate of their own: a second each, as for the grounder."""
    pictures = [Image.new("RGB", (56, 56), (i * 20, 0, 0)) for i in range(9)]
    pictures[0].save(tmp_path / name, format="GIF", save_all=True, append_images=pictures[1:], duration=40)
    encoder = Encoder(load_processor(golden_bases()[0]))
    sample = grounder_sample(str(tmp_path / name), "x", ChainSettings(budget=BudgetOverride(fps=fps)))
    assert prepare(sample, encoder).duration_s == video_duration(str(tmp_path / name)) == 9


@pytest.mark.golden
def test_a_prompt_that_is_longer_than_the_model_is_a_bad_sample(golden, pipelines, monkeypatch):
    case = CASES[0]
    pipeline = pipelines(case["inputs"]["checkpoint"])
    anno = annotations(golden, case)[0]
    sample = grounder_sample(anno["video_path"], anno["query"], ChainSettings())
    prepared = prepare(sample, Encoder(pipeline.processor))
    length = len(prepared.encoded.input_ids)
    config = bare(pipeline.model).config.get_text_config()
    monkeypatch.setattr(config, "max_position_embeddings", length - 1)
    with pytest.raises(BadSampleError, match=f"has {length} tokens, the model has {length - 1} positions"):
        pipeline.ground(prepared)
