"""The disk layout: what we write has the original's files, keys and shapes; what does not fit is refused.

Covers `model/adapters.py`, `model/disk_format.py`, `model/saving.py` and `model/tensors.py`.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.goldens import golden_bases, golden_checkpoints, golden_manifest, output_names
from helpers.runs import needs_deepspeed
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers.integrations import HfDeepSpeedConfig

from videomind.backbones.registry import get_backbone
from videomind.model.adapters import bare, check_new_rows
from videomind.model.checkpoint import LoadSettings, load_model
from videomind.model.disk_format import ours_to_published, published_to_ours
from videomind.model.saving import save_full, save_role

CHECKPOINTS, BASES = golden_checkpoints(), golden_bases()


def save_again(loaded, folder: Path) -> Path:
    save_role(
        loaded.model, folder, role="grounder", processor=loaded.processor, base_path=str(loaded.base_folder)
    )
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name if path.parent != folder else '.'}/{name}": value
        for path in folder.rglob("*.safetensors")
        for name, value in load_file(path).items()
    }


@pytest.mark.golden
@pytest.mark.parametrize("folder", CHECKPOINTS)
def test_ours_has_the_files_keys_and_shapes_of_the_original(golden, tmp_path, folder):
    original = golden.root / folder
    ours = save_again(load_model(original, LoadSettings(), roles=["grounder"]), tmp_path / "ours")
    others = {"planner", "verifier"}
    files = {str(p.relative_to(original)) for p in original.rglob("*") if p.is_file()}
    files = {name for name in files if name.split("/")[0] not in others}
    assert {str(p.relative_to(ours)) for p in ours.rglob("*") if p.is_file()} == files
    theirs = {k: v for k, v in tensors(original).items() if k.split("/")[0] not in others}
    mine = tensors(ours)
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in theirs.items()}
    assert all(torch.equal(mine[k], theirs[k].float()) for k in mine)
    for name in ("config.json", "grounder/adapter_config.json", "preprocessor_config.json"):
        assert_fields(json.loads((ours / name).read_text()), json.loads((original / name).read_text()))


def assert_fields(ours: dict, theirs: dict) -> None:
    """At least the original's fields, with its values."""
    for name, value in theirs.items():
        if name == "target_modules":
            assert ours[name] == sorted(value)  # D308: the original's order is random
        elif isinstance(value, dict):
            assert_fields(ours[name], value)
        else:
            assert ours[name] == value, name


@pytest.mark.golden
@pytest.mark.parametrize("folder", CHECKPOINTS)
def test_tokenizer_files_give_the_same_ids(golden, tmp_path, folder):
    loaded = load_model(folder, LoadSettings(), roles=["grounder"])
    ours = save_again(loaded, tmp_path / "ours")
    text = "Find <|reg|> between <|seg_start|> and <|seg_end|>, élan 一个."
    again = load_model(ours, LoadSettings(base_path=str(loaded.base_folder))).processor
    assert again.tokenizer.encode(text) == loaded.processor.tokenizer.encode(text)
    assert again.chat_template == loaded.processor.chat_template
    assert json.loads((ours / "added_tokens.json").read_text()) == golden.json(f"{folder}/added_tokens.json")


@pytest.mark.golden
@pytest.mark.parametrize("folder", CHECKPOINTS)
def test_load_save_load_gives_identical_predictions(golden, tmp_path, folder):
    first = load_model(folder, LoadSettings(), roles=["grounder"])
    again = load_model(save_again(first, tmp_path / "ours"), LoadSettings())
    ids = torch.tensor([[1, 5, 9, first.model.config.reg_token_id, 7]])
    width = first.model.config.text_config.hidden_size
    clips, query = torch.randn(9, width), torch.randn(1, width)
    outputs = []
    for loaded in (first, again):
        model = loaded.model.eval()
        with torch.no_grad():
            head = bare(model).head([clips], [query])
            outputs.append((model(input_ids=ids).logits, head.class_logits, head.offsets))
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def copy(golden, tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden.root / CHECKPOINTS[0], tmp_path / "copy"))


def edit(path: Path, change) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "pytorch_model.safetensors",
            lambda s: s.pop("base_model.model.coef.scale"),
            r"1 missing \(head\.coef",
        ),
        (
            "pytorch_model.safetensors",
            lambda s: s.update({"base_model.model.vis_proj.9.bias": torch.ones(1)}),
            r"1 unexpected \(head\.vis_proj\.9\.bias\)",
        ),
        (
            "pytorch_model.safetensors",
            lambda s: s.update({"base_model.model.coef.scale": torch.ones(5)}),
            r"1 mismatched \(head\.coef\.scale \(5,\) instead of \(4,\)\)",
        ),
        (
            "grounder/adapter_model.safetensors",
            lambda s: s.pop("base_model.model.lm_head.weight"),
            r"1 missing \(base_model\.model\.lm_head",
        ),
        (
            "grounder/adapter_model.safetensors",
            lambda s: s.update(
                {"base_model.model.model.layers.99.self_attn.q_proj.lora_A.weight": torch.ones(1)}
            ),
            r"1 unexpected \(.*layers\.99",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(golden, tmp_path, file, change, message):
    folder = copy(golden, tmp_path)
    edit(folder / file, change)
    with pytest.raises(ValueError, match=message):
        load_model(folder, LoadSettings(), roles=["grounder"])


@pytest.mark.golden
def test_a_base_with_a_missing_tensor_is_refused(golden, tmp_path):
    folder = Path(shutil.copytree(golden.root / BASES[0], tmp_path / "base"))
    shard = next(p for p in folder.glob("*.safetensors") if "visual.merger.ln_q.weight" in load_file(p))
    edit(shard, lambda state: state.pop("visual.merger.ln_q.weight"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"].pop("visual.merger.ln_q.weight")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"1 missing \(model\.visual\.merger\.ln_q\.weight"):
        load_model(folder, LoadSettings())


@pytest.mark.golden
def test_a_missing_base_says_what_was_tried_and_how_to_mend_it(golden, tmp_path, monkeypatch):
    folder = copy(golden, tmp_path)
    monkeypatch.chdir(tmp_path)
    base = json.loads((folder / "config.json").read_text())["base_model_path"]
    with pytest.raises(ValueError, match=rf"No base model of .*Tried .*{base}.*--base_model_path"):
        load_model(folder, LoadSettings())
    override = LoadSettings(base_path=str(golden.root / base))
    assert load_model(folder, override, roles=["grounder"]).base_folder == golden.root / base


@pytest.mark.golden
def test_a_role_that_is_not_there_is_refused(golden, tmp_path):
    folder = copy(golden, tmp_path)
    shutil.rmtree(folder / "planner")
    with pytest.raises(ValueError, match="no adapter for the planner.*It holds: grounder, verifier"):
        load_model(folder, LoadSettings(), roles=["planner"])


@pytest.mark.golden
@pytest.mark.parametrize("folder", BASES)
def test_a_full_save_is_a_base_in_the_published_layout(golden, tmp_path, folder):
    base = golden.root / folder
    loaded = load_model(base, LoadSettings())
    save_full(loaded.model, tmp_path / "full", loaded.processor, shard_size="500KB")
    theirs = {k.split("/")[1]: v for k, v in tensors(base).items()}
    mine = {k.split("/")[1]: v for k, v in tensors(tmp_path / "full").items()}
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[k], theirs[k]) for k in theirs)
    assert_fields(json.loads((tmp_path / "full/config.json").read_text()), strip(golden, folder))


def strip(golden, folder: str) -> dict:
    """The base's config without what says by whom and when it was written."""
    config = golden.json(f"{folder}/config.json")
    config["rope_scaling"].pop("type")
    return {k: v for k, v in config.items() if k != "transformers_version"}


@pytest.mark.golden
@pytest.mark.parametrize("folder", golden_bases(grow=True))
def test_special_tokens_of_grown_tables_are_the_mean_of_the_rows_before(golden, folder):
    before = load_model(folder, LoadSettings())
    assert before.tables_grew
    model = before.model
    old = golden.json(f"{folder}/config.json")["vocab_size"]
    for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert len(table) == len(before.processor.tokenizer) > old
        torch.testing.assert_close(table[-3:], table[:-3].mean(0).expand(3, -1))


GROWN = [
    (case["inputs"]["base"], name)
    for case in golden_manifest("roles")["cases"]
    if case["inputs"]["base"] in golden_bases(grow=True)
    for name in output_names(case)
    if name.endswith(".npz")
]


@pytest.mark.golden
@pytest.mark.parametrize(("folder", "name"), GROWN)
def test_grown_tables_are_the_recorded_ones(golden, folder, name):
    """D302: in the original only these roles could grow, and lost the new rows on saving."""
    recorded = golden.npz(f"roles/{name}")
    model = load_model(folder, LoadSettings()).model
    tables = {"i": model.get_input_embeddings().weight, "o": model.get_output_embeddings().weight}
    assert list(tables["i"].shape) == recorded["i_shape"].tolist()
    for side, table in tables.items():
        tail = torch.from_numpy(recorded[f"{side}_emb_tail"])
        torch.testing.assert_close(table[-len(tail) :].detach(), tail, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "ours",
    [
        "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight",
        "model.visual.blocks.1.attn.qkv.bias",
        "head.vis_fuse.0.ffn_norm.weight",
        "lm_head.weight",
    ],
)
def test_names_go_to_disk_and_back(ours):
    backbone = get_backbone("qwen2_vl")
    disk = ours_to_published(ours, backbone)
    assert "language_model" not in disk and not disk.startswith("head.")
    assert published_to_ours(disk, backbone) == ours == published_to_ours(ours, backbone)
    assert ours_to_published(disk, backbone) == disk


@needs_deepspeed
def test_rows_that_peft_cannot_gather_are_refused(monkeypatch):
    """New rows alone, sharded by ZeRO-3, without CUDA; of an adapter that starts, and of one that goes on."""
    monkeypatch.setenv("VIDEOMIND_DEVICE", "cpu")
    rows, none = (LoraConfig(trainable_token_indices=ids) for ids in ({"embed_tokens": [7]}, None))
    for stage, is_refused in ((3, True), (2, False)):
        running = HfDeepSpeedConfig({"zero_optimization": {"stage": stage}})  # as long as it is held
        check_new_rows(none)
        if is_refused:
            with pytest.raises(ValueError, match="--train_new_tokens_only.* cannot train under ZeRO-3 here"):
                check_new_rows(rows)
        else:
            check_new_rows(rows)
        del running
    check_new_rows(rows)
