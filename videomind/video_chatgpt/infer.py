"""Asks Video-ChatGPT about one video, a folder of videos, or the videos of an evaluation file.

    videomind chat --model-name LLAVA --projection_path mm_projector.bin --video_path v.mp4 --question "..."
    videomind chat ... --video_dir VIDEOS --question "..." --output_dir OUT --output_name all
    videomind chat ... --video_dir VIDEOS --gt_file general.json --output_dir OUT --output_name general

Without `--question` one video is asked what stdin holds, a line at a time. An evaluation file may be run
under torchrun; every finished row is written at once, and a rerun does what is missing or failed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from videomind.device import detect, prepare_process
from videomind.logger import run_command
from videomind.roles import nearest
from videomind.runs.failures import EXIT_CODE, TooManyFailedError, add_max_bad_share
from videomind.start_up import importing
from videomind.video_chatgpt.options import CHAT_MODE, SYSTEMS


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="videomind chat", description="Answers questions about videos.")
    model = parser.add_argument_group("model")
    model.add_argument("--model-name", "--model_name", required=True, help="LLaVA (either layout), or whole")
    model.add_argument("--projection_path", "--projection-path", help="adapter: mm_projector.bin")
    model.add_argument("--vision_tower", "--vision_tower_name", help="CLIP (default: the model's)")
    model.add_argument("--clip_feat_path", help="folder of stored features, instead of a vision tower")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda:0, npu:0, ...")
    model.add_argument("--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"))
    model.add_argument("--attn_implementation", default="auto")
    what = parser.add_argument_group("what is asked")
    what.add_argument("--video_path", help="one video")
    what.add_argument("--video_dir", help="folder of videos (.mp4, .avi, .mov, .mkv)")
    what.add_argument("--question", help="about the video, or every video of the folder")
    what.add_argument("--gt_file", help="evaluation file: rows of video_name and Q, or Q1 and Q2, with A")
    what.add_argument("--gt_file_question", help="zero-shot: rows of video_name, question, question_id")
    what.add_argument("--gt_file_answers", help="zero-shot: rows of answer, in the same order")
    how = parser.add_argument_group("how")
    how.add_argument("--conv-mode", "--conv_mode", default=CHAT_MODE, help=" or ".join(SYSTEMS))
    how.add_argument("--temperature", type=float, default=0.2, help="of sampling; 0 is greedy")
    how.add_argument("--max_new_tokens", type=int, default=1024)
    how.add_argument("--batch_size", type=int, default=1, help="rows that are answered at once")
    how.add_argument("--num_threads", type=int, default=2, help="threads that decode ahead of the model")
    how.add_argument("--seed", type=int, default=42)
    out = parser.add_argument_group("output of a folder or an evaluation file")
    out.add_argument("--output_dir", help="folder")
    out.add_argument("--output_name", help="the answers go to <output_dir>/<output_name>.json")
    add_max_bad_share(out)
    return parser


def run(args: argparse.Namespace) -> None:
    """Ask what the command line names.

    Raises:
        ValueError: arguments or data that cannot be used.
        TooManyFailedError: more rows of a file failed than may.
    """
    if args.conv_mode not in SYSTEMS:
        raise ValueError(
            f"Unknown conversation {args.conv_mode!r} (--conv-mode). {nearest(args.conv_mode, SYSTEMS)}"
        )
    if args.batch_size < 1 or args.temperature < 0:
        raise ValueError("--batch_size must be at least 1 and --temperature at least 0")
    if not (args.video_path or args.video_dir or args.clip_feat_path):
        raise ValueError("Nothing to look at: give --video_path, --video_dir or --clip_feat_path")
    asks_several = any((args.video_dir, args.gt_file, args.gt_file_question, args.gt_file_answers))
    if bool(args.video_path) == asks_several:
        raise ValueError("Give either --video_path, or --video_dir with --question or an evaluation file")
    with importing():
        from videomind.video_chatgpt.asking import ask_rows, ask_video

    prepare_process(detect())
    (ask_video if args.video_path else ask_rows)(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 2 for arguments or data that cannot be used, 3 if too many rows failed.
    """
    return run_command(
        lambda: build_parser().parse_args(argv),
        run,
        exit_codes={TooManyFailedError: EXIT_CODE},
        shares_work=True,
        log_file=lambda args: Path(args.output_dir) / "chat.log" if args.output_dir else None,
    )


if __name__ == "__main__":
    sys.exit(main())
