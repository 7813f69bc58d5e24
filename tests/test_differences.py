"""docs/DIFFERENCES.md: its ids, the tests it names, and the differences that no room's own test shows."""

import ast
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from helpers.goldens import golden_bases, golden_checkpoints
from helpers.runs import REPO

from videomind.dataset.filters import Filters
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Planning
from videomind.device import default_dtype
from videomind.model.adapters import LoraSettings, adapter, add_adapter
from videomind.model.checkpoint import LoadSettings, load_model
from videomind.model.saving import save_role
from videomind.roles import get_role

DOC = REPO / "docs/DIFFERENCES.md"
HEADING = re.compile(r"### ([DK]\d{3}) (\S.*)")
CITED = re.compile(r"\b[DK]\d{3}\b")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
# A section's letter and first digit.
SECTIONS = {"Data": "D1", "Frames": "D2", "Model": "D3", "Training": "D4", "Evaluation": "D5",
            "Video-ChatGPT": "D6", "Kept": "K"}  # fmt: skip
FIELDS = {"D": ["Theirs", "Ours", "Published numbers"], "K": ["Ours and theirs", "Why"]}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry. Attributes: name, its id; section; fields, by their names."""

    name: str
    section: str
    fields: dict[str, str]


def read_entries(text: str) -> list[Entry]:
    entries = []
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        section, *blocks = re.split(r"^(?=### )", part, flags=re.M)
        for block in blocks:
            heading, *lines = block.strip().splitlines()
            found = HEADING.fullmatch(heading)
            assert found, f"{heading!r} is no id and title"
            items = re.split(r"^- ", "\n".join(lines).strip(), flags=re.M)[1:]
            fields = dict(" ".join(item.split()).split(": ", 1) for item in items)
            fields = {name.replace("Tests", "Test"): value for name, value in fields.items()}
            entries.append(Entry(name=found[1], section=section.splitlines()[0], fields=fields))
    return entries


ENTRIES = read_entries(DOC.read_text(encoding="utf-8"))


def test_no_id_is_given_twice_and_each_is_of_its_section():
    names = [entry.name for entry in ENTRIES]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert {entry.section for entry in ENTRIES} == set(SECTIONS)
    for entry in ENTRIES:
        assert entry.name.startswith(SECTIONS[entry.section]), f"{entry.name} stands in {entry.section}"
    for section in SECTIONS:
        inside = [entry.name for entry in ENTRIES if entry.section == section]
        assert inside == sorted(inside)


@cache
def functions(path: str) -> set[str]:
    tree = ast.parse((REPO / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_says_all_and_its_tests_are_there(entry):
    assert list(entry.fields) == [*FIELDS[entry.name[0]], "Test"]
    assert all(entry.fields.values())
    tests = TEST.findall(entry.fields["Test"])
    assert TEST.sub("", entry.fields["Test"]).strip(", ") == "" and tests
    for path, name in tests:
        assert (REPO / path).is_file(), f"{entry.name} names {path}, which is not there"
        assert name.startswith("test_") and name in functions(path), f"{path} has no {name} ({entry.name})"


def places() -> list:
    """What may cite an entry: code, tests, scripts and documents."""
    found = [REPO / "README.md"]
    for folder in ("videomind", "tests", "scripts", "benchmarks", "docs"):
        found += [path for path in (REPO / folder).rglob("*") if path.suffix in (".py", ".sh", ".md")]
    return sorted(path for path in found if (REPO / "tests/golden") not in path.parents and path != DOC)


def test_what_is_cited_is_there():
    known = {entry.name for entry in ENTRIES}
    cited = {path: set(CITED.findall(path.read_text(encoding="utf-8"))) for path in places()}
    assert {
        str(path.relative_to(REPO)): names - known for path, names in cited.items() if names - known
    } == {}
    assert set().union(*cited.values())


def test_nothing_refers_to_lists_that_are_elsewhere():
    """A number without a list tells a reader nothing; what is departed from stands in that file."""
    outside = re.compile(r"\bdefects?,? (no\. )?\d|\b(row|fix)_\d+\b", re.IGNORECASE)
    found = {
        str(path.relative_to(REPO)): outside.findall(path.read_text(encoding="utf-8")) for path in places()
    }
    assert [path for path, words in found.items() if words] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("### D102", "### D101"), "D101"),
        (("### D201", "### D1" + "99"), "stands in Frames"),
        (("### D101 The", "### 101 The"), "no id and title"),
        (("- Theirs: decord.\n", ""), "Theirs"),
        (("::test_a_gif_that", "::test_a_gif_what"), "has no test_a_gif_what"),
        (("tests/test_spans.py", "tests/test_spasn.py"), "tests/test_spasn.py, which is not there"),
    ],
)
def test_mistakes_in_the_file_are_told(change, message, monkeypatch):
    text = DOC.read_text(encoding="utf-8")
    assert change[0] in text
    with pytest.raises(AssertionError, match=message):
        entries = read_entries(text.replace(*change))
        monkeypatch.setattr(f"{__name__}.ENTRIES", entries)
        test_no_id_is_given_twice_and_each_is_of_its_section()
        for entry in entries:
            test_an_entry_says_all_and_its_tests_are_there(entry)


# Differences that no room's own test shows.


def test_a_plan_without_its_query_does_not_train():
    """D107."""
    plan = {"video_path": "v.mp4", "question": "why?"}
    reasons = {
        route: Filters().reason(Annotation(**plan, route=route), Planning()) for route in (1, 2, 3, 4, 5)
    }
    assert reasons == {1: "no query", 2: None, 3: "no query", 4: None, 5: "unknown route 5"}


def test_a_cpu_computes_in_float32():
    """D310."""
    assert [default_dtype(kind) for kind in ("cpu", "cuda", "npu")] == [
        torch.float32,
        torch.float16,
        torch.float16,
    ]


@pytest.mark.golden
@pytest.mark.parametrize("folder", golden_checkpoints())
def test_the_vision_config_is_written_whole(golden, tmp_path, folder):
    """D309."""
    loaded = load_model(folder, LoadSettings(), roles=["grounder"])
    base = {"processor": loaded.processor, "base_path": str(loaded.base_folder)}
    save_role(loaded.model, tmp_path, role="grounder", **base)
    theirs, ours = (
        json.loads((path / "config.json").read_text()) for path in (golden.root / folder, tmp_path)
    )
    vision = loaded.model.get_base_model().config.vision_config
    added = ours["vision_config"].keys() - theirs["vision_config"].keys()
    assert {"mlp_ratio", "patch_size", "spatial_merge_size", "temporal_patch_size"} <= added
    assert {name: ours["vision_config"][name] for name in added} == {
        name: getattr(vision, name) for name in added
    }


@pytest.mark.golden
@pytest.mark.parametrize("folder", golden_bases(grow=True))
def test_grown_tables_are_saved_with_the_role(golden, tmp_path, folder):
    """D302."""
    loaded = load_model(folder, LoadSettings())
    model = add_adapter(loaded.model, get_role("planner"), LoraSettings(r=2))
    base = {"processor": loaded.processor, "base_path": str(golden.root / folder)}
    save_role(model, tmp_path, role="planner", tables=loaded.tables_grew, **base)
    again = load_model(tmp_path, LoadSettings()).model
    for old, new in zip(tables(model), tables(again), strict=True):
        assert len(old) >= len(loaded.processor.tokenizer) and torch.equal(old, new)


def tables(model) -> list[torch.Tensor]:
    return [table.weight.detach() for table in (model.get_input_embeddings(), model.get_output_embeddings())]


@pytest.mark.golden
@pytest.mark.parametrize("folder", golden_checkpoints())
def test_a_role_lasts_for_a_block(golden, folder):
    """D311: each role has its own layers and tables in its block, the base none, and all is as before."""
    ids = torch.tensor([[1, 5, 9, 7]])

    def logits(model):
        with torch.no_grad():
            return model(input_ids=ids).logits

    alone = {
        role: logits(load_model(folder, LoadSettings(), roles=[role]).model.eval())
        for role in ("grounder", "verifier")
    }
    both = load_model(folder, LoadSettings(), roles=["grounder", "verifier"])
    model = both.model.eval()
    alone[None] = logits(load_model(both.base_folder, LoadSettings()).model.eval())
    for outer in ("grounder", "verifier"):
        with adapter(model, outer):
            for inner in alone:
                with adapter(model, inner):
                    torch.testing.assert_close(logits(model), alone[inner])
                torch.testing.assert_close(logits(model), alone[outer])
    assert not torch.allclose(alone["grounder"], alone["verifier"], atol=1e-3)
    assert not torch.allclose(alone["verifier"], alone[None], atol=1e-3)
