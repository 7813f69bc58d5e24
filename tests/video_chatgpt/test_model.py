"""The forward pass, its gradients and what trains, as recorded."""

import numpy as np
import pytest
import torch
from helpers.videochat import BASE, GOLDEN, mlp_base, recorded_features, unrolled, use_rows

from videomind.model.checkpoint import LoadSettings
from videomind.video_chatgpt.arguments import parse_arguments
from videomind.video_chatgpt.disk import add_videos, load_start
from videomind.video_chatgpt.model import VideoChatGPT, make_projector
from videomind.video_chatgpt.training import build_video_model

pytestmark = pytest.mark.golden
EXPECTED = GOLDEN.json("e_model/expected_forward.json")
ARRAYS = GOLDEN.npz("e_model/expected_forward.npz")
CASES = [name for name, case in EXPECTED.items() if isinstance(case, dict) and "rows" in case]


def model_of(case: dict, folder, shape: tuple[int, int]) -> VideoChatGPT:
    argv = [
        *(
            "--model_name_or_path",
            str(folder),
            "--data_path",
            "x",
            "--video_folder",
            "x",
            "--output_dir",
            "x",
        ),
        *("--tune_mm_mlp_adapter", str(case["tune_mm_mlp_adapter"])),
        *("--mm_use_vid_start_end", str(case["mm_use_vid_start_end"])),
    ]
    return build_video_model(parse_arguments(argv), shape).model.train()


def batch_of(case: dict) -> dict[str, torch.Tensor]:
    ids, labels = (torch.tensor([unrolled(r) for r in case[f"{n}_rle"]]) for n in ("input_ids", "labels"))
    lengths = torch.tensor(case["lengths"])
    mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
    return {"input_ids": ids, "labels": labels, "attention_mask": mask.long()}


def check(model: VideoChatGPT, case: dict, out, mask: torch.Tensor) -> None:
    assert out.loss.item() == pytest.approx(case["loss"], rel=1e-4)
    lse = out.logits.detach().double().logsumexp(-1)[mask.bool()].sum().item()
    assert lse == pytest.approx(case["logsumexp_sum_unpadded"], rel=1e-5)
    out.loss.backward()
    params = dict(model.named_parameters())
    assert {n for n, p in params.items() if p.requires_grad} == set(case["trainable"])
    for name, norm in case["grad_norms"].items():
        assert params[name].grad.norm().item() == pytest.approx(norm, rel=1e-4), name


@pytest.mark.parametrize("name", CASES)
def test_the_recorded_forward(name, monkeypatch):
    case, features = EXPECTED[name], recorded_features()
    arrays = {key.removeprefix(f"{name}/"): a for key, a in ARRAYS.items() if key.startswith(f"{name}/")}
    rows, prefix = (
        (arrays, "init_") if "init_embed_new" in arrays else (GOLDEN.npz("e_model/init_rows.npz"), "")
    )
    use_rows(monkeypatch, rows, lm_head=f"{prefix}lm_head_new", embed=f"{prefix}embed_new")
    model = model_of(case, BASE, next(iter(features.values())).shape)
    batch = batch_of(case)
    videos = [features[row["features"]] for row in case["rows"] if row["features"] in features]
    out = model(**batch, video_features=torch.from_numpy(np.concatenate(videos)))
    check(model, case, out, batch["attention_mask"])
    places = torch.tensor(case["logit_positions"])
    np.testing.assert_allclose(
        out.logits.detach()[places[:, 0], places[:, 1]], arrays["logits_at_positions"], rtol=0, atol=1e-3
    )
    grads = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
    slices = {
        "grad_projector_bias": grads["model.mm_projector.bias"],
        "grad_projector_weight_rows0_4": grads["model.mm_projector.weight"][:4],
        "grad_embed_new_rows": grads["model.embed_tokens.weight"][EXPECTED["token_ids"]["<vid_patch>"] :],
    }
    for key, found in slices.items():
        np.testing.assert_allclose(found, arrays[key], rtol=0, atol=1e-4, err_msg=key)
    changed = np.flatnonzero(grads["model.embed_tokens.weight"].any(axis=1)).tolist()
    recorded = case.get("embed_rows_with_nonzero_grad")
    if isinstance(recorded, list):
        assert changed == recorded
    elif recorded is not None:
        assert len(changed) == int(recorded.split()[0])


def test_two_layers_and_more_tokens(monkeypatch, tmp_path):
    """A 336-pixel tower: 676 tokens, from the features alone."""
    case = GOLDEN.json("f_llava15/expected.json") | {
        "tune_mm_mlp_adapter": True, "mm_use_vid_start_end": True
    }  # fmt: skip
    rows, v = GOLDEN.npz("f_llava15/init_rows.npz"), GOLDEN.npz("f_llava15/feature_vectors.npz")
    use_rows(monkeypatch, rows, lm_head="lm_head_new", embed="embed_new")
    features = [
        ((v[f"a{i}"][:, None] * v[f"b{i}"][None] + v[f"c{i}"][:, None]) % 13 - 6) / 4 for i in range(2)
    ]
    features[1][50:100] = 0
    features = torch.from_numpy(np.concatenate(features)).float()
    model = model_of(case, mlp_base(tmp_path / "base"), (case["video_token_len"], features.shape[1]))
    batch = batch_of(case)
    out = model(**batch, video_features=features)
    check(model, case, out, batch["attention_mask"])


@pytest.fixture(scope="module")
def small() -> VideoChatGPT:
    loaded = load_start(BASE, LoadSettings())
    add_videos(loaded, has_start_end=True)
    return loaded.model


def test_features_in_half_precision_need_no_autocast(small):
    """D607."""
    ids = torch.tensor([[1, small.config.vid_patch_id, small.config.vid_patch_id, 5]])
    features = torch.randn(2, small.config.mm_hidden_size).half()
    with torch.no_grad():
        found = small(input_ids=ids, video_features=features).logits
        assert torch.equal(found, small(input_ids=ids, video_features=features.float()).logits)


def test_sizes_come_from_config_and_features():
    """D602: 356 tokens and 1024 channels were in the code, or a CLIP was asked for its sizes."""
    loaded = load_start(BASE, LoadSettings())
    loaded.model.config.mm_vision_tower = "none/such"
    add_videos(loaded, has_start_end=True)
    model = loaded.model.train()
    model.add_projector("mlp2x_gelu", 7)
    model(input_ids=torch.tensor([[1, 5, 6]]), labels=torch.tensor([[1, 5, 6]])).loss.backward()
    assert all((p.grad == 0).all() for p in model.projector.parameters())
    patch = model.config.vid_patch_id
    out = model(input_ids=torch.tensor([[1, patch, patch, patch, 6]]), video_features=torch.randn(3, 7))
    assert out.logits.isfinite().all()


def test_rows_and_tokens_must_agree(small):
    ids = torch.tensor([[1, small.config.vid_patch_id, 5]])
    with pytest.raises(ValueError, match="2 rows of video features for 1 patch tokens"):
        small(input_ids=ids, video_features=torch.zeros(2, small.config.mm_hidden_size))
    with pytest.raises(ValueError, match="Unknown projector 'cubic'.*linear, mlp2x_gelu"):
        make_projector("cubic", 2, 2)
