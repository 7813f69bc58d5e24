"""`python -m videomind.synthetic COMMAND`: what the quickstart has before its training.

Each step writes its result whole or not at all, and leaves a finished one as it is.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace

from videomind.logger import run_command
from videomind.start_up import importing
from videomind.synthetic.shipped import copy_shipped

_WARMUP_OPTIONS = (
    "short_steps",
    "long_steps",
    "short_batch",
    "long_batch",
    "num_videos",
    "seed",
    "processes",
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m videomind.synthetic", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="render Charades-STA-like and QVHighlights-like data")
    data.add_argument("root", help="data root to write to")
    data.add_argument("--num_train", type=int, default=240, help="videos per data set")
    data.add_argument("--num_valid", type=int, default=12)
    data.add_argument("--num_test", type=int, default=60)
    data.add_argument("--num_question_train", type=int, default=0, help="videos of NExT-QA; 0: none")
    data.add_argument("--num_question_test", type=int, default=0, help="videos of NExT-GQA")
    _add_rendering(data)
    base = commands.add_parser("base", help="make a tiny Qwen2-VL with random weights")
    base.add_argument("path", help="folder to write")
    base.add_argument("--untied", action="store_true", help="two embedding tables, as in the 7B")
    base.add_argument("--seed", type=int, default=0)
    warmup = commands.add_parser("warmup", help="warm a tiny base up on the training data")
    warmup.add_argument("base", help="folder of the tiny base")
    warmup.add_argument("data_root", help="data root")
    warmup.add_argument("output", help="folder to write")
    for name in _WARMUP_OPTIONS:
        warmup.add_argument(f"--{name}", type=int, default=None)
    warmup.add_argument("--lr", type=float, default=None)
    shipped = commands.add_parser("shipped", help="copy the warmed-up tiny base that comes with the code")
    shipped.add_argument("output", help="folder to write")
    shipped.add_argument("--digest", help="what its files must be")
    told = commands.add_parser("instructions", help="render instructions and questions for Video-ChatGPT")
    told.add_argument("root", help="data root to write to")
    told.add_argument("--num_train", type=int, default=240, help="videos")
    told.add_argument("--num_test", type=int, default=60)
    _add_rendering(told)
    chat = commands.add_parser("chat_base", help="make a tiny CLIP and a tiny Llama with random weights")
    chat.add_argument("path", help="folder to write")
    chat.add_argument("--seed", type=int, default=0)
    return parser


def _add_rendering(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--workers", type=int, default=None, help="processes; default: one per core, at most 8"
    )


def _run(args: argparse.Namespace) -> None:
    """Run a sub-command."""
    if args.command == "data":
        from videomind.synthetic.annotations import make_data

        counts = {name: getattr(args, name) for name in ("num_train", "num_valid", "num_test")}
        questioned = (args.num_question_train, args.num_question_test)
        make_data(args.root, **counts, num_questioned=questioned, seed=args.seed, workers=args.workers)
    elif args.command == "instructions":
        from videomind.synthetic.annotations import make_instructions

        counts = {"num_train": args.num_train, "num_test": args.num_test}
        make_instructions(args.root, **counts, seed=args.seed, workers=args.workers)
    elif args.command == "shipped":
        copy_shipped(args.output, args.digest)
    elif args.command == "base":
        with importing():
            from videomind.synthetic.tiny_model import make_tiny_base

        make_tiny_base(args.path, is_tied=not args.untied, seed=args.seed)
    elif args.command == "chat_base":
        with importing():
            from videomind.synthetic.tiny_chat import make_tiny_chat

        make_tiny_chat(args.path, seed=args.seed)
    else:
        with importing():
            from videomind.synthetic.warmup.warm_up import WarmupSettings, warm_up

        changed = {f.name: getattr(args, f.name, None) for f in fields(WarmupSettings)}
        changed = {name: value for name, value in changed.items() if value is not None}
        warm_up(args.base, args.data_root, args.output, settings=replace(WarmupSettings(), **changed))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 2 for what cannot be done.
    """
    return run_command(lambda: _parser().parse_args(argv), _run)


if __name__ == "__main__":
    sys.exit(main())
