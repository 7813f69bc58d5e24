"""A short full-parameter warm-up of the tiny base model with the language loss.

Nothing that LoRA could use is in a random frozen base. So it first learns to name colours in excerpts of one
or two steps and in phrases, and to say whether they agree; then, with the vision tower frozen, to read
what the grounder's long prompt asks for. The result is a base model in the published layout again.
"""

import random
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from videomind.backbones.registry import load_processor
from videomind.device import HOST_BACKEND
from videomind.encoding.encoder import Encoder
from videomind.files import copy_file, read_json, write_json
from videomind.model.checkpoint import LoadSettings, load_base
from videomind.model.disk_format import ours_to_published
from videomind.model.role_model import RoleModel
from videomind.runs.processes import die_with_parent
from videomind.synthetic.folders import MARKER, is_made, making
from videomind.synthetic.tiny_model import write_shards
from videomind.synthetic.warmup.data import DATASETS, Tasks, load_question_videos, load_videos
from videomind.synthetic.warmup.loop import WarmupSettings, train

LOSSES = "warmup_losses.json"


def _save(model: RoleModel, base: Path, folder: Path) -> None:
    """Write the base's folder again with the new weights; the keys stay on their shards."""
    for file in base.iterdir():
        copy_file(file, folder / file.name)
    index = read_json(base / "model.safetensors.index.json")["weight_map"]
    shards: dict[str, dict[str, Tensor]] = {name: {} for name in sorted(set(index.values()))}
    for name, tensor in model.state_dict().items():
        if (key := ours_to_published(name, model.backbone)) in index:  # a tied lm_head is not
            shards[index[key]][key] = tensor
    write_shards(folder, list(shards.values()))


def _run(rank: int, base: Path, data_root: Path, partial: Path, settings: WarmupSettings) -> None:
    """Train as one of the processes; the first one writes the result."""
    torch.manual_seed(settings.seed)
    processor = load_processor(base)
    model = load_base(base, LoadSettings(), processor)
    videos = load_videos(
        data_root,
        Encoder(processor),
        budget=settings.budget,
        limit=settings.num_videos,
        seed=settings.seed,
        share=(rank, settings.processes),
    )
    share = (rank, settings.processes)
    questioned = load_question_videos(data_root, Encoder(processor), budget=settings.budget, share=share)
    tasks = Tasks(videos, random.Random(f"{settings.seed}/{rank}"), questioned)
    losses = train(model, tasks, processor, settings, is_quiet=rank > 0)
    if rank == 0:
        _save(model, base, partial)
        write_json(partial / LOSSES, losses)


def _worker(rank: int, rendezvous: str, *args) -> None:
    """Be one of the processes.

    Args:
        rank: of this one.
        rendezvous: a file that does not exist yet.
        *args: further ones of `_run`.
    """
    die_with_parent()
    settings: WarmupSettings = args[-1]
    torch.set_num_threads(1)
    dist.init_process_group(
        HOST_BACKEND, init_method=f"file://{rendezvous}", rank=rank, world_size=settings.processes
    )
    try:
        _run(rank, *args)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def warm_up(
    base: str | Path,
    data_root: str | Path,
    output: str | Path,
    *,
    settings: WarmupSettings | None = None,
) -> list[float]:
    """Warm a tiny base up on the training data; a finished result stays as it is.

    Args:
        base: a folder of `make_tiny_base`.
        data_root: of `make_data`.
        output: the new base's folder.
        settings: None are the defaults.

    Returns:
        The first process's loss of every step.

    Raises:
        ValueError: the output folder holds something else.
    """
    base, data_root, output = Path(base), Path(data_root), Path(output).absolute()
    settings = settings or WarmupSettings()
    markers = {name: data_root / name / MARKER for name in (*DATASETS, "nextqa")}
    data = {name: read_json(path) for name, path in markers.items() if name in DATASETS or path.is_file()}
    made_with = {**read_json(base / MARKER), "data": data, "warm_up": asdict(settings)}
    if not is_made(output, made_with, "a warm-up"):
        with making(output, made_with) as partial:
            if settings.processes == 1:
                _run(0, base, data_root, partial, settings)
            else:
                with tempfile.TemporaryDirectory(prefix="videomind_") as rendezvous:
                    store = str(Path(rendezvous) / "store")
                    mp.spawn(_worker, (store, base, data_root, partial, settings), nprocs=settings.processes)
    return read_json(output / LOSSES)
