"""A short full-parameter warm-up of the tiny base model with the language loss.

Nothing that LoRA could use is in a random frozen base. So it first learns to name colours in clips of one
or two steps and in phrases, and to say whether they agree; then, with the vision tower frozen, to read
what the grounder's long prompt asks for. The result is a base model in the published layout again.
"""

import math
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from videomind.dataset.conversation import VIDEO_PLACEHOLDER, chatml
from videomind.dataset.encoding import IGNORE_INDEX, Encoder
from videomind.files import read_json, write_json
from videomind.model.checkpoint import LoadSettings, load_base
from videomind.model.disk_format import to_disk
from videomind.model.qwen2_vl import AgentQwen2VL
from videomind.processing import Processor, load_processor
from videomind.roles import VisualBudget
from videomind.synthetic.annotations import MARKER as DATA_MARKER
from videomind.synthetic.tiny_model import MARKER, write_shards
from videomind.synthetic.warmup_data import DATASETS, Task, Tasks, load_videos

SMALL_BUDGET = VisualBudget(min_tokens=4, max_tokens=6, max_frames=150, fps=1.0)


@dataclass(frozen=True, kw_only=True)
class WarmupSettings:
    """How the warm-up trains.

    Attributes: short_steps, long_steps, optimizer steps of the two stages; short_batch, long_batch, tasks
    per step; lr, the peak learning rate; num_videos, training videos used; seed; threads, CPU threads;
    budget of the frames.
    """

    short_steps: int = 120
    long_steps: int = 250
    short_batch: int = 64
    long_batch: int = 16
    lr: float = 3e-3
    num_videos: int = 120
    seed: int = 0
    threads: int = 2
    budget: VisualBudget = field(default=SMALL_BUDGET)


_REVIEW = 0.25  # share of short tasks in the second stage
_LR_WARMUP_STEPS = 40
_LAST_LR = 0.05  # of the peak


def _tokens(task: Task, processor: Processor) -> tuple[Tensor, Tensor]:
    """Ids and labels (L,) of a task."""
    placeholder = "" if task.patches is None else VIDEO_PLACEHOLDER
    context = chatml([("user", placeholder + task.prompt), ("assistant", None)])
    encode = processor.tokenizer.encode
    prompt = torch.tensor(encode(context, add_special_tokens=False))
    reply = torch.tensor(encode(f"{task.reply}<|im_end|>", add_special_tokens=False))
    if task.patches is not None:
        num_tokens = task.patches.shape[:2].numel() // processor.patcher.merge_size**2
        repeats = torch.ones_like(prompt)
        repeats[prompt == processor.token_id("<|video_pad|>")] = num_tokens
        prompt = prompt.repeat_interleave(repeats)
    return torch.cat((prompt, reply)), torch.cat((torch.full_like(prompt, IGNORE_INDEX), reply))


def _loss(model: AgentQwen2VL, tasks: list[Task], processor: Processor, *, train_vision: bool) -> Tensor:
    """Mean cross-entropy over the supervised tokens of all tasks."""
    rows = [_tokens(task, processor) for task in tasks]
    ids = pad_sequence([r[0] for r in rows], batch_first=True, padding_value=processor.tokenizer.pad_token_id)
    labels = pad_sequence([r[1] for r in rows], batch_first=True, padding_value=IGNORE_INDEX)
    mask = pad_sequence([torch.ones_like(r[0]) for r in rows], batch_first=True)
    seen = [task for task in tasks if task.patches is not None]
    grids = torch.tensor([[len(task.patches), *task.grid] for task in seen]) if seen else None
    positions, _ = model.model.get_rope_index(ids, video_grid_thw=grids, attention_mask=mask)
    embeddings = model.get_input_embeddings()(ids)
    if seen:
        pixels = torch.cat([task.patches.flatten(0, 1) for task in seen]).float()
        with torch.set_grad_enabled(train_vision):
            features = torch.cat(model.model.get_video_features(pixels, grids).pooler_output)
        is_video = (ids == model.config.video_token_id)[..., None]
        embeddings = embeddings.masked_scatter(is_video, features)
    hidden = model.model.language_model(
        inputs_embeds=embeddings,
        attention_mask=mask,
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    supervised = labels[:, 1:] != IGNORE_INDEX
    return F.cross_entropy(model.lm_head(hidden[:, :-1][supervised]), labels[:, 1:][supervised])


def _lr_factor(step: int, total: int) -> float:
    """Linear rise, then cosine. Args: step of total, from 0."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / total))
    return min(1.0, (step + 1) / _LR_WARMUP_STEPS) * (_LAST_LR + (1 - _LAST_LR) * cosine)


def _train(model: AgentQwen2VL, tasks: Tasks, processor: Processor, settings: WarmupSettings) -> list[float]:
    """Both stages. Returns: the loss of every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0)
    total = settings.short_steps + settings.long_steps
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(step, total))
    model.train()
    losses = []
    for step in (progress := tqdm(range(total), desc="warm-up", unit="step")):
        if first_stage := step < settings.short_steps:
            batch = [tasks.short() for _ in range(settings.short_batch)]
        else:
            is_short = [tasks.rng.random() < _REVIEW for _ in range(settings.long_batch - 1)]
            batch = [tasks.long(), *(tasks.short() if short else tasks.long() for short in is_short)]
        loss = _loss(model, batch, processor, train_vision=first_stage)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        progress.set_postfix(loss=f"{losses[-1]:.3f}")
    return losses


def _save(model: AgentQwen2VL, base: Path, folder: Path) -> None:
    """Write the base's folder again with the new weights; the keys stay on their shards."""
    shutil.copytree(base, folder, copy_function=shutil.copyfile)
    index = read_json(base / "model.safetensors.index.json")["weight_map"]
    shards: dict[str, dict[str, Tensor]] = {name: {} for name in sorted(set(index.values()))}
    for name, tensor in model.state_dict().items():
        if (key := to_disk(name)) in index:  # a tied lm_head is not
            shards[index[key]][key] = tensor
    write_shards(folder, list(shards.values()))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def warm_up(
    base: str | Path,
    data_root: str | Path,
    output: str | Path,
    *,
    settings: WarmupSettings | None = None,
) -> list[float]:
    """Warm a tiny base up on the training data; a finished result stays as it is.

    Args: base, a folder of `make_tiny_base`; data_root of `make_data`; output, the new base's folder.
    Returns: the loss of every step; empty if there was nothing to do.
    Raises: ValueError if the output folder holds something else.
    """
    base, output, settings = Path(base), Path(output), settings or WarmupSettings()
    data = {name: read_json(Path(data_root) / name / DATA_MARKER) for name in DATASETS}
    made_with = {**read_json(base / MARKER), "data": data, "warm_up": asdict(settings)}
    if output.exists():
        marker = output / MARKER
        if not marker.is_file() or read_json(marker) != made_with:
            raise ValueError(f"{output} does not hold the warm-up of {base} with {settings}. Move it away.")
        return []
    processor = load_processor(base)
    with _threads(settings.threads):
        torch.manual_seed(settings.seed)
        model = load_base(base, LoadSettings(), processor)
        videos = load_videos(
            data_root,
            Encoder(processor),
            budget=settings.budget,
            limit=settings.num_videos,
            seed=settings.seed,
        )
        losses = _train(model, Tasks(videos, random.Random(settings.seed)), processor, settings)
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    _save(model, base, partial)
    write_json(partial / MARKER, made_with)
    partial.rename(output)
    return losses
