"""What a backbone alone may know is declared in its room, and nowhere else.

Covers `backbones/backbone.py`, `backbones/registry.py`, `backbones/qwen2_vl/config.py` and
`backbones/qwen2_vl/declaration.py`.
"""

import ast
import json
import re
import shutil
from pathlib import Path

import pytest
from helpers.goldens import golden_bases

from videomind.backbones.backbone import DEFAULT_BACKBONE
from videomind.backbones.registry import get_backbone, load_processor
from videomind.model.disk_format import ours_to_published, published_to_ours
from videomind.roles import VisualBudget, VisualUnits

PACKAGE = Path(__file__).parents[2] / "videomind"
# Rooms that make and use a tiny Qwen2-VL, and one of another family of models.
EXEMPT = ("backbones", "synthetic", "quickstart", "video_chatgpt")
FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if p.relative_to(PACKAGE).parts[0] not in EXEMPT]
NUMBERS = {28, 28 * 28, 1176}
WORDS = re.compile(r"qwen|<\|im_|<\|vi(deo|sion)_|1176|28 x 28", re.IGNORECASE)
PARAMETERS = {"merge", "patch", "token_side", "frames_per_step", "temporal_patch", "end_mark", "units"}


def facts(tree: ast.Module) -> list[str]:
    """Constants, names and parameters with defaults that tell of one backbone."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            text = node.value if isinstance(node.value, str) else ""
            if WORDS.search(text) or (type(node.value) is int and node.value in NUMBERS):
                found.append(f"{node.lineno}: {str(node.value)[:60]!r}")
        elif isinstance(node, ast.alias | ast.Name | ast.Attribute):
            name = getattr(node, "name", None) or getattr(node, "id", None) or getattr(node, "attr", "")
            if WORDS.search(name.rpartition(".")[2]):
                found.append(f"{node.lineno}: {name}")
        elif isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            with_default = positional[len(positional) - len(node.defaults) :]
            with_default += [
                a for a, default in zip(node.kwonlyargs, node.kw_defaults, strict=True) if default
            ]
            found += [f"{a.lineno}: {a.arg} has a default" for a in with_default if a.arg in PARAMETERS]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_other_room_knows_a_backbone(path):
    assert facts(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "SIZE = 28",
        "def f(x, merge=2): ...",
        "def f(*, frames_per_step: int = 2): ...",
        'END = "<|im_end|>"',
        "from transformers import Qwen2VLConfig",
        "class A:\n    '''(N, 1176)'''",
    ],
)
def test_the_search_finds_facts(code):
    assert facts(ast.parse(code))


@pytest.mark.parametrize("name", [DEFAULT_BACKBONE])
def test_names_go_to_disk_and_back(name):
    backbone = get_backbone(name)
    towers = (backbone.language, backbone.vision, backbone.merger, backbone.final_norm)
    for module in (*towers, "head.coef", *backbone.tables[1:]):
        for prefix in ("", "base_model.model."):
            ours = f"{prefix}{module}.weight"
            published = ours_to_published(ours, backbone)
            assert published_to_ours(published, backbone) == ours == published_to_ours(ours, backbone)
            assert ours_to_published(published, backbone) == published


def test_the_video_token_stands_once_in_the_videos_place():
    backbone = get_backbone(DEFAULT_BACKBONE)
    assert backbone.video_text.count(backbone.video_token) == 1


@pytest.mark.golden
@pytest.mark.parametrize(
    ("field", "value", "seen"),
    [
        ("merge_size", 4, "56 pixels and 2 frames"),
        ("patch_size", 16, "32 pixels and 2"),
        ("temporal_patch_size", 1, "28 pixels and 1"),
    ],
)
def test_files_that_contradict_the_declaration_are_refused(golden, tmp_path, field, value, seen):
    folder = Path(shutil.copytree(golden.root / golden_bases()[0], tmp_path / "base"))
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=rf"preprocessor_config\.json: a visual token of {seen}"):
        load_processor(folder)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_folder_that_lacks_a_file_is_refused(golden, tmp_path, name):
    folder = Path(shutil.copytree(golden.root / golden_bases()[0], tmp_path / "base"))
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"has no {name}"):
        load_processor(folder)


def test_a_budget_without_a_backbone_has_no_pixels():
    budget = VisualBudget(min_tokens=4, max_tokens=9, max_frames=10, fps=1.0)
    with pytest.raises(ValueError, match="not in the units of a backbone"):
        _ = budget.max_pixels
    units = VisualUnits(token_side=10, frames_per_step=3)
    assert (budget.on(units).min_pixels, budget.on(units).max_pixels) == (400, 900)


def test_a_budget_of_less_than_a_step_is_refused():
    budget = VisualBudget(min_tokens=4, max_tokens=9, max_frames=2, fps=1.0)
    with pytest.raises(ValueError, match=r"at least 3 frames, not 2 \(--max_frames\)"):
        budget.on(VisualUnits(token_side=10, frames_per_step=3))
