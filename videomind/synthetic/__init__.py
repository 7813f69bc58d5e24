"""Rendered videos with known moments and a tiny base model: the embedded default.

`make_data` writes two data sets in their real layouts, `make_tiny_base` a tiny Qwen2-VL as published, and
`warm_up` teaches it enough for an adapter to build on. `make_instructions` and `make_tiny_chat` do it
for Video-ChatGPT.
"""

import importlib
from typing import Any

# Loaded when asked for: a rendering process must not wait for torch and transformers.
_PLACES = {
    "make_data": "annotations",
    "make_instructions": "annotations",
    "make_tiny_base": "tiny_model",
    "make_tiny_chat": "tiny_chat",
    "TinySizes": "tiny_model",
    "warm_up": "warmup.warm_up",
    "WarmupSettings": "warmup.loop",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
