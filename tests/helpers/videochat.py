"""What tests of Video-ChatGPT share: the recorded tree, run-length lists, a training on its tiny model."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from helpers.goldens import Golden, golden_root
from videomind.model.checkpoint import LoadSettings
from videomind.video_chatgpt import disk as video_chatgpt_disk
from videomind.video_chatgpt.adapter import save_video_adapter, video_adapter_state
from videomind.video_chatgpt.disk import add_videos, load_start
from videomind.video_chatgpt.features.clip import TowerShape, tower_config

GOLDEN = Golden(golden_root("video_chatgpt"))
BASE = GOLDEN.root / "e_model/base"
TOWER = GOLDEN.root / "c_features/clip"
NEW_ROWS = 3


def unrolled(pairs: Sequence[tuple[int, int]]) -> list[int]:
    """A list of run lengths as a list of values."""
    return [value for value, count in pairs for _ in range(count)]


def recorded_features() -> dict[str, np.ndarray]:
    """The recorded videos' features."""
    return GOLDEN.npz("e_model/features.npz")


VIDEOS = sorted(recorded_features())  # names of the recorded videos


def write_recorded_features(folder: Path) -> Path:
    """One pickle per recorded video, as the original writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in recorded_features().items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(array))
    return folder


def with_last_letters(text: str, recorded: str) -> str:
    """D617: the original meant to cut the end mark off an answer and cut all of its characters.

    Returns what ours makes of the text where the original made the recorded of it.
    """
    assert recorded == text.strip().rstrip("</s>").strip()
    return text.strip().removesuffix("</s>").strip()


def use_rows(monkeypatch, rows: dict[str, np.ndarray], *, lm_head: str, embed: str) -> None:
    """Let new tokens start with recorded rows instead of random ones; the input table is filled first."""
    wanted = [rows[embed], rows[lm_head]]

    def fill(table: Tensor, *, first: int, has_start_end: bool, std: float) -> None:
        table[first:] = torch.from_numpy(wanted.pop(0))

    monkeypatch.setattr(video_chatgpt_disk, "fill_new_rows", fill)


def arguments(out: Path, folder: Path, *extra: str, base: Path = BASE, data: Path | None = None) -> list[str]:
    """The recorded training's arguments."""
    return [
        *("--model_name_or_path", str(base), "--version", "v1"),
        *(
            "--data_path",
            str(data or GOLDEN.root / "e_model/train/train.json"),
            "--video_folder",
            str(folder),
        ),
        *("--mm_use_vid_start_end", "--output_dir", str(out), "--num_train_epochs", "3"),
        *("--per_device_train_batch_size", "3", "--gradient_accumulation_steps", "1"),
        *("--evaluation_strategy", "no", "--save_strategy", "steps", "--save_steps", "2"),
        *("--save_total_limit", "3", "--learning_rate", "2e-3", "--weight_decay", "0."),
        *("--warmup_ratio", "0.03", "--lr_scheduler_type", "cosine", "--logging_steps", "1"),
        *("--model_max_length", "2048", "--gradient_checkpointing", "True", "--lazy_preprocess", "True"),
        *("--disable_tqdm", "True", *extra),
    ]


def write_seeing_adapter(folder: Path) -> tuple[Path, Path]:
    """An adapter of the recorded base for the recorded tower; and that tower."""
    loaded = load_start(BASE, LoadSettings())
    rows, width = TowerShape.of(tower_config(str(TOWER))).features
    add_videos(loaded, has_start_end=True)
    loaded.model.add_projector("mlp2x_gelu", width)
    config = loaded.model.config
    config.mm_use_vid_start_end, config.num_video_tokens, config.mm_vision_tower = True, rows, str(TOWER)
    path = folder / "mm_projector.bin"
    save_video_adapter(video_adapter_state(loaded.model), config, path)
    return path, TOWER


def mlp_base(folder: Path) -> Path:
    """The recorded base with the recorded two-layer projector."""
    folder.mkdir(parents=True)
    for path in BASE.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((BASE / "config.json").read_text()) | {
        "model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"], "mm_projector_type": "mlp2x_gelu"
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    projector = {name: torch.from_numpy(a) for name, a in GOLDEN.npz("f_llava15/projector.npz").items()}
    weights = load_file(BASE / "model.safetensors")
    weights = {name: value for name, value in weights.items() if "mm_projector" not in name}
    save_file(weights | projector, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def nested_base(folder: Path) -> Path:
    """The same weights as `mlp_base` as transformers writes them, with an image tower and spare rows."""
    source = json.loads((BASE / "config.json").read_text())
    fields = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
              "max_position_embeddings", "rms_norm_eps", "initializer_range")  # fmt: skip
    text = LlamaConfig(**{name: source[name] for name in fields})
    text.vocab_size += 8
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, image_size=336,
        patch_size=168,
    )  # fmt: skip
    config = LlavaConfig(
        text_config=text, vision_config=vision, image_token_index=source["vocab_size"],
        projector_hidden_act="gelu", tie_word_embeddings=False,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    weights = load_file(BASE / "model.safetensors")
    projector = {name: torch.from_numpy(a) for name, a in GOLDEN.npz("f_llava15/projector.npz").items()}
    state = model.state_dict()
    with torch.no_grad():
        for name, value in state.items():
            if "language_model" in name or name == "lm_head.weight":
                key = name.replace("language_model.", "")
                value[: len(weights[key])] = weights[key]
            elif "multi_modal_projector" in name:
                layer = {"linear_1": "0", "linear_2": "2"}[name.split(".")[-2]]
                value.copy_(projector[f"model.mm_projector.{layer}.{name.split('.')[-1]}"])
    model.save_pretrained(folder)
    for path in BASE.glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())
    vocab = source["vocab_size"]
    (folder / "added_tokens.json").write_text(json.dumps({"<image>": vocab, "<pad>": vocab + 1}))
    return folder
