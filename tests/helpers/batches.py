"""Micro-batches as a role model gets them from its trainer."""

from collections.abc import Sequence

from videomind.backbones.backbone import Processor
from videomind.train.mixture import Batch, Collator, Item


def model_batch(processor: Processor, items: Sequence[Item]) -> Batch:
    """The model's inputs of some samples, scaled as the trainer scales them, without its records."""
    batch = Collator(pad_token_id=processor.tokenizer.pad_token_id)(list(items))
    del batch["bad_samples"]
    batch["pixel_values"] = processor.normalized(batch["pixel_values"])
    return batch
