"""The whole chain against the original's records, step by step and as a whole."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from helpers.goldens import assert_same_window, golden_manifest, in_seconds, slow_if_untied

from videomind.agent.chain import Result, chain, drive, even_spans, parse_plan, ranking
from videomind.agent.pipeline import Pipeline, prepare, prepare_all
from videomind.agent.samples import ChainSettings, verifier_samples
from videomind.dataset.schema import Annotation
from videomind.encoding.encoder import BadSampleError, Encoder
from videomind.model.checkpoint import LoadSettings, load_model
from videomind.roles import VisualBudget
from videomind.video.excerpts import video_duration

CASES = [case for case in golden_manifest("model")["cases"] if case["id"].startswith("infer.")]
MAX_NEW_TOKENS = 40
# The made-up data sets of the recording, see the manifest's note.
B_BUDGET = VisualBudget(min_tokens=36, max_tokens=64, max_frames=16, fps=1.0)
SOURCES = {
    "i_a": {"unit_s": 0.1, "min_len_s": 4},
    "i_b": {"unit_s": 0.001, "min_ratio": 0.5, "answer_budget": B_BUDGET},
}
FLAGS = {"--auto_planning": "planning", "--auto_rephrasing": "rephrasing"}
MODELS = {"--model_ver_path": "verifier", "--model_pla_path": "planner"}
MARGIN = 1e-2  # a token with a smaller lead may fairly differ
CLEAR = 1e-4  # verdicts that are closer may fairly change places


@pytest.fixture(scope="module")
def pipelines(golden_tree):
    made = {}

    def get(folder: str, roles: tuple[str, ...]) -> Pipeline:
        if (folder, roles) not in made:
            loaded = load_model(folder, LoadSettings(), roles=roles)
            made[folder, roles] = Pipeline(loaded.model, loaded.processor, max_new_tokens=MAX_NEW_TOKENS)
        return made[folder, roles]

    return get


def settings_of(case: dict) -> tuple[tuple[str, ...], ChainSettings]:
    """Roles and settings of a recorded command line."""
    args = case["inputs"]["args"]
    roles = ("grounder", *(role for flag, role in MODELS.items() if flag in args))
    style = args[args.index("--style") + 1] if "--style" in args else "mcq"
    flags = {name: flag in args for flag, name in FLAGS.items()}
    return roles, ChainSettings(style=style, **flags, **SOURCES[case["inputs"]["dataset"]])


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a case recorded of one sample.

    Attributes: output, its record; calls, all calls of the case; boundaries (N, 3) of the grounder, or None;
    decode, tokens to text.
    """

    output: dict
    calls: list[dict]
    boundaries: np.ndarray | None
    decode: Callable[[list[int]], str]

    def agrees(self, text: str, recorded: str) -> bool:
        """Whether two responses are equal up to a token whose lead was too small to tell."""
        if text == recorded:
            return True
        said = [c for c in self.calls if c["text"].replace("<|im_end|>", "").strip() == recorded.strip()]
        return said[0]["margins"][self.parting(text, said[0]["output_ids"])] < MARGIN

    def parting(self, text: str, ids: list[int]) -> int:
        """The token at which a text parts from recorded ones; half a character parts with its next token."""
        begun = (self.decode(ids[: i + 1]).rstrip("\N{REPLACEMENT CHARACTER}") for i in range(len(ids)))
        return next((i for i, start in enumerate(begun) if not text.startswith(start)), len(ids) - 1)


def recordings(golden, case: dict, pipeline: Pipeline) -> list[Recording]:
    """Those of a case, one per sample; boundaries were recorded where the grounder succeeded, in order."""
    calls = [c for c in golden.json(f"model/{case['id']}.trace.json") if c["kind"] == "generate"]
    arrays = golden.npz(f"model/{case['id']}.npz")
    found = iter(
        sorted((name for name in arrays if name.endswith(".reg0")), key=lambda n: int(n.split(".")[0]))
    )
    return [
        Recording(
            output={name: value for name, value in output.items() if value is not None},
            calls=calls,
            boundaries=arrays[next(found)] if output.get("grounder_success") else None,
            decode=pipeline.processor.tokenizer.decode,
        )
        for output in golden.json(f"model/{case['id']}.output.json")
    ]


@pytest.mark.golden
@pytest.mark.parametrize("case", [slow_if_untied(c["id"], c) for c in CASES])
def test_records(golden, pipelines, case):
    roles, settings = settings_of(case)
    pipeline = pipelines(case["inputs"]["checkpoint"], roles)
    encoder = Encoder(pipeline.processor)
    annos = golden.json("model/infer_annos.json")[case["inputs"]["dataset"]]
    for raw, recording in zip(annos, recordings(golden, case, pipeline), strict=True):
        anno = Annotation(**raw)
        result = drive(chain(pipeline, encoder, anno, settings), partial(prepare_all, encoder=encoder))
        compare_record(result, anno, recording, settings.unit_s)


def compare_record(result: Result, anno: Annotation, recording: Recording, unit_s: float) -> None:
    record = result.prediction(anno).to_json()
    recorded = recording.output
    # An unreadable plan is said to be one, which the original only printed.
    unreadable = record.pop("planner_unparsable", False)
    if "planner_response" in record:
        assert unreadable == (not readable(record["planner_response"]))
    assert record.keys() == recorded.keys()
    for name in recorded.keys() - {"pred", "conf", "pred_ori", "conf_ori", "probs", "ranks"}:
        if name.endswith("response"):
            # A verifier's choice between near-equal candidates decides what the answerer sees.
            if name in ("answerer_response", "response") and not same_excerpt(record, recorded):
                continue
            assert recording.agrees(record[name], recorded[name]), name
        else:
            assert record[name] == (pytest.approx(recorded[name]) if name == "duration" else recorded[name])
    for suffix in ("", "_ori"):
        if f"pred{suffix}" in recorded and (suffix or "ranks" not in recorded):
            compare_candidates(record, recording, suffix, unit_s)
    if "ranks" in recorded:
        compare_ranks(record, recorded)


def readable(response: str) -> bool:
    return parse_plan(response, rephrasing=True, planning=True).is_readable


def same_excerpt(record: dict, recorded: dict) -> bool:
    return "ranks" not in recorded or record["ranks"][0] == recorded["ranks"][0]


def compare_candidates(record: dict, recording: Recording, suffix: str, unit_s: float) -> None:
    """Candidates that NMS suppressed have score 0 and no order; without a moment a rule gives the windows."""
    ours, spans = record[f"pred{suffix}"], recording.output[f"pred{suffix}"]
    scores, duration = recording.output[f"conf{suffix}"], recording.output["duration"]
    np.testing.assert_allclose(record[f"conf{suffix}"], scores, atol=1e-4)
    if recording.boundaries is None:
        np.testing.assert_allclose(ours, spans, atol=1e-6)
        return
    exact = in_seconds(recording.boundaries, duration)
    for i in [i for i, score in enumerate(scores) if score > 0]:
        assert_same_window(ours[i], spans[i], exact[i], unit_s=unit_s, duration_s=duration)


def compare_ranks(record: dict, recorded: dict) -> None:
    np.testing.assert_allclose(record["probs"], recorded["probs"], atol=1e-3)
    assert sorted(record["ranks"]) == sorted(recorded["ranks"])
    for place, ours in enumerate(record["ranks"]):
        theirs = recorded["ranks"][place]
        assert ours == theirs or abs(recorded["probs"][ours] - recorded["probs"][theirs]) <= CLEAR
        assert record["pred"][place] == record["pred_ori"][ours]
        assert record["conf"][place] == record["conf_ori"][ours]
    assert len(record["pred"]) == len(recorded["pred"])


@pytest.mark.golden
@pytest.mark.parametrize("case", [slow_if_untied(c["id"], c) for c in CASES])
def test_verdicts_against_the_trace(golden, pipelines, case):
    """Probabilities of Yes and No for the recorded candidates themselves, alone and in a batch."""
    trace = [c for c in golden.json(f"model/{case['id']}.trace.json") if c["kind"] == "verify"]
    roles, settings = settings_of(case)
    if "verifier" not in roles:
        assert not trace
        return
    pipeline = pipelines(case["inputs"]["checkpoint"], roles)
    encoder = Encoder(pipeline.processor)
    annos = golden.json("model/infer_annos.json")[case["inputs"]["dataset"]]
    for raw, output in zip(annos, golden.json(f"model/{case['id']}.output.json"), strict=True):
        if "probs" not in output:
            continue
        text = raw["question"] if "question" in raw else raw["query"]
        samples = verifier_samples(
            raw["video_path"], text, output["pred_ori"][:5], output["duration"], settings
        )
        batch = prepare_all(samples, encoder)
        calls, trace = trace[: len(batch)], trace[len(batch) :]
        assert [p.encoded.grid.tolist() for p in batch] == [c["grid"][0] for c in calls]
        together = pipeline.verify(batch)
        alone = [pipeline.verify([prepare(sample, encoder)])[0] for sample in samples]
        expected = [1 / (1 + np.exp(c["p_no"] - c["p_yes"])) for c in calls]
        np.testing.assert_allclose(together, expected, atol=1e-3)
        np.testing.assert_allclose(together, alone, atol=1e-5)
    assert not trace


@pytest.mark.golden
def test_plans(golden):
    cases = golden.json("units/planner_parse.json")
    assert cases
    for case in cases:
        flags = {"rephrasing": case["auto_rephrasing"], "planning": case["auto_planning"]}
        plan = parse_plan(case["response"], **flags)
        assert plan.is_readable == case["parsed_ok"], case
        assert plan.should_ground == case["do_grounding"], case
        assert plan.query == case["dump"].get("planner_parsed_query"), case


@pytest.mark.parametrize(
    "response", ["[" * 100_000, '[{"type":' * 5_000, "9" * 5_000, "[1e999]", "[null]", "\ud800"]
)
def test_a_plan_that_nothing_can_read_changes_nothing(response):
    plan = parse_plan(response, rephrasing=True, planning=True)
    assert (plan.is_readable, plan.should_ground, plan.query) == (False, True, None)


def test_candidates_of_one_pass_are_those_read_alone(golden, pipelines):
    pipeline = pipelines(CASES[0]["inputs"]["checkpoint"], ("grounder",))
    encoder = Encoder(pipeline.processor)
    path = golden.json("model/infer_annos.json")[CASES[0]["inputs"]["dataset"]][0]["video_path"]
    length = video_duration(path)
    shares = [[0, 0.3], [0.2, 0.9], [0.8, 1], [0.99, 1], [0, 1]]
    spans = [[start * length, end * length] for start, end in shares]
    samples = verifier_samples(path, "x", spans, length, ChainSettings())
    for together, sample in zip(prepare_all(samples, encoder), samples, strict=True):
        alone = prepare(sample, encoder)
        assert torch.equal(together.encoded.pixel_values, alone.encoded.pixel_values)
        assert torch.equal(together.encoded.input_ids, alone.encoded.input_ids)


def test_responses_are_compared_up_to_a_token_that_could_be_another():
    pieces = ["a", " b", "\N{REPLACEMENT CHARACTER}", "é", " c", "<|im_end|>"]  # é is two tokens

    def decode(ids: list[int]) -> str:
        return "".join(pieces[i] for i in ids if i != 2 or ids[-1] == 2)

    def agrees(text: str, close: int) -> bool:
        margins = [0.001 if i == close else 1.0 for i in range(len(pieces))]
        call = {"text": "a bé c<|im_end|>", "output_ids": list(range(len(pieces))), "margins": margins}
        recording = Recording(output={}, calls=[call], boundaries=None, decode=decode)
        return recording.agrees(text, "a bé c")

    assert agrees("a bé c", 0)
    parts = {"x": 0, "a d": 1, "a b-": 3, "a bé d": 4, "a bé": 4, "a bé c d": 5}
    for text, place in parts.items():
        assert [agrees(text, close) for close in range(6)] == [close == place for close in range(6)], text


def test_ties_keep_the_grounders_order():
    """D504: the original's order was rounding noise within 1e-6."""
    assert ranking([0.5, 0.5000005, 0.6, 0.4]) == [2, 0, 1, 3]
    assert ranking([0.5, 0.500002, 0.6]) == [2, 1, 0]
    values = [random.Random(i).random() for i in range(20)]
    assert ranking(values) == sorted(range(20), key=lambda i: -values[i])


def test_five_windows():
    assert even_spans(12.0) == [[0, 4], [2, 6], [4, 8], [6, 10], [8, 12]]


@pytest.mark.parametrize(
    "anno", [Annotation(query="", question="", options=[]), Annotation(video_path="v.mp4")]
)
def test_nothing_to_ask_ends_the_sample_with_its_reason(anno):
    """As in a row of MLVU that has neither question nor options."""
    with pytest.raises(BadSampleError, match="nothing to ask: neither query nor question"):
        next(chain(None, None, anno, ChainSettings()))
