"""The agent as a library: one call runs the chain of roles on one video.

agent = VideoMind.from_pretrained("model_zoo/VideoMind-2B")
result = agent("v.mp4", "what does the man do after he opens the door?", options=["sits", "leaves"])
result.answer, result.candidates[0].span, result.plan, result.timings
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from videomind.agent.chain import Chain, Result, chain, drive
from videomind.agent.pipeline import Pipeline, prepare_all
from videomind.agent.samples import MAX_NEW_TOKENS, ChainSettings
from videomind.dataset.phrases import clean_query, clean_question
from videomind.dataset.schema import Annotation
from videomind.device import (
    attention,
    default_dtype,
    detect,
    let_adapters_be_fast,
    prepare_process,
    spread,
    torch_device,
)
from videomind.encoding.encoder import Encoder
from videomind.logger import world_size
from videomind.model.assembly import load_roles
from videomind.model.checkpoint import LoadSettings, load_model, resolve_folder, saved_roles
from videomind.model.merging import merge_only_adapter

ALL_DEVICES = "all"


class VideoMind:
    """Planner, grounder, verifier and answerer on one backbone.

    Attributes:
        pipeline: the single steps.
        encoder: makes their inputs.
    """

    def __init__(self, pipeline: Pipeline):
        self.pipeline, self.encoder = pipeline, Encoder(pipeline.processor)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        *,
        roles: dict[str, str | Path] | None = None,
        base_path: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str = "auto",
        max_new_tokens: int = MAX_NEW_TOKENS,
        fold_adapter: bool = False,
    ) -> "VideoMind":
        """Load an agent.

        Args:
            path: folder or hub id of a role checkpoint, all of whose roles are used, or of a base model.
            roles: folders or hub ids of single roles; they take precedence over those in `path`.
            base_path: base model, instead of the one that the checkpoints name.
            device: auto, cpu, cuda:0, npu:0, ..., or all, to spread the model over all of them.
            dtype: auto, float32, float16 or bfloat16.
            attn_implementation: auto, sdpa, flash_attention_2 or eager.
            max_new_tokens: of a response.
            fold_adapter: into the weights, of the one role, if it is to play alone, without the base.

        Raises:
            ValueError: something is missing; says where it was looked for.
        """
        prepare_process(detect())
        if device == ALL_DEVICES and world_size() > 1:
            raise ValueError(
                f"--device {ALL_DEVICES} spreads the model of one process over all devices, but there are "
                f"{world_size()} processes. Start one (NPROC_PER_NODE=1)."
            )
        kind = torch_device("auto" if device == ALL_DEVICES else device)
        weights = default_dtype(kind.type) if dtype == "auto" else getattr(torch, dtype)
        settings = LoadSettings(
            dtype=weights,
            attn_implementation=attention(attn_implementation, kind.type, weights),
            base_path=base_path,
            device=None if device == ALL_DEVICES else kind,
        )
        folders = {**_roles_in(path), **(roles or {})}
        if not folders and path is None and base_path is None:
            raise ValueError(
                "Give a role checkpoint (--model_gnd_path, ...) or a base model (--base_model_path)"
            )
        loaded = load_roles(folders, settings) if folders else load_model(path or base_path, settings)
        model = merge_only_adapter(loaded.model) if fold_adapter else loaded.model
        let_adapters_be_fast(weights, kind.type)
        model = spread(model) if device == ALL_DEVICES else model.to(kind)
        return cls(Pipeline(model, loaded.processor, roles=tuple(folders), max_new_tokens=max_new_tokens))

    def __call__(
        self,
        video: str | list[str],
        question: str | None = None,
        *,
        options: Sequence[str] | None = None,
        query: str | None = None,
        duration: float | None = None,
        settings: ChainSettings | None = None,
    ) -> Result:
        """Answer a question about a video, or find a query's moment.

        Args:
            video: a file, or a list of image files.
            question: what to answer, with `options` to choose from, or freely without them.
            query: what to find when nothing is to be answered.
            duration: of the video, s; read from it when not given.
            settings: how the chain runs; by default the planner, if there is one, decides.

        Raises:
            ValueError: neither a question nor a query.
            BadVideoError: the video cannot be used.
        """
        if not (question or query):
            raise ValueError("Give a question to answer, or a query to find")
        settings = settings or ChainSettings(planning=True, rephrasing=True)
        if question and not options:
            settings = replace(settings, style="direct", open_ended=True)
        anno = video_annotation(video, question, options=options, query=query, duration=duration)
        return self.ask(anno, settings)

    def ask(self, anno: Annotation, settings: ChainSettings) -> Result:
        """Run the chain on an annotation, decoding in place."""
        return drive(self.chain(anno, settings), partial(prepare_all, encoder=self.encoder))

    def chain(self, anno: Annotation, settings: ChainSettings) -> Chain:
        """Start the chain on an annotation, to be driven by the caller (`videomind.agent.chain`)."""
        return chain(self.pipeline, self.encoder, anno, settings)


def video_annotation(
    video: str | list[str],
    question: str | None,
    *,
    options: Sequence[str] | None = None,
    query: str | None = None,
    duration: float | None = None,
) -> Annotation:
    """Make an annotation of what a user asks about one video.

    Args:
        video: a file, or a list of image files.
        question: what to answer.
        options: what the answer is chosen from.
        query: what to find, the question where there is none.
        duration: of the video, s.

    Raises:
        ValueError: an option, or another value, is of the wrong kind.
    """
    anno = Annotation(
        source="video",
        video_path=video,
        duration=duration,
        query=clean_query(query or question),
        question=clean_question(question) if question else None,
        options=list(options) if options else None,
    )
    try:
        anno.check_types()
    except TypeError as error:
        raise ValueError(str(error)) from None
    return anno


def _roles_in(path: str | Path | None) -> dict[str, str | Path]:
    """List the roles that a folder or a hub id holds; none for a base model."""
    if path is None:
        return {}
    folder = resolve_folder(path, "model", "Download it (model_zoo/README.md) or give another path.")
    return dict.fromkeys(saved_roles(folder), folder)
