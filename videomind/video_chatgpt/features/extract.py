"""Pre-computes the features of a folder of videos, one file per video.

    python scripts/save_spatio_temporal_clip_features.py --video_dir_path VIDEOS --clip_feat_path FEATURES

Alone or under torchrun. Each file is written at once and whole; a rerun makes only what is missing, and tries
again what failed. Threads decode ahead of the tower.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from videomind.logger import run_command
from videomind.runs.cores import usable_cores
from videomind.start_up import importing
from videomind.video_chatgpt.features.store import FEATURE_EXTENSIONS
from videomind.video_chatgpt.options import CLIP, CLIP_336, TOWER_BATCH

log = logging.getLogger(__name__)

TOWERS = {"1.1": CLIP, "1.5": CLIP_336}
DEFAULT_LLAVA = "1.1"


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        prog="videomind features", description="CLIP spatio-temporal features of a folder of videos."
    )
    parser.add_argument("--video_dir_path", required=True, help="folder of videos")
    parser.add_argument("--clip_feat_path", required=True, help="folder for the features")
    parser.add_argument("--infer_batch", type=int, default=TOWER_BATCH, help="frames per forward pass")
    parser.add_argument("--vision_tower", help=f"folder or hub id of a CLIP (default: {TOWERS['1.1']})")
    parser.add_argument(
        "--llava", choices=sorted(TOWERS), help="choose the tower by LLaVA's version; --vision_tower decides"
    )
    names = [extension[1:] for extension in FEATURE_EXTENSIONS]
    parser.add_argument("--format", default=names[0], choices=names, help="of the files")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0, npu:0, ...")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"),
                        help="of the tower; auto: float16, on a CPU float32")  # fmt: skip
    threads = min(8, usable_cores())
    parser.add_argument("--num_workers", type=int, default=threads, help="threads that decode ahead")
    return parser


def choose_tower(args: argparse.Namespace) -> str:
    """Choose the tower: `--vision_tower`, else that of LLaVA's version, else that of LLaVA 1.1."""
    if args.vision_tower and args.llava:
        log.info("--vision_tower %s decides, not --llava %s", args.vision_tower, args.llava)
    return args.vision_tower or TOWERS[args.llava or DEFAULT_LLAVA]


def run(args: argparse.Namespace) -> None:
    """Extract what the command line names.

    Raises:
        ValueError: arguments that cannot be used.
    """
    if args.infer_batch < 1 or args.num_workers < 0:
        raise ValueError(
            f"--infer_batch must be at least 1 and --num_workers at least 0, not {args.infer_batch} and "
            f"{args.num_workers}"
        )
    with importing():
        from videomind.video_chatgpt.features.extracting import extract_folder

    extract_folder(args, choose_tower(args))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 2 for arguments or data that cannot be used.
    """
    return run_command(lambda: build_parser().parse_args(argv), run, shares_work=True)


if __name__ == "__main__":
    sys.exit(main())
