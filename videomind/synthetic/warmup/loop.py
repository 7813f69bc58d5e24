"""The warm-up's loss and loop: tasks to tensors, two stages, gradients averaged over processes."""

import math
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from videomind.backbones.backbone import Processor
from videomind.encoding.encoder import IGNORE_INDEX
from videomind.model.role_model import RoleModel
from videomind.roles import VisualBudget
from videomind.synthetic.warmup.data import Task, Tasks

SMALL_BUDGET = VisualBudget(min_tokens=4, max_tokens=6, max_frames=150, fps=1.0)


@dataclass(frozen=True, kw_only=True)
class WarmupSettings:
    """How the warm-up trains.

    Attributes:
        short_steps: optimizer steps of the first stage.
        long_steps: of the second.
        short_batch: tasks per step of the first stage, over all processes.
        long_batch: of the second.
        question_batch: questions beside them, where there are videos for questions.
        list_batch: JSON lists, the same.
        lr: the peak learning rate.
        num_videos: training videos used.
        seed: of everything drawn.
        processes: of one thread each, which share batches and videos.
        budget: of the frames.
    """

    short_steps: int = 200
    long_steps: int = 400
    short_batch: int = 64
    long_batch: int = 16
    question_batch: int = 32
    list_batch: int = 8
    lr: float = 3e-3
    num_videos: int = 120
    seed: int = 0
    processes: int = 2
    budget: VisualBudget = field(default=SMALL_BUDGET)


_REVIEW = 0.25  # share of short tasks in the second stage
_LR_WARMUP_STEPS = 40
_LAST_LR = 0.05  # of the peak


def _tokens(task: Task, processor: Processor) -> tuple[Tensor, Tensor]:
    """Encode a task: ids and labels (L,)."""
    backbone = processor.backbone
    placeholder = "" if task.patches is None else backbone.video_text
    context = backbone.chat([("user", placeholder + task.prompt), ("assistant", None)]) + task.start
    encode = processor.tokenizer.encode
    prompt = torch.tensor(encode(context, add_special_tokens=False))
    reply = torch.tensor(encode(task.reply + backbone.end_mark, add_special_tokens=False))
    if task.patches is not None:
        repeats = torch.ones_like(prompt)
        num_tokens = len(task.patches) * backbone.tokens_per_step((len(task.patches), *task.grid))
        repeats[prompt == processor.token_id(backbone.video_token)] = num_tokens
        prompt = prompt.repeat_interleave(repeats)
    return torch.cat((prompt, reply)), torch.cat((torch.full_like(prompt, IGNORE_INDEX), reply))


def _features(model: RoleModel, patches: Tensor, grids: Tensor) -> Tensor:
    """Encode the patches (N, V) of videos with grids (B, 3), as features (tokens of all, D)."""
    return torch.cat(model.model.get_video_features(patches.float(), grids).pooler_output)


@torch.no_grad()
def _encode(model: RoleModel, patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Encode a whole video, as `Tasks.encode` wants it."""
    features = _features(model, patches.flatten(0, 1), torch.tensor([[len(patches), *grid]]))
    return features.unflatten(0, (len(patches), -1))


def _loss(model: RoleModel, tasks: list[Task], processor: Processor) -> Tensor:
    """Average the cross-entropy over the supervised tokens of all tasks."""
    rows = [_tokens(task, processor) for task in tasks]
    ids = pad_sequence([r[0] for r in rows], batch_first=True, padding_value=processor.tokenizer.pad_token_id)
    labels = pad_sequence([r[1] for r in rows], batch_first=True, padding_value=IGNORE_INDEX)
    mask = pad_sequence([torch.ones_like(r[0]) for r in rows], batch_first=True)
    seen = [task for task in tasks if task.patches is not None]
    grids = torch.tensor([[len(task.patches), *task.grid] for task in seen]) if seen else None
    positions, _ = model.model.get_rope_index(ids, video_grid_thw=grids, attention_mask=mask)
    embeddings = model.get_input_embeddings()(ids)
    if seen:
        known = [task.features.flatten(0, 1) for task in seen if task.features is not None]
        patches = [task.patches.flatten(0, 1) for task in seen if task.features is None]
        features = torch.cat(known) if known else _features(model, torch.cat(patches), grids)
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
    """Rise linearly, then fall as a cosine.

    Args:
        step: from 0.
        total: steps.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * step / total))
    return min(1.0, (step + 1) / _LR_WARMUP_STEPS) * (_LAST_LR + (1 - _LAST_LR) * cosine)


def _average_gradients(params: list[nn.Parameter]) -> None:
    """Average gradients over the processes; one without a gradient counts as zero."""
    if not dist.is_initialized():
        return
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for param, grad in zip(params, flat.split([p.numel() for p in params]), strict=True):
        param.grad = grad.view_as(param)


def _draw(tasks: Tasks, settings: WarmupSettings, *, is_first_stage: bool) -> list[list[Task]]:
    """Draw this process's share of a batch, in groups of about the same length."""
    questions = tasks.questions(settings.question_batch // settings.processes)
    lists = tasks.lists(settings.list_batch // settings.processes)
    if is_first_stage:
        short = [tasks.short() for _ in range(settings.short_batch // settings.processes)]
        return [group for group in (short, questions, lists) if group]
    others = range(settings.long_batch // settings.processes - 1)
    review = [tasks.rng.random() < _REVIEW for _ in others]
    mixed = [tasks.long(), *(tasks.short() if short else tasks.long() for short in review)]
    return [group for group in (mixed, questions, lists) if group]


def train(
    model: RoleModel,
    tasks: Tasks,
    processor: Processor,
    settings: WarmupSettings,
    *,
    is_quiet: bool = False,
) -> list[float]:
    """Run both stages; the vision tower learns in the first.

    Args:
        model: changed in place.
        tasks: of this process.
        processor: encodes them.
        settings: of the warm-up.
        is_quiet: without progress.

    Returns:
        This process's loss of every step.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0)
    total = settings.short_steps + settings.long_steps
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(step, total))
    model.train()
    losses = []
    for step in (progress := tqdm(range(total), desc="warm-up", unit="step", disable=is_quiet)):
        optimizer.zero_grad()
        is_first_stage = step < settings.short_steps
        model.model.visual.requires_grad_(is_first_stage)
        if step == settings.short_steps:
            tasks.encode(partial(_encode, model))
        parts = []
        for group in (groups := _draw(tasks, settings, is_first_stage=is_first_stage)):
            part = _loss(model, group, processor) / len(groups)
            part.backward()
            parts.append(part.item())
        trained = [p for p in model.parameters() if p.requires_grad]
        _average_gradients(trained)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(sum(parts))
        progress.set_postfix(loss=f"{losses[-1]:.3f}")
    return losses
