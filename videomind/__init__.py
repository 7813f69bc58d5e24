"""VideoMind: one vision-language backbone that plans, grounds, verifies and answers (arXiv 2503.13444)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videomind.agent.agent import VideoMind

__version__ = "0.1.0"
__all__ = ["VideoMind", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `videomind.VideoMind` when it is used, so that importing the package does no work."""
    if name == "VideoMind":
        from videomind.agent.agent import VideoMind

        return VideoMind
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
