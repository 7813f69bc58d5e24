"""The backbones there are, and which one a folder holds."""

from pathlib import Path

from videomind.backbones.backbone import Backbone, Processor
from videomind.backbones.qwen2_vl.declaration import Qwen2VL
from videomind.files import read_json
from videomind.roles import SPECIAL_TOKENS, nearest

_BACKBONES: dict[str, Backbone] = {}


def register(backbone: Backbone) -> None:
    """Make a backbone known.

    Raises:
        ValueError: Its name, or a `model_type` by which its folders are recognised, is taken.
    """
    for other in _BACKBONES.values():
        if shared := _marks(backbone) & _marks(other):
            raise ValueError(f"The backbone {backbone.name} shares {sorted(shared)} with {other.name}")
    _BACKBONES[backbone.name] = backbone


def _marks(backbone: Backbone) -> set[str]:
    return {backbone.name, backbone.base_type, backbone.role_type}


register(Qwen2VL())


def get_backbone(name: str) -> Backbone:
    """Look a backbone up by name.

    Raises:
        ValueError: There is none of that name; lists those there are.
    """
    if name not in _BACKBONES:
        raise ValueError(f"Unknown backbone {name!r} (--base_model). {nearest(name, _BACKBONES)}")
    return _BACKBONES[name]


def recognise(folder: Path) -> Backbone:
    """Tell by its config.json which backbone a base model or a role checkpoint is of.

    Raises:
        ValueError: It is of none that is known, or says two things.
    """
    config = read_json(folder / "config.json")
    kind, recorded = config.get("model_type"), config.get("base_model")
    for backbone in _BACKBONES.values():
        if kind in (backbone.base_type, backbone.role_type):
            if recorded not in (None, backbone.name):
                raise ValueError(
                    f"{folder / 'config.json'}: base_model {recorded!r} contradicts model_type {kind!r}, "
                    f"which is of {backbone.name}"
                )
            return backbone
    known = {kind for backbone in _BACKBONES.values() for kind in (backbone.base_type, backbone.role_type)}
    raise ValueError(f"{folder / 'config.json'}: unknown model_type {kind!r}. {nearest(str(kind), known)}")


def load_processor(folder: str | Path) -> Processor:
    """Read the processor of a base model or a role checkpoint; its tokenizer knows the roles' special tokens.

    Raises:
        ValueError: A file is missing or contradicts the backbone.
    """
    folder = Path(folder)
    processor = recognise(folder).load_processor(folder)
    processor.tokenizer.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)  # those that are not there yet
    return processor
