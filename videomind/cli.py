"""The `videomind` command: parses the sub-command and calls it."""

import importlib
import sys
from collections.abc import Sequence

from videomind import __version__
from videomind.roles import nearest

# sub-command -> (module with `main(argv) -> exit code`, what it does)
COMMANDS = {
    "quickstart": ("videomind.quickstart.command", "the main job on rendered videos and a tiny model"),
    "launch": ("videomind.runs.launch", "start train, infer or train-chat on all devices and nodes"),
    "train": ("videomind.train.train", "train a role on this process (scripts/ start several)"),
    "infer": ("videomind.agent.infer", "run the agent over a data set or one video"),
    "chat": ("videomind.video_chatgpt.infer", "ask Video-ChatGPT about videos"),
    "train-chat": ("videomind.video_chatgpt.train", "train Video-ChatGPT on this process"),
    "combine": ("videomind.model.combine", "several role checkpoints as one folder"),
    "evaluate": ("videomind.eval.evaluate", "metrics of predictions"),
    "compare": ("videomind.eval.compare", "one table of several predictions"),
    "picture": ("videomind.eval.picture", "film strips with true and found moments"),
    "judge": ("videomind.video_chatgpt.judge.judge", "score answers of Video-ChatGPT with a language model"),
    "convert": ("videomind.video_chatgpt.convert", "VideoInstruct rows to training conversations"),
    "features": ("videomind.video_chatgpt.features.extract", "CLIP features of a folder of videos"),
    "data": ("videomind.dataset.commands", "what data sets hold, and data for verifier and planner"),
    "synthetic": ("videomind.synthetic.__main__", "render data and make a tiny model"),
}


def usage() -> str:
    """Say what can be called."""
    lines = [f"  {name:10} {what}" for name, (_, what) in COMMANDS.items()]
    return f"videomind {__version__}\n\nvideomind COMMAND --help\n\n" + "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Call the sub-command.

    Returns:
        Its exit code; 2 for an unknown one.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0
    if argv[0] not in COMMANDS:
        sys.stderr.write(f"Unknown command {argv[0]!r}. {nearest(argv[0], COMMANDS)}\n")
        return 2
    return importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
