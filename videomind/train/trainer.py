"""The trainer: transformers' with our optimizer groups, sampler, losses and disk layout.

Its checkpoints are complete or they are not there: a marker file is written last, and a rerun continues
from the newest marked one.
"""

import json
import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from videomind.dataset.mixture import BadSample, Collator, Mixture
from videomind.files import write_text
from videomind.model.adapters import in_adapter
from videomind.model.checkpoint import LoadedModel, extra_names, restore_role, save_role
from videomind.model.sharding import gathered
from videomind.train.arguments import Arguments, TrainingArguments, weight_dtype
from videomind.train.optim import parameter_groups
from videomind.train.sampler import GroupSampler

log = logging.getLogger(__name__)

COMPLETE = "complete"
BAD_SAMPLES = "bad_samples.jsonl"
MIN_SEEN = 50  # samples before the share of bad ones counts
LOSS_PARTS = ("language_loss", "classification_loss", "regression_loss", "saliency_loss")


class SetEpoch(TrainerCallback):
    """Tells the sampler its epoch; the loader does not, when a resumed epoch skips batches."""

    def __init__(self, sampler: GroupSampler):
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """See TrainerCallback."""
        self.sampler.set_epoch(int(state.epoch or 0))


class RoleTrainer(Trainer):
    """Trains one role.

    Args: arguments; loaded, the model set up for training; mixture, the training set.
    """

    def __init__(self, arguments: Arguments, loaded: LoadedModel, mixture: Mixture):
        training, custom = arguments.training, arguments.custom
        self.arguments, self.loaded = arguments, loaded
        world = training.world_size * training.per_device_train_batch_size
        data_types = mixture.data_types if custom.group_by_data_type else ["all"] * len(mixture)
        self.sampler = GroupSampler(data_types, group_size=world, seed=training.seed)
        self._parts: dict[str, Tensor] = {}
        self._num_parts = 0
        self._seen = self._num_bad = 0
        super().__init__(
            model=loaded.model,
            args=training,
            data_collator=Collator(pad_token_id=loaded.processor.tokenizer.pad_token_id),
            train_dataset=mixture,
            callbacks=[SetEpoch(self.sampler)],
        )
        # A batch's loss is the mean over its samples; the Trainer divides it by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def planned_steps(self) -> int:
        """Optimizer steps of the whole run."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        batches = len(self.sampler) // (self.args.world_size * self.args.per_device_train_batch_size)
        per_epoch = max(math.ceil(batches / self.args.gradient_accumulation_steps), 1)
        return math.ceil(self.args.num_train_epochs * per_epoch)

    def _get_train_sampler(self, train_dataset: Mixture | None = None) -> Sampler:
        return self.sampler

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer over the groups of `parameter_groups`."""
        if self.optimizer is None:
            groups = parameter_groups(
                model or self.model,
                lr=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
                lora_lr=self.arguments.custom.lora_lr,
                head_lr=self.arguments.custom.head_lr,
            )
            groups = [{k: v for k, v in g.items() if k != "names"} for g in groups if g["params"]]
            cls, kwargs = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = cls(groups, **kwargs)
        return self.optimizer

    def _prepare_input(self, data: Any) -> Any:
        """Move tensors; unlike the parent, leave their type: targets stay float32 under half precision."""
        if isinstance(data, Mapping):
            return {k: self._prepare_input(v) for k, v in data.items()}
        if isinstance(data, list):
            return [self._prepare_input(v) for v in data]
        return data.to(self.args.device) if isinstance(data, Tensor) else data

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The mean over the batch's samples of each one's loss; the parts are kept for the log."""
        inputs = dict(inputs)
        self._record_bad(inputs.pop("bad_samples", []), len(inputs["labels"]))
        outputs = model(**inputs)
        for name in LOSS_PARTS:
            if (part := getattr(outputs, name)) is not None:
                self._parts[name] = self._parts.get(name, 0) + part
        self._num_parts += 1
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _record_bad(self, bad: list[BadSample], batch_size: int) -> None:
        """Write down bad samples, and stop when there are too many of them."""
        self._seen += batch_size
        self._num_bad += len(bad)
        if not bad:
            return
        path = Path(self.args.output_dir) / f"rank{self.args.process_index}_{BAD_SAMPLES}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            for sample in bad:
                log.warning("Bad sample of %s, %s: %s", sample.source, sample.video_path, sample.reason)
                file.write(json.dumps(asdict(sample), ensure_ascii=False) + "\n")
        share = self._num_bad / (self._seen + self._num_bad)
        if self._seen >= MIN_SEEN and share > self.arguments.data.max_bad_share:
            raise ValueError(
                f"{self._num_bad} of {self._seen + self._num_bad} samples were bad, more than "
                f"--max_bad_share {self.arguments.data.max_bad_share}. See {path}."
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, and how many bad samples there were."""
        if "loss" in logs and self._num_parts:
            for name, total in sorted(self._parts.items()):
                mean = self.accelerator.gather(total / self._num_parts).mean()
                logs[name] = round(mean.item(), 6)
            if self._num_bad:
                logs["bad_samples"] = self._num_bad
            self._parts, self._num_parts = {}, 0
        super().log(logs, start_time)

    # ---- checkpoints ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the role checkpoint; every process takes part, the first one writes."""
        # Without DeepSpeed's own state a checkpoint must hold the master weights to go on from.
        master = _internal_call and not self.is_deepspeed_enabled
        dtype = torch.float32 if master else weight_dtype(self.args)
        state = gather_state(self.model, dtype=dtype, tables=self.loaded.tables_grew)
        if self.args.should_save:
            save_role(
                self.model,
                output_dir or self.args.output_dir,
                role=self.arguments.model.role,
                processor=self.loaded.processor,
                base_path=str(self.loaded.base_folder),
                model_path=self.arguments.model.model_name_or_path,
                state=state,
                tables=self.loaded.tables_grew,
            )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and folder.exists():
            remove_folder(folder)  # what a killed run left behind
        self._barrier()
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # old ones go after the marker
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self._barrier()
        if self.args.should_save:
            write_text(folder / COMPLETE, f"{self.state.global_step}\n")
            for old in complete_checkpoints(self.args.output_dir)[: -limit or None] if limit else []:
                remove_folder(old)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        restore_role(self.model, Path(resume_from_checkpoint), self.arguments.model.role)

    def _barrier(self) -> None:
        if dist.is_initialized():
            dist.barrier()


def complete_checkpoints(output_dir: str | Path) -> list[Path]:
    """Checkpoints of a run that were written to the end, oldest first."""
    found = [path.parent for path in Path(output_dir).glob(f"checkpoint-*/{COMPLETE}")]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def remove_folder(folder: Path) -> None:
    """Delete a checkpoint; its marker first, so that a kill half-way leaves no complete one."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def gather_state(model: nn.Module, *, dtype: torch.dtype, tables: bool = False) -> dict[str, Tensor]:
    """What a role checkpoint holds, whole and on the CPU: adapter, head, and what else trained.

    One parameter at a time, so that a sharded model never has to fit on one device.

    Args: dtype to store in; tables, see `extra_names`.
    """
    kept = set(extra_names(model, tables=tables))
    state: dict[str, Tensor] = {}
    for name, param in model.named_parameters():
        if name in kept or in_adapter(name):
            with gathered([param]):
                state[name] = param.detach().to(dtype=dtype, device="cpu", copy=True)
    return state
