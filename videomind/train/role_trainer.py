"""The trainer of roles: ours with optimizer groups, losses and disk layout of a grounding agent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from videomind.model.adapters import adapter_biases, in_adapter
from videomind.model.checkpoint import LoadedModel, restore_role
from videomind.model.saving import extra_names, save_role
from videomind.model.tensors import copy_to_cpu
from videomind.train.command_line.arguments import Arguments, weight_dtype
from videomind.train.mixture import Collator, Mixture
from videomind.train.optim import parameter_groups
from videomind.train.sampler import EpochSampler, GroupSampler
from videomind.train.trainer import ResumingTrainer

LOSS_PARTS = ("language_loss", "classification_loss", "regression_loss", "saliency_loss")


class RoleTrainer(ResumingTrainer):
    """Trains one role.

    Args:
        arguments: of the command line.
        loaded: the model set up for training.
        mixture: the training set.
        sampler: the order of its samples.
    """

    def __init__(self, arguments: Arguments, loaded: LoadedModel, mixture: Mixture, *, sampler: EpochSampler):
        self.arguments, self.loaded = arguments, loaded
        self._parts: dict[str, Tensor] = {}
        self._num_parts = 0
        super().__init__(
            loaded.model,
            training=arguments.training,
            sampler=sampler,
            max_bad_share=arguments.data.max_bad_share,
            train_dataset=mixture,
            sample_bytes=mixture.sample_bytes,
            data_collator=Collator(pad_token_id=loaded.processor.tokenizer.pad_token_id),
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer over the groups of `parameter_groups`."""
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

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Move a micro-batch to the device, and scale its patches there: they travel as bytes."""
        inputs = super()._prepare_inputs(inputs)
        return inputs | {"pixel_values": self.loaded.processor.normalized(inputs["pixel_values"])}

    def observe(self, outputs: Any) -> None:
        """Keep the parts of the loss, the mean over the batch's samples, for the log."""
        for name in LOSS_PARTS:
            if (part := getattr(outputs, name)) is not None:
                self._parts[name] = self._parts.get(name, 0) + part
        self._num_parts += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss."""
        if "loss" in logs and self._num_parts:
            names = sorted(self._parts)
            own = torch.stack([self._parts[name].float() for name in names]) / self._num_parts
            means = self.accelerator.gather(own[None]).mean(dim=0).tolist()  # all of them in one answer
            logs |= {name: round(mean, 6) for name, mean in zip(names, means, strict=True)}
            self._parts, self._num_parts = {}, 0
        super().log(logs, start_time)

    # ---- checkpoints ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the role checkpoint; every process takes part, the first one writes."""
        # Without DeepSpeed's own state a checkpoint must hold the master weights to go on from.
        master = _internal_call and not self.is_deepspeed_enabled
        dtype = torch.float32 if master else weight_dtype(self.args)
        folder = Path(output_dir or self.args.output_dir)
        write_role(self.arguments, self.loaded, folder, dtype=dtype, should_write=self.args.should_save)

    def restore(self, checkpoint: Path) -> None:
        restore_role(self.model, checkpoint, self.arguments.model.role)


def group_sampler(arguments: Arguments, mixture: Mixture) -> GroupSampler:
    """Order samples as `--group_by_data_type` says: by type within global micro-batches, or all alike.

    Raises:
        ValueError: Types would mix where processes must agree, or none fills a micro-batch.
    """
    training = arguments.training
    group_size = training.world_size * training.per_device_train_batch_size
    data_types: Sequence[str] | np.ndarray = mixture.data_types
    if not arguments.custom.group_by_data_type:
        _check_one_type(data_types, group_size)
        data_types = ["all"] * len(mixture)
    return GroupSampler(data_types, group_size=group_size, seed=training.seed)


def _check_one_type(data_types: np.ndarray, group_size: int) -> None:
    """Refuse what would end in a hang: some processes with gradients of the head, and some without."""
    kinds = sorted(set(data_types))
    if len(kinds) > 1 and group_size > 1:
        raise ValueError(
            "--group_by_data_type False needs data sets of one type, or one process with one sample at a "
            f"time: found {' and '.join(kinds)} in global micro-batches of {group_size}"
        )


def write_role(
    arguments: Arguments,
    loaded: LoadedModel,
    folder: Path,
    *,
    dtype: torch.dtype,
    should_write: bool = True,
) -> None:
    """Write the checkpoint of the role that trains.

    Args:
        arguments: of the run.
        loaded: the model that trains; every process takes part in gathering what is sharded.
        folder: where to.
        dtype: to store in.
        should_write: off where another process writes.
    """
    state = gather_state(loaded.model, dtype=dtype, tables=loaded.tables_grew, should_keep=should_write)
    if should_write:
        save_role(
            loaded.model,
            folder,
            role=arguments.model.role,
            processor=loaded.processor,
            base_path=loaded.base.name,
            base=loaded.base,
            model_path=arguments.model.model_name_or_path,
            state=state,
            tables=loaded.tables_grew,
        )


def gather_state(
    model: nn.Module, *, dtype: torch.dtype, tables: bool = False, should_keep: bool = True
) -> dict[str, Tensor]:
    """Collect what a role checkpoint holds, whole and on the CPU: adapter, head, and what else trained.

    Args:
        model: perhaps sharded; every process takes part.
        dtype: to store in.
        tables: see `extra_names`.
        should_keep: off where another process writes: nothing is copied then.
    """
    kept = set(extra_names(model, tables=tables))
    if isinstance(model, PeftModel):
        kept |= adapter_biases(model, model.active_adapter)
    tensors = {name: p for name, p in model.named_parameters() if name in kept or in_adapter(name)}
    return copy_to_cpu(tensors, dtype, should_keep=should_keep)
