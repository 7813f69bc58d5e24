"""transformers' Qwen2-VL with the published positions and the quicker vision tower."""

from torch import nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel

from videomind.backbones.qwen2_vl.positions import PublishedPositions
from videomind.backbones.qwen2_vl.vision import VisionTower


class PublishedModel(PublishedPositions):
    """Qwen2-VL without the language head."""

    def __init__(self, config: Qwen2VLConfig):
        # Past the parent, which would build a vision tower of its own.
        super(Qwen2VLModel, self).__init__(config)
        self.visual = VisionTower._from_config(config.vision_config)
        self.language_model = Qwen2VLTextModel._from_config(config.text_config)
        self.rope_deltas = None
        self.post_init()


class PublishedQwen2VL(Qwen2VLForConditionalGeneration):
    """Qwen2-VL for generation."""

    def __init__(self, config: Qwen2VLConfig):
        # Past the parent, which would build an inner model of its own.
        super(Qwen2VLForConditionalGeneration, self).__init__(config)
        self.model = PublishedModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
