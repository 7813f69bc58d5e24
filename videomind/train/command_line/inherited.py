"""transformers' arguments of training: which of them do here what they say, and what is said of the others.

An argument that would be taken and do nothing, or something else than it says, is refused by name. The table
names every field of every version that setup.py allows; a test compares it with the installed one.
"""

import dataclasses
import difflib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

# Names of earlier versions of transformers.
RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "warmup_ratio": "warmup_steps",  # below 1 it is a share
}
# What they had and nothing here needs any more.
GONE = frozenset(
    ("fp16_backend", "fp16_opt_level", "half_precision_backend", "local_rank", "logging_dir")
    + ("overwrite_output_dir", "save_safetensors")
)

HONOURED = frozenset(
    ("output_dir", "per_device_train_batch_size", "num_train_epochs", "max_steps", "learning_rate")
    + ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args", "weight_decay")
    + ("adam_beta1", "adam_beta2", "adam_epsilon", "gradient_accumulation_steps", "max_grad_norm")
    + ("bf16", "fp16", "tf32", "activation_checkpointing", "activation_checkpointing_kwargs")
    + ("gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_empty_cache_steps")
    + ("logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node")
    + ("logging_nan_inf_filter", "log_level", "log_level_replica", "disable_tqdm", "report_to", "run_name")
    + ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "save_strategy")
    + ("save_steps", "save_total_limit", "full_determinism", "seed", "use_cpu", "dataloader_drop_last")
    + ("dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor")
    + ("dataloader_multiprocessing_context", "remove_unused_columns", "ddp_find_unused_parameters")
    + ("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_backend", "ddp_timeout", "deepspeed")
    + ("skip_memory_metrics", "local_rank")
)
_EVALUATION = "training runs no evaluation; `videomind infer` and `evaluate` do"
_ORDER = "the order of samples is this trainer's own, so that a run can go on anywhere"
_HUB = "nothing is uploaded; the folder of a checkpoint can be, by `hf upload`"
_UNTRIED = "it was never tried with these models"
_BATCH = "the loss of a batch is a mean over its samples or tokens, see docs/TRAIN.md"
REFUSED = {
    **dict.fromkeys(
        ("eval_strategy", "eval_steps", "eval_delay", "per_device_eval_batch_size", "prediction_loss_only")
        + ("eval_on_start", "eval_do_concat_batches", "eval_use_gather_object", "eval_accumulation_steps")
        + ("include_for_metrics", "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval", "do_eval")
        + ("do_predict", "load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
        _EVALUATION,
    ),
    **dict.fromkeys(
        ("data_seed", "train_sampling_strategy", "length_column_name", "ignore_data_skip")
        + ("dataloader_in_order", "group_by_length"),
        _ORDER,
    ),
    **dict.fromkeys(
        ("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push")
        + ("hub_revision",),
        _HUB,
    ),
    **dict.fromkeys(
        ("torch_compile", "torch_compile_backend", "torch_compile_mode", "use_liger_kernel")
        + ("liger_kernel_config", "neftune_noise_alpha", "fsdp", "fsdp_config", "parallelism_config")
        + ("accelerator_config", "optim_target_modules", "ddp_static_graph", "debug", "use_cache")
        + ("enable_jit_checkpoint", "restore_callback_states_from_checkpoint", "save_on_each_node"),
        _UNTRIED,
    ),
    **dict.fromkeys(
        ("label_smoothing_factor", "average_tokens_across_devices", "label_names")
        + ("include_num_input_tokens_seen", "include_tokens_per_second"),
        _BATCH,
    ),
    "auto_find_batch_size": "it would change the global batch on the way",
    "save_only_model": "a checkpoint without its optimizer cannot be continued from",
    "dataloader_persistent_workers": "a run that goes on would draw other random numbers than an uncut one",
    "do_train": "this command does nothing else",
    "resume_from_checkpoint": "a rerun goes on from the newest complete checkpoint of --output_dir by itself",
}
# Published command lines hold it: the log says that it does nothing.
SAID = frozenset(("per_device_eval_batch_size",))
COUNTS_FROM_ONE = ("per_device_train_batch_size", "gradient_accumulation_steps")
HABITS = {"do_train": True}  # what people write though it says nothing; only this value is true here


def todays(argv: Sequence[str], known: Sequence[str]) -> list[str]:
    """Write a command line under today's names; what changed is logged.

    Args:
        argv: as it may have been documented for earlier versions of transformers.
        known: names of the arguments that there are.
    """
    flags = {part.removeprefix("--").partition("=")[0] for part in argv if part.startswith("--")}
    out: list[str] = []
    is_dropped = False
    for part in argv:
        if not part.startswith("--"):
            out += [] if is_dropped else [part]
            continue
        name, sign, value = part.removeprefix("--").partition("=")
        new = name if name in known else RENAMED.get(name, name)
        is_gone = name not in known and name in GONE
        is_dropped = is_gone or (new != name and new in flags)
        if is_gone:
            log.info("--%s has no effect in this version of transformers", name)
        elif is_dropped:
            log.info("--%s is left out: --%s is given", name, new)
        elif new != name:
            log.info("--%s is --%s today", name, new)
        out += [] if is_dropped else [f"--{new}", *([value] if sign else [])]
    return out


def refuse_unknown(argv: Sequence[str], names: Sequence[str]) -> None:
    """Refuse an argument that no version of transformers has, nor this package.

    Args:
        argv: what was given, recipe and all.
        names: of all arguments. The beginning of one is none: what is refused by name would get by.

    Raises:
        ValueError: there is none of that name; gives the nearest.
    """
    for part in argv:
        name = part.removeprefix("--").partition("=")[0].replace("-", "_")
        if part.startswith("--") and {name, name.removeprefix("no_")}.isdisjoint(names):
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean --{close[0]}?" if close else " --help shows what there is."
            raise ValueError(f"Unknown argument {part.partition('=')[0]}.{hint}")


def refuse_unused(training: Any, argv: Sequence[str], names: Sequence[str]) -> None:
    """Refuse arguments that do nothing here.

    Args:
        training: transformers' arguments, parsed.
        argv: what was given, recipe and all.
        names: of the arguments that are transformers' own.

    Raises:
        ValueError: One is given that is not used, with another value than it has by itself; says why.
    """
    inherited = {entry.name: entry for entry in dataclasses.fields(training) if entry.name in names}
    named = [part.removeprefix("--").partition("=")[0] for part in argv if part.startswith("--")]
    for name in named:
        if name not in inherited or name in HONOURED:
            continue
        value = getattr(training, name)
        if value == HABITS.get(name, default_of(inherited[name])):
            continue
        if name in SAID:
            log.info("--%s has no effect: %s", name, REFUSED[name])
            continue
        reason = REFUSED.get(name, "this version of transformers is newer than those that were tried")
        raise ValueError(f"--{name} {value} is not used here: {reason}. Leave it out.")


def refuse_zeros(training: Any) -> None:
    """Refuse numbers of which a step cannot be made, and a zero that would be taken as not given.

    Args:
        training: transformers' arguments, parsed.

    Raises:
        ValueError: There is one; names it.
    """
    for name in COUNTS_FROM_ONE:
        if (value := getattr(training, name)) < 1:
            raise ValueError(f"--{name} is {value}. Allowed: whole numbers from 1.")
    if training.max_steps == 0:
        raise ValueError(
            "--max_steps 0 would train all --num_train_epochs. Allowed: whole numbers from 1, and -1 for all."
        )


def default_of(entry: dataclasses.Field) -> Any:
    """Give the value that a field of a dataclass has by itself."""
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return entry.default


def refuse_missing_reporters(report_to: Sequence[str], available: Sequence[str]) -> None:
    """Refuse a tracker whose package is not installed.

    Args:
        report_to: names, of `--report_to`.
        available: names of those that are installed.

    Raises:
        ValueError: One is not.
    """
    for name in report_to:
        if name not in available and name not in ("none", "all"):
            raise ValueError(
                f"--report_to {name}: its package is not installed. Installed here: "
                f"{', '.join(sorted(available)) or 'none'}."
            )


def refuse_other_adapter(asked: Mapping[str, Any], saved: Mapping[str, Any], folder: str) -> None:
    """Refuse settings of a new adapter where one that is there goes on with its own.

    Args:
        asked: argument to value, those of the command line alone.
        saved: argument to value, of the adapter that goes on.
        folder: where that lies.

    Raises:
        ValueError: They differ.
    """
    other = {name: value for name, value in asked.items() if name in saved and saved[name] != value}
    if other:
        named = ", ".join(f"--{name} {value} (it has {saved[name]})" for name, value in other.items())
        raise ValueError(
            f"The adapter in {folder} goes on as it is, without {named}. Leave them out, or fold it into the "
            "weights with --merge_adapter True, and a new one starts."
        )
