"""Starting points of either layout, adapters, whole models; every tensor is accounted for.

Covers `video_chatgpt/adapter.py`.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers.mapped import own_memory
from helpers.videochat import BASE, GOLDEN, NEW_ROWS, mlp_base, nested_base
from safetensors.torch import load_file, save_file

from videomind.model.checkpoint import LoadSettings
from videomind.video_chatgpt.adapter import (
    continue_adapter,
    load_chat,
    save_video_adapter,
    video_adapter_state,
)
from videomind.video_chatgpt.disk import (
    LoadedVideoModel,
    add_videos,
    load_start,
    read_bin,
    save_whole,
    whole_state,
)
from videomind.video_chatgpt.tokenizer import VideoTokens

pytestmark = pytest.mark.golden
ADAPTER = GOLDEN.root / "e_model/train/out/mm_projector.bin"
VOCAB = json.loads((BASE / "config.json").read_text())["vocab_size"]


def start(folder: Path = BASE, *, has_start_end: bool = True) -> LoadedVideoModel:
    loaded = load_start(folder, LoadSettings())
    add_videos(loaded, has_start_end=has_start_end)
    return loaded


def copy_of(folder: Path, base: Path = BASE, **changes) -> Path:
    """A copy of a base with tensors added, replaced or (None) left out."""
    shutil.copytree(base, folder)
    weights = load_file(base / "model.safetensors") | changes
    weights = {name: value for name, value in weights.items() if value is not None}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def same(a: LoadedVideoModel, b: LoadedVideoModel) -> bool:
    ours, theirs = dict(a.model.named_parameters()), dict(b.model.named_parameters())
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


# ---- starting points ----


def test_new_rows():
    """The patch is random; start and end are the mean of all rows before them."""
    torch.manual_seed(0)
    model = start().model
    for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert len(table) == VOCAB + NEW_ROWS
        torch.testing.assert_close(table[-2:], table[:-2].mean(dim=0).expand(2, -1))
        assert 0.02 < table[VOCAB].std() < 0.2


def test_the_layout_of_transformers_gives_the_same_model(tmp_path):
    original = load_start(mlp_base(tmp_path / "original"), LoadSettings())
    nested = load_start(nested_base(tmp_path / "nested"), LoadSettings())
    assert same(original, nested)
    assert nested.model.config.mm_projector_type == original.model.config.mm_projector_type == "mlp2x_gelu"
    assert len(nested.tokenizer) == VOCAB  # without the tokens of images
    ids = torch.tensor([[1, 5, 6]])
    with torch.no_grad():
        assert torch.equal(original.model(input_ids=ids).logits, nested.model(input_ids=ids).logits)


def test_a_plain_llama_has_no_projector(tmp_path):
    folder = copy_of(
        tmp_path / "llama", **{"model.mm_projector.weight": None, "model.mm_projector.bias": None}
    )
    config = json.loads((BASE / "config.json").read_text())
    config = {k: v for k, v in config.items() if "mm_" not in k} | {"model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_start(folder, LoadSettings())
    assert not loaded.model.config.use_mm_proj
    with pytest.raises(ValueError, match="has no projector: give the adapter too"):
        load_chat(folder, None, LoadSettings())
    assert load_chat(folder, ADAPTER, LoadSettings()).model.config.mm_hidden_size == 1024


def test_tensors_of_an_image_tower_are_named_not_refused(tmp_path, caplog):
    extra = {"model.vision_tower.vision_tower.x.weight": torch.zeros(2)}
    with caplog.at_level("INFO"):
        assert same(
            load_start(copy_of(tmp_path / "a", **extra), LoadSettings()), load_start(BASE, LoadSettings())
        )
    assert "1 tensors of its image model are not used (first: model.vision_tower" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.norm.bias": torch.zeros(2)}, "1 unexpected .model.norm.bias"),
        ({"model.norm.weight": None}, "1 missing .model.norm.weight"),
        ({"model.mm_projector.weight": None}, "1 missing .model.mm_projector.weight"),
    ],
)
def test_no_tensor_is_ignored_silently(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        load_start(copy_of(tmp_path / "a", **changes), LoadSettings())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "bert"}, "a model of type 'bert'. Allowed: VideoChatGPT, llava"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"mm_projector_type": "mlp3x_gelu"}, "Unknown projector 'mlp3x_gelu'"),
    ],
)
def test_models_that_are_none(tmp_path, changes, words):
    folder = copy_of(tmp_path / "a")
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        load_start(folder, LoadSettings())


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_weights_run_nothing(tmp_path, monkeypatch):
    """D601: a .bin could run anything."""
    monkeypatch.chdir(tmp_path)
    torch.save({"model.mm_projector.weight": Harmful()}, "mm_projector.bin")
    with pytest.raises(ValueError, match="mm_projector.bin is refused"):
        load_chat(BASE, "mm_projector.bin", LoadSettings())
    folder = copy_of(tmp_path / "base")
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Harmful()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="The weights in .*base cannot be loaded"):
        load_start(folder, LoadSettings())
    assert not Path("harm").exists()


# ---- adapters ----


def trained(**kwargs) -> LoadedVideoModel:
    loaded = start(**kwargs)
    with torch.no_grad():
        for param in (*loaded.model.projector.parameters(), loaded.model.model.embed_tokens.weight[VOCAB:]):
            param.normal_()
    return loaded


@pytest.mark.parametrize("has_start_end", [True, False])
def test_an_adapter_holds_all_that_the_base_lacks(tmp_path, has_start_end):
    """D606: the output rows of the new tokens were lost, and random again at inference."""
    loaded = trained(has_start_end=has_start_end)
    loaded.model.config.mm_use_vid_start_end = has_start_end
    save_video_adapter(video_adapter_state(loaded.model), loaded.model.config, tmp_path / "a.bin")
    again = load_chat(BASE, tmp_path / "a.bin", LoadSettings())
    assert same(loaded, again)
    assert VideoTokens.of(again.tokenizer) == VideoTokens.of(loaded.tokenizer)
    assert again.model.config.mm_use_vid_start_end == has_start_end


def test_the_original_reads_our_adapter(tmp_path):
    """By full name at inference; by the last part of the name, in the file's order, to train on."""
    loaded = trained()
    save_video_adapter(video_adapter_state(loaded.model), loaded.model.config, tmp_path / "a.bin")
    state, recorded = (torch.load(p, weights_only=True) for p in (tmp_path / "a.bin", ADAPTER))
    assert {name: state[name].shape for name in recorded} == {n: v.shape for n, v in recorded.items()}
    assert set(state) - set(recorded) == {"lm_head.weight"}
    by_last_part = {name.split(".")[-1]: value for name, value in state.items()}
    assert torch.equal(by_last_part["weight"], state["model.mm_projector.weight"])
    assert set(by_last_part) == {"weight", "bias"}


def test_adapters_of_the_original_load(caplog):
    whole = load_chat(GOLDEN.root / "e_model/full_save", None, LoadSettings())
    again = load_chat(BASE, ADAPTER, LoadSettings())
    ours, theirs = dict(again.model.named_parameters()), dict(whole.model.named_parameters())
    assert all(torch.equal(ours[n], theirs[n]) for n in ours if n != "lm_head.weight")
    assert "has no output rows for the tokens of a video" in caplog.text


def test_an_adapter_of_another_base(tmp_path):
    state = read_bin(ADAPTER)
    state["model.embed_tokens.weight"] = torch.zeros(VOCAB + NEW_ROWS + 9, 48)
    torch.save(state, tmp_path / "a.bin")
    with pytest.raises(ValueError, match="1 mismatched .model.embed_tokens.weight"):
        load_chat(BASE, tmp_path / "a.bin", LoadSettings())
    torch.save({"model.layers.0.weight": torch.zeros(1)}, tmp_path / "b.bin")
    with pytest.raises(ValueError, match="model.layers.0.weight, which is not part of an adapter"):
        load_chat(BASE, tmp_path / "b.bin", LoadSettings())


@pytest.mark.parametrize("form", ["ours", "original", "two rows", "projector"])
def test_training_goes_on_from_an_adapter(tmp_path, form):
    first = trained()
    state = video_adapter_state(first.model)
    if form != "ours":
        del state["lm_head.weight"]
    if form == "two rows":
        state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"][-2:].clone()
    if form == "projector":
        del state["model.embed_tokens.weight"]
    save_video_adapter(state, first.model.config, tmp_path / "a.bin")
    second = start()
    untouched = second.model.lm_head.weight.detach().clone()
    continue_adapter(second, tmp_path / "a.bin")
    assert torch.equal(second.model.projector.weight, first.model.projector.weight)
    rows = [loaded.model.model.embed_tokens.weight for loaded in (first, second)]
    assert torch.equal(rows[0][-2:], rows[1][-2:]) == (form != "projector")
    assert torch.equal(rows[1][:VOCAB], start().model.model.embed_tokens.weight[:VOCAB])
    expected = first.model.lm_head.weight if form == "ours" else untouched
    assert torch.equal(second.model.lm_head.weight[VOCAB:], expected[VOCAB:])


# ---- whole models ----


@pytest.mark.parametrize("kind", ["linear", "mlp", "nested"])
def test_a_whole_model_is_read_back(tmp_path, kind):
    """D604: full fine-tuning saved no weights at all."""
    base = BASE
    if kind != "linear":
        base = {"mlp": mlp_base, "nested": nested_base}[kind](tmp_path / "base")
    loaded = start(base)
    loaded.model.config.mm_use_vid_start_end = True
    save_whole(whole_state(loaded.model, torch.float32), loaded, tmp_path / "out")
    again = load_chat(tmp_path / "out", None, LoadSettings())
    assert same(loaded, again)
    assert len(again.tokenizer) == len(loaded.tokenizer)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_bin_is_read_in_place_where_its_format_allows_it(tmp_path, is_zip):
    """A whole model is read again by every process that goes on."""
    state = {"a": torch.arange(24.0).view(4, 6), "b": torch.ones(3, dtype=torch.bfloat16)}
    torch.save(state, tmp_path / "x.bin", _use_new_zipfile_serialization=is_zip)
    found = read_bin(tmp_path / "x.bin")
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    if sys.platform == "linux":
        assert (own_memory(found.values(), tmp_path) == 0) == is_zip
    (tmp_path / "cut.bin").write_bytes((tmp_path / "x.bin").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cut\.bin is refused"):
        read_bin(tmp_path / "cut.bin")


@pytest.mark.parametrize("kind", ["linear", "nested"])
def test_weights_go_straight_to_the_device(tmp_path, kind):
    base = BASE if kind == "linear" else nested_base(tmp_path / "base")
    model = load_start(base, LoadSettings(device=torch.device("meta"))).model
    assert {param.device.type for param in model.parameters()} == {"meta"}
    assert not hasattr(model, "hf_device_map")


def test_the_original_knows_the_files_and_fields_of_a_whole_model(tmp_path):
    loaded = load_chat(GOLDEN.root / "e_model/full_save", None, LoadSettings())
    save_whole(whole_state(loaded.model, torch.float32), loaded, tmp_path)
    recorded = GOLDEN.root / "e_model/full_save"
    assert {p.name for p in recorded.iterdir()} <= {p.name for p in tmp_path.iterdir()}
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, recorded))
    apart = {"_name_or_path", "freeze_mm_mlp_adapter", "mm_use_im_start_end", "mm_vision_select_layer",
             "sep_video_conv_front"}  # fmt: skip
    assert {name: value for name, value in theirs.items() if name not in apart}.items() <= ours.items()
    weights, expected = (torch.load(f / "pytorch_model.bin", weights_only=True) for f in (tmp_path, recorded))
    assert {n for n in expected if "inv_freq" not in n} == set(weights)
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
