"""Trains Video-ChatGPT: what `videomind train-chat` does once its arguments are parsed."""

import logging
import math
import os
from functools import partial
from pathlib import Path

import torch
from transformers import set_seed

from videomind.device import attention, detect
from videomind.model.checkpoint import LoadSettings
from videomind.model.tensors import refuse
from videomind.train.command_line.arguments import weight_dtype
from videomind.train.optim import trainable_table
from videomind.train.running import init_communication
from videomind.train.sampler import GroupSampler
from videomind.train.trainer import COMPLETE, ResumingTrainer
from videomind.video_chatgpt.adapter import (
    continue_adapter,
    new_projector,
    read_adapter,
    save_video_adapter,
    video_adapter_state,
)
from videomind.video_chatgpt.arguments import VideoArguments
from videomind.video_chatgpt.disk import (
    LoadedVideoModel,
    add_videos,
    copy_state,
    load_start,
    restore_whole,
    save_whole,
    whole_state,
)
from videomind.video_chatgpt.instructions import InstructionDataset, collate, feature_shape, read_instructions
from videomind.video_chatgpt.model import VideoChatGPT
from videomind.video_chatgpt.options import GLOBAL_BATCH, LINEAR

log = logging.getLogger(__name__)

ADAPTER = "mm_projector"


def build_video_model(args: VideoArguments, shape: tuple[int, int] | None) -> LoadedVideoModel:
    """Load what training starts from, and let train what the arguments say.

    Args:
        args: of the run.
        shape: of the training set's features; None when all is text.
    """
    options, training = args.model, args.training
    dtype = weight_dtype(training)
    attn = attention(options.attn_implementation, detect().kind, dtype)
    settings = LoadSettings(dtype=dtype, attn_implementation=attn, device=training.device)
    loaded = load_start(options.model_name_or_path, settings)
    model, config = loaded.model, loaded.model.config
    if training.model_max_length > config.max_position_embeddings:
        raise ValueError(
            f"--model_max_length {training.model_max_length}: {options.model_name_or_path} has "
            f"{config.max_position_embeddings} positions (max_position_embeddings)"
        )
    if options.pretrain_mm_mlp_adapter is None:
        _choose_projector(model, options.mm_projector_type, shape)
    add_videos(loaded, has_start_end=options.mm_use_vid_start_end)
    if options.pretrain_mm_mlp_adapter is not None:
        continue_adapter(loaded, Path(options.pretrain_mm_mlp_adapter))
    if shape is not None and shape[1] != config.mm_hidden_size:
        raise ValueError(
            f"The features in {args.data.video_folder} are {shape[1]} wide, but the projector of "
            f"{options.pretrain_mm_mlp_adapter or options.model_name_or_path} takes {config.mm_hidden_size}. "
            "Give features of another tower, or --mm_projector_type to start a new projector."
        )
    config.mm_use_vid_start_end = options.mm_use_vid_start_end
    config.tune_mm_mlp_adapter = options.tune_mm_mlp_adapter
    config.num_video_tokens = shape[0] if shape is not None else config.num_video_tokens
    _let_train(model, args)
    return loaded


def _choose_projector(model: VideoChatGPT, kind: str | None, shape: tuple[int, int] | None) -> None:
    """Keep the model's projector where it has one that fits what was asked for, else start one."""
    config = model.config
    width = shape[1] if shape is not None else config.mm_hidden_size
    does_fit = kind is None or (kind, width) == (config.mm_projector_type, config.mm_hidden_size)
    if config.use_mm_proj and does_fit:
        log.info("The projector starts as the model's own (%s)", config.mm_projector_type)
        return
    if width is None:
        raise ValueError("No sample has a video, so nothing says how wide the features of a projector are")
    log.info("The projector (%s) starts at random", kind or LINEAR)
    new_projector(model, kind or LINEAR, width)


def _let_train(model: VideoChatGPT, args: VideoArguments) -> None:
    """Let everything train unless the arguments say otherwise; what trains is kept in float32.

    With `--tune_mm_mlp_adapter` the input table trains too (of which only start and end learn from videos),
    and without start and end both tables, as published.
    """
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    if args.model.tune_mm_mlp_adapter:
        model.requires_grad_(False)
        for table in tables[: 1 if args.model.mm_use_vid_start_end else 2]:
            table.requires_grad_(True)
    elif args.model.freeze_backbone:
        model.requires_grad_(False)
    model.projector.requires_grad_(not args.training.freeze_mm_mlp_adapter)
    trains = [param for param in model.parameters() if param.requires_grad]
    if not trains:
        raise ValueError("Nothing trains: --freeze_backbone and --freeze_mm_mlp_adapter are both on")
    if args.training.deepspeed is None:
        for param in trains:  # master weights; the forward casts under autocast
            param.data = param.data.float()


class VideoTrainer(ResumingTrainer):
    """Trains Video-ChatGPT.

    Args:
        arguments: of the run.
        loaded: the model set up for training.
        dataset: what it learns from.
    """

    def __init__(self, arguments: VideoArguments, loaded: LoadedVideoModel, dataset: InstructionDataset):
        self.loaded = loaded
        self.is_adapter_only = not any(p.requires_grad for p in loaded.model.model.layers.parameters())
        super().__init__(
            loaded.model,
            training=arguments.training,
            sampler=GroupSampler(["all"] * len(dataset), group_size=1, seed=arguments.training.seed),
            max_bad_share=arguments.data.max_bad_share,
            train_dataset=dataset,
            data_collator=partial(collate, pad_token_id=loaded.tokenizer.pad_token_id),
            sample_bytes=4 * math.prod(dataset.shape or (0,)),  # features in float32
            averages_tokens=arguments.training.loss_norm == GLOBAL_BATCH,
        )

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Leave tables of which only some rows learn out of weight decay: it would move all the others."""
        names = super().get_decay_parameter_names(model)
        tables = ("embed_tokens.weight", "lm_head.weight")
        return [name for name in names if not (self.is_adapter_only and name.endswith(tables))]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter or the whole model; every process takes part, the first one writes.

        A checkpoint's adapter is `mm_projector/checkpoint-K.bin` beside the checkpoint, as published.
        """
        folder = Path(output_dir or self.args.output_dir)
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
        if self.is_adapter_only:
            state = video_adapter_state(self.model, should_keep=self.args.should_save)
            path = _adapter_of(folder) if _internal_call else folder / f"{ADAPTER}.bin"
            if self.args.should_save:
                save_video_adapter(state, self.model.config, path)
            return
        # Without DeepSpeed's own state a checkpoint must hold the master weights to go on from.
        is_master = _internal_call and not self.is_deepspeed_enabled
        dtype = torch.float32 if is_master else weight_dtype(self.args)
        state = whole_state(self.model, dtype, should_keep=self.args.should_save)
        if self.args.should_save:
            save_whole(state, self.loaded, folder)

    def restore(self, checkpoint: Path) -> None:
        if not self.is_adapter_only:
            restore_whole(self.model, checkpoint)
            return
        path = _adapter_of(checkpoint)
        state = read_adapter(path)
        trained = {name for name, param in self.model.named_parameters() if param.requires_grad}
        refuse({"missing": sorted(trained - state.keys())}, path)
        copy_state(state, self.model, "", path)

    def remove_checkpoint(self, folder: Path) -> None:
        """Delete a checkpoint; its adapter goes with it."""
        (folder / COMPLETE).unlink(missing_ok=True)
        for suffix in (".bin", ".json"):
            _adapter_of(folder).with_suffix(suffix).unlink(missing_ok=True)
        super().remove_checkpoint(folder)


def _adapter_of(checkpoint: Path) -> Path:
    """Name the file of a checkpoint's adapter."""
    return checkpoint.parent / ADAPTER / f"{checkpoint.name}.bin"


def train(args: VideoArguments) -> None:
    """Run a training to its end and write adapter or model to `--output_dir`."""
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(Path(args.training.output_dir) / "tensorboard"))
    init_communication(args.training)
    set_seed(args.training.seed)
    rows = read_instructions(args.data.data_path)
    shape = feature_shape(rows, args.data.video_folder)
    loaded = build_video_model(args, shape)
    log.info("What trains:\n%s", trainable_table(loaded.model))
    log.info("%d samples; a video is %s tokens", len(rows), shape[0] if shape else "never there, so no")
    dataset = InstructionDataset(
        rows,
        source=Path(args.data.data_path).stem,
        folder=args.data.video_folder,
        shape=shape,
        tokenizer=loaded.tokenizer,
        has_start_end=args.model.mm_use_vid_start_end,
        max_length=args.training.model_max_length,
        is_video_first=args.data.sep_video_conv_front,
        is_lazy=args.data.lazy_preprocess,
        seed=args.training.seed,
        max_retries=args.data.max_retries,
    )
    trainer = VideoTrainer(args, loaded, dataset)
    trainer.run_to_end(after=lambda: trainer.save_state() if trainer.state.global_step else None)
