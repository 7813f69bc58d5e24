"""What the trainers of all model families share: complete checkpoints, resuming, records of bad samples."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer

from videomind.device import peak_memory_gib
from videomind.encoding.encoder import IGNORE_INDEX
from videomind.faults import RunError
from videomind.files import NamedFile, append_json_line, read_json, write_json, write_text
from videomind.model.losses import HeadTargets
from videomind.runs.shared_memory import (
    LOADER_TIMEOUT_S,
    PREFETCHED,
    loading,
    local_processes,
    workers_that_fit,
)
from videomind.runs.together import from_first
from videomind.train.agreement import check_all_see
from videomind.train.callbacks import CheckEqual, SetEpoch, Stopped, StopWhenAsked
from videomind.train.checkpoints import (
    COMPLETE,
    FILES,
    STARTED,
    STATE,
    check_whole,
    newest_checkpoint,
    refuse_foreign,
    remove_folder,
    remove_old,
    sizes_of,
)
from videomind.train.command_line.arguments import TrainingArguments
from videomind.train.mixture import BadSample, Hopeless
from videomind.train.running import refuse_data_parallel, refuse_pattern
from videomind.train.sampler import EpochSampler

log = logging.getLogger(__name__)

BAD_SAMPLES = "bad_samples.jsonl"
COUNTS = "samples.json"  # of a checkpoint: how many samples were seen, how many were bad
FINISHED = "finished"  # file in the output folder: the number of steps of a run that ended
MIN_SEEN = 50  # samples before the share of bad ones counts
HOPELESS = "hopeless"  # what a micro-batch has instead of inputs


@dataclass
class Counts:
    """Samples so far.

    Attributes:
        seen: that trained.
        bad: whose place others took.
        damaged: that trained though something is wrong with them.
    """

    seen: int = 0
    bad: int = 0
    damaged: int = 0


def collate_unless_hopeless(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    """Make a micro-batch, or one that only says what is hopeless: a worker cannot record it."""
    for item in items:
        if isinstance(item, Hopeless):
            return {HOPELESS: item, "labels": torch.full((len(items), 1), IGNORE_INDEX)}
    return collate(items)


class ResumingTrainer(Trainer):
    """A trainer whose runs can be killed at any time. Families say what is saved (`save_model`) and restored.

    `run_to_end` calls transformers' `train`, whose loop calls our methods in this order:

    1. `restore`, if there is a checkpoint. (Under DeepSpeed its engine loads the weights, after 2.)
    2. `_get_train_sampler`, then `create_optimizer` where a family has one.
    3. Every epoch: `SetEpoch.on_epoch_begin`, before the first index is drawn.
    4. Every micro-batch: `_prepare_input`, then `compute_loss`, which calls `record_bad`, the model and
       `observe`.
    5. After an optimizer step, when it is due: `log`, then `_save_checkpoint`, which calls `save_model` on
       every process.

    Then `run_to_end` calls `save_model` once more, for the folder of the run.

    Args:
        model: set up for training.
        training: transformers' arguments.
        sampler: the order of samples.
        max_bad_share: stop when more than this share of the samples was bad.
        train_dataset: gives samples by what the sampler yields.
        data_collator: makes a micro-batch of them.
        sample_bytes: of the largest sample.
        averages_tokens: whether a step's loss is the mean over all learned tokens of the global batch,
            instead of the mean of its samples' losses.

    Raises:
        ValueError: One process is to train on several devices.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        training: TrainingArguments,
        sampler: EpochSampler,
        max_bad_share: float,
        train_dataset: Dataset,
        data_collator: Callable[[list[Any]], Any],
        sample_bytes: int,
        averages_tokens: bool = False,
    ):
        refuse_data_parallel(training)
        refuse_pattern(training)
        self.sampler, self.max_bad_share, self.sample_bytes = sampler, max_bad_share, sample_bytes
        self._own, self._before = Counts(), Counts()  # of this process; of all, when the run was resumed
        self._stop = StopWhenAsked()
        super().__init__(
            model=model,
            args=training,
            data_collator=partial(collate_unless_hopeless, data_collator),
            train_dataset=train_dataset,
            callbacks=[SetEpoch(sampler), CheckEqual(), self._stop],
        )
        # False: a micro-batch's loss is a mean, which the Trainer divides by the accumulated steps. True: it
        # counts the tokens of a step over all processes, and the model divides by that.
        self.model_accepts_loss_kwargs = averages_tokens

    def planned_steps(self) -> int:
        """Count the optimizer steps of the whole run."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        per_pass = self.args.world_size * self.args.per_device_train_batch_size
        whole, rest = divmod(len(self.sampler), per_pass)
        batches = whole + (rest > 0 and not self.args.dataloader_drop_last)
        per_epoch = max(math.ceil(batches / self.args.gradient_accumulation_steps), 1)
        return math.ceil(self.args.num_train_epochs * per_epoch)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        return self.sampler

    def get_train_dataloader(self) -> DataLoader:
        """Load by as many workers as shared memory has room for, and wait for none for ever."""
        args = self.args
        args.dataloader_num_workers = workers_that_fit(
            args.dataloader_num_workers,
            batch_bytes=args.per_device_train_batch_size * self.sample_bytes,
            prefetched=args.dataloader_prefetch_factor or PREFETCHED,
            processes=local_processes(),
        )
        if not args.dataloader_num_workers:
            args.dataloader_prefetch_factor = None  # torch refuses it without workers
        loader = super().get_train_dataloader()
        loader.timeout = LOADER_TIMEOUT_S if args.dataloader_num_workers else 0
        return loader

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Move a micro-batch to the device.

        Raises:
            RunError: A sample and all its stand-ins are bad; they are recorded.
        """
        if (hopeless := inputs.get(HOPELESS)) is not None:
            self.record_bad(hopeless.bad, len(inputs["labels"]))
            raise RunError(str(hopeless))
        return super()._prepare_inputs(inputs)

    def _prepare_input(self, data: Any) -> Any:
        """Move tensors; unlike the parent, leave their type: targets stay float32 under half precision."""
        if isinstance(data, Mapping):
            return {k: self._prepare_input(v) for k, v in data.items()}
        if isinstance(data, list):
            return [self._prepare_input(v) for v in data]
        if isinstance(data, Tensor | HeadTargets):
            return data.to(self.args.device, non_blocking=self.args.dataloader_pin_memory)
        return data

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Give the model's loss for a micro-batch; bad samples are recorded."""
        inputs = dict(inputs)
        self.record_bad(inputs.pop("bad_samples", []), len(inputs["labels"]))
        loss_of_step = {"num_items_in_batch": num_items_in_batch} if self.model_accepts_loss_kwargs else {}
        outputs = model(**inputs, **loss_of_step)
        if self.model_accepts_loss_kwargs:  # the gradients of processes are averaged, these are to be added
            outputs.loss = outputs.loss * self.args.world_size
        self.observe(outputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def observe(self, outputs: Any) -> None:
        """Look at what the model gave for a micro-batch. Families that log more than the loss do."""

    def record_bad(self, bad: list[BadSample], batch_size: int) -> None:
        """Write down bad samples, and stop when there are too many of them."""
        left_out = sum(not sample.is_used for sample in bad)
        self._own.seen += batch_size
        self._own.bad += left_out
        self._own.damaged += len(bad) - left_out
        if not bad:
            return
        path = Path(self.args.output_dir) / f"rank{self.args.process_index}_{BAD_SAMPLES}"
        for sample in bad:
            kind = "Damaged sample (used)" if sample.is_used else "Bad sample"
            log.warning("%s of %s, %s: %s", kind, sample.source, sample.video_path, sample.reason)
            append_json_line(path, asdict(sample))
        # Each process judges by its own samples, and by those before a resume.
        seen, num_bad = self._before.seen + self._own.seen, self._before.bad + self._own.bad
        if seen >= MIN_SEEN and num_bad / (seen + num_bad) > self.max_bad_share:
            raise ValueError(
                f"{num_bad} of {seen + num_bad} samples were bad, more than "
                f"--max_bad_share {self.max_bad_share}. See {path}."
            )

    def counts(self) -> Counts:
        """Add up the samples of all processes since the run's first start; every process calls it."""
        own = torch.tensor(astuple(self._own), device=self.args.device)
        total = self.accelerator.reduce(own, reduction="sum").tolist()
        return Counts(*(before + new for before, new in zip(astuple(self._before), total, strict=True)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add how many bad and how many damaged samples there were, over all processes."""
        if "loss" in logs:
            counts = self.counts()
            named = {"bad_samples": counts.bad, "damaged_samples": counts.damaged}
            logs |= {name: number for name, number in named.items() if number}
        super().log(logs, start_time)

    # ---- checkpoints ----

    def restore(self, checkpoint: Path) -> None:
        """Take over the weights of a checkpoint."""
        raise NotImplementedError

    def remove_checkpoint(self, folder: Path) -> None:
        """Delete a checkpoint and whatever belongs to it."""
        remove_folder(folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        is_first_of_node = self.args.local_process_index == 0
        if self.args.should_save and folder.exists():
            refuse_foreign(folder)
            self.remove_checkpoint(folder)  # what a killed run left behind
        self._barrier()
        if is_first_of_node:  # its own folder, where the run does not share one
            write_text(folder / STARTED, "")
        self._barrier()
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # old ones go after the marker
        try:
            with NamedFile(folder):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        counts = self.counts()
        if self.args.should_save:
            write_json(folder / COUNTS, asdict(counts))
        self._barrier()
        if self.args.should_save:
            write_json(folder / FILES, sizes_of(folder))
            write_text(folder / COMPLETE, f"{self.state.global_step}\n")
        remove_old(self.args.output_dir, limit, self.remove_checkpoint, is_first_of_node=is_first_of_node)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.restore(Path(resume_from_checkpoint))

    def _barrier(self) -> None:
        if dist.is_initialized():
            dist.barrier()

    def resume_point(self) -> str | None:
        """Find the newest complete checkpoint; the first process decides, and every one must see it.

        It also deletes what a killed run left half-written.

        Raises:
            ValueError: A process does not see it.
        """
        newest = from_first(self._newest_whole)
        if newest is None:
            return None
        checkpoint = (
            Path(self.args.output_dir) / Path(newest).name
        )  # the first process may spell it otherwise
        check_all_see(checkpoint / COMPLETE)
        log.info("Continuing from %s", checkpoint)
        return str(checkpoint)

    def _newest_whole(self) -> str | None:
        newest = newest_checkpoint(self.args.output_dir, self.remove_checkpoint)
        if newest is not None:
            check_whole(Path(newest), uses_deepspeed=self.args.deepspeed is not None)
        return newest

    def _is_finished(self) -> bool:
        """Tell whether the run has ended and is saved already, as the first process sees it."""
        finished = Path(self.args.output_dir) / FINISHED
        return from_first(lambda: finished.is_file() and int(finished.read_text()) >= self.planned_steps())

    def run_to_end(self, after: Callable[[], None] | None = None) -> None:
        """Train from the newest checkpoint to the end and save; a finished run is left as it is.

        Args:
            after: writes what else is to be written; every process calls it.

        Raises:
            Stopped: The run was asked to stop, and did so with a checkpoint.
        """
        if self._is_finished():
            log.info("All %d steps are done and saved already", self.planned_steps())
            return
        checkpoint = self.resume_point()
        done = self._tell_of_start(checkpoint)
        if checkpoint is not None and (path := Path(checkpoint) / COUNTS).is_file():
            self._before = Counts(**read_json(path))
        # The Trainer would train one step too many from a checkpoint at the end.
        if done < self.planned_steps():
            with loading():
                self.train(resume_from_checkpoint=checkpoint)
            if self._stop.has_stopped:
                self._barrier()  # the first one to end stops the others, who may still write
                raise Stopped(
                    f"Stopped after step {self.state.global_step}, as asked: a rerun goes on from there"
                )
        elif checkpoint is not None:
            self.restore(Path(checkpoint))
        self.save_model()
        if after is not None:
            after()
        if self.args.should_save:
            write_text(Path(self.args.output_dir) / FINISHED, f"{self.planned_steps()}\n")
        log.info("Done. Peak device memory %.1f GiB. Wrote %s", peak_memory_gib(), self.args.output_dir)

    def _tell_of_start(self, checkpoint: str | None) -> int:
        """Log what a step is, and how the run goes on. Returns the steps that are done."""
        cut = (
            self.args.world_size,
            self.args.per_device_train_batch_size,
            self.args.gradient_accumulation_steps,
        )
        words = "{} process(es) x {} sample(s) x {} accumulated".format(*cut)
        log.info("Global batch: %s = %d samples per step", words, math.prod(cut))
        if checkpoint is None:
            return 0
        state, planned = read_json(Path(checkpoint) / STATE), self.planned_steps()
        if state["max_steps"] != planned:
            log.warning(
                "%s was planned for %d steps, this run for %d: from step %d on the learning rate follows the "
                "schedule of %d steps",
                *(checkpoint, state["max_steps"], planned, state["global_step"], planned),
            )
        return state["global_step"]
