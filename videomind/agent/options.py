"""The command line of inference; it is parsed before anything heavy is imported."""

import argparse

from videomind.agent.samples import MAX_NEW_TOKENS, STYLES
from videomind.runs.failures import add_max_bad_share
from videomind.video.request import ON_DAMAGE, USE

DESCRIPTION = "Runs the chain of roles over a data set, or over one video; a rerun continues."
ROLE_FLAGS = {"grounder": "gnd", "verifier": "ver", "planner": "pla", "answerer": "ans"}
# What only some role does: an option to the role without which it would have no effect.
NEEDED_ROLE = {"auto_planning": "planner", "auto_rephrasing": "planner", "verify_query": "verifier"}


def build_parser() -> argparse.ArgumentParser:
    """Make the command line of inference."""
    parser = argparse.ArgumentParser(prog="videomind infer", description=DESCRIPTION)
    what = parser.add_argument_group("what to run on (a data set, or one video)")
    what.add_argument("--dataset", help="registered name, or a .jsonl file of your own")
    what.add_argument("--split", help="default: the one that the data set is evaluated on")
    what.add_argument("--data_root", default="data", help="folder of all data sets")
    what.add_argument("--video", help="one video file instead of a data set")
    what.add_argument("--query", help="what to find in it")
    what.add_argument("--question", help="what to answer about it")
    what.add_argument("--options", nargs="+", help="what the answer is chosen from")
    model = parser.add_argument_group(
        "model: role checkpoints, folders or hub ids; the same one may hold several"
    )
    for role, short in ROLE_FLAGS.items():
        model.add_argument(f"--model_{short}_path", help=f"the {role}'s")
    model.add_argument("--base_model_path", help="base model, instead of the one the checkpoints name")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda:0, npu:0, ..., or all to spread it")
    model.add_argument("--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"))
    model.add_argument("--attn_implementation", default="auto")
    model.add_argument(
        "--merge",
        default="auto",
        choices=("auto", "no"),
        help="auto: fold the adapter into the weights where one role runs and nothing else",
    )
    model.add_argument("--max_new_tokens", type=int, default=MAX_NEW_TOKENS)
    how = parser.add_argument_group("the chain")
    how.add_argument("--style", default="mcq", choices=STYLES, help="how options are asked for")
    how.add_argument(
        "--use_subtitle", action="store_true", help="the answerer reads the subtitles of what it sees"
    )
    how.add_argument("--auto_rephrasing", action="store_true", help="ground the planner's query")
    how.add_argument("--auto_planning", action="store_true", help="a plan may skip grounding")
    how.add_argument("--verify_query", action="store_true", help="judge by the query, not the question")
    seen = parser.add_argument_group("how finely videos are seen (default: the roles' budgets)")
    seen.add_argument("--min_tokens_per_frame", type=int)
    seen.add_argument("--max_tokens_per_frame", type=int)
    seen.add_argument("--max_frames", type=int)
    seen.add_argument("--fps", type=float)
    seen.add_argument(
        "--square_pixels",
        action="store_true",
        help="stretch frames whose pixels are not square, as players do (published: not)",
    )
    _add_output(parser)
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    out = parser.add_argument_group("output")
    out.add_argument("--pred_path", required=True, help="folder for the predictions")
    out.add_argument("--num_threads", type=int, default=2, help="threads that decode ahead of the model")
    out.add_argument(
        "--retry_failed", action="store_true", help="do again what an earlier run recorded as failed"
    )
    add_max_bad_share(out)
    out.add_argument(
        "--on_damage",
        default=USE,
        choices=ON_DAMAGE,
        help="use a damaged video and record what is wrong with it, or skip the sample as failed",
    )
    out.add_argument("--chunk", type=int, default=1, help="number of runs that share the work by hand")
    out.add_argument("--index", type=int, default=0, help="which of them this is, from 0")


def role_paths(args: argparse.Namespace) -> dict[str, str]:
    """Collect the checkpoints of the command line by role."""
    paths = {role: getattr(args, f"model_{short}_path") for role, short in ROLE_FLAGS.items()}
    return {role: path for role, path in paths.items() if path}


def check_roles(args: argparse.Namespace) -> None:
    """Refuse an option that needs a role which does not run.

    Raises:
        ValueError: names both.
    """
    for option, role in NEEDED_ROLE.items():
        flag = f"model_{ROLE_FLAGS[role]}_path"
        if getattr(args, option) and not getattr(args, flag):
            raise ValueError(f"--{option} needs a {role}: give --{flag}, which may be another role's too")
