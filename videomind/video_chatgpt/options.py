"""What a command line of Video-ChatGPT names, and our own arguments of its training; help is made of them."""

from dataclasses import dataclass, field

LINEAR, MLP = PROJECTORS = ("linear", "mlp2x_gelu")
CLIP = "openai/clip-vit-large-patch14"  # the tower at 224 pixels
CLIP_336 = f"{CLIP}-336"
TOWER_BATCH = 32  # frames per forward pass
TRAINING_MODE, CHAT_MODE = "vicuna_v1_1", "video-chatgpt_v1"
# The texts that the published models were trained and evaluated with; the second has no blank after
# "language.", as published.
SYSTEMS = {
    TRAINING_MODE: "A chat between a curious user and an artificial intelligence assistant. The assistant "
    "gives helpful, detailed, and polite answers to the user's questions.",
    CHAT_MODE: "You are Video-ChatGPT, a large vision-language assistant. You are able to understand the "
    "video content that the user provides, and assist the user with a variety of tasks using natural "
    "language.Follow the instructions carefully and explain your answers in detail based on the provided "
    "video.",
}
VERSION = "v1"  # of the conversation: vicuna_v1_1
GLOBAL_BATCH, MICRO_BATCH = "global_batch", "micro_batch"  # what a loss is a mean over


@dataclass(kw_only=True)
class VideoModelArguments:
    """What is trained and from where."""

    model_name_or_path: str = field(metadata={"help": "LLaVA (either layout), Llama, or Video-ChatGPT"})
    version: str = field(default=VERSION, metadata={"help": "conversation: v1 is the only one"})
    tune_mm_mlp_adapter: bool = field(
        default=False, metadata={"help": "train projector and start/end rows only"}
    )
    mm_use_vid_start_end: bool = field(default=False, metadata={"help": "two tokens enclose a video"})
    freeze_backbone: bool = field(default=False, metadata={"help": "the language model does not train"})
    pretrain_mm_mlp_adapter: str | None = field(default=None, metadata={"help": "adapter to start from"})
    mm_projector_type: str | None = field(
        default=None,
        metadata={"help": f"{' or '.join(PROJECTORS)}; default: the one of the model, else linear"},
    )
    attn_implementation: str = field(
        default="auto", metadata={"help": "auto, flash_attention_2, sdpa, eager"}
    )


@dataclass(kw_only=True)
class VideoDataArguments:
    """Which samples train."""

    data_path: str = field(metadata={"help": "training JSON"})
    video_folder: str = field(metadata={"help": "folder of features, one file per video"})
    lazy_preprocess: bool = field(default=False, metadata={"help": "encode a sample when it is drawn"})
    sep_video_conv_front: bool = field(default=False, metadata={"help": "put the video into a prefix"})
    max_retries: int = field(
        default=10, metadata={"help": "stand-ins for one bad sample before it is an error"}
    )
    max_bad_share: float = field(
        default=0.1, metadata={"help": "stop when more than this share of the samples so far was bad"}
    )


@dataclass(kw_only=True)
class VideoTrainingOptions:
    """How it trains, with the documented defaults."""

    model_max_length: int = field(default=512, metadata={"help": "tokens per sample"})
    freeze_mm_mlp_adapter: bool = field(default=False, metadata={"help": "the projector does not train"})
    loss_norm: str = field(
        default=GLOBAL_BATCH,
        metadata={
            "help": "over which tokens the loss is a mean: those of a step, however it is cut, or of each "
            "forward pass, as published",
            "choices": [GLOBAL_BATCH, MICRO_BATCH],
        },
    )
    optim: str = "adamw_torch"
    save_total_limit: int | None = None
