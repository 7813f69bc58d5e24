"""`videomind quickstart`: renders videos, makes a tiny model, trains and evaluates it as a real run does.

    videomind quickstart [--fresh] [--grounder-only] [--from-scratch] [--seed N]      the agent
    videomind quickstart video_chatgpt [--fresh]          the other model family

Finished steps are skipped; a step that was killed goes on. `bash scripts/quickstart.sh` installs what it
needs first.
"""

import argparse
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from videomind.environment import drop_ranks
from videomind.logger import run_command
from videomind.quickstart.agent import BUDGET, AgentQuickstart, Lengths
from videomind.quickstart.chat import LENGTH, ChatQuickstart
from videomind.quickstart.screen import Screen, pace_here
from videomind.quickstart.settings import Site, site_of
from videomind.quickstart.steps import LOGS, StepFailed, Workflow
from videomind.runs.launch import missing_for_deepspeed

log = logging.getLogger(__name__)

AGENT, CHAT = "agent", "video_chatgpt"
LENGTHS = {"steps": "grounder", "verifier_steps": "verifier", "planner_steps": "planner"}  # option -> role
AFTER_GROUNDER = """
Picture of moments found:       {work}/picture.png
Figures:                        {work}/results.json
QVHighlights' official metrics: {work}/after/qvhighlights/valid/metrics.log"""
AFTER_CHAIN = """
TC: what the floor is like during an event. DO: whether something is seen at all, which needs no moment; so
the planner answers it at once. Acc@GQA counts a right answer only with a moment (IoP >= 0.5).
Picture of what each role did:  {work}/chain.png
Figures:                        {work}/answers.json"""
NEXT = """
Try next
  When does it happen? (Any video of yours instead of this one; --query says what to look for.)
    {videomind} infer --model_gnd_path {quoted}/grounder --pred_path {quoted}/try {budget} \\
      --video {video} --query "a red ball"
"""
NEXT_QUESTION = """\
  A question, answered by all roles:
    {videomind} infer --model_gnd_path {quoted}/agent --pred_path {quoted}/try_agent {budget} \\
      --video {asked} --question "what is the floor while the red ball spins?" \\
      --options white black orange pink brown
"""
NEXT_CURVES = """\
  How the training went:
    tensorboard --logdir {quoted}/grounder/tensorboard
Then train on real data: docs/DATA.md says how it is laid out, docs/TRAIN.md how a role is trained."""
AFTER_CHAT = """
Half of the questions are about the colour of a thing (one of 6), half about the floor (one of 5); who
guesses is right in 18 of 100.
Figures: {work}/results.json      Answers: {work}/after/answers.json
Checkpoint: {work}/video_chatgpt      Curves: tensorboard --logdir {quoted}/video_chatgpt/tensorboard

Next: ask the model about a video,
  {videomind} {ask} \\
      --model-name {quoted}/video_chatgpt --video_path {video} --question "What colour is the object?"
then read docs/TRAIN.md to train on VideoInstruct-100K."""


def build_parser() -> argparse.ArgumentParser:
    """Make the options of `videomind quickstart`; lengths may come from the environment as well."""
    parser = argparse.ArgumentParser(
        prog="videomind quickstart",
        description=(__doc__ or "").splitlines()[0],
        usage="bash scripts/quickstart.sh [video_chatgpt] [--fresh] [--grounder-only] [--from-scratch]",
    )
    parser.add_argument("family", nargs="?", choices=(AGENT, CHAT), default=AGENT, help="what is trained")
    parser.add_argument(
        "--fresh", action="store_true", help="start over; otherwise finished steps are skipped"
    )
    parser.add_argument("--grounder-only", action="store_true", help="the short run, without the other roles")
    parser.add_argument(
        "--from-scratch",
        action="store_true",
        help="make the tiny base as well, instead of taking the shipped one",
    )
    parser.add_argument("--seed", type=int, help="of the trainings, for runs to compare")
    parser.add_argument("--dir", help="where everything goes (QUICKSTART_DIR; default below work_dirs/)")
    for name, role in LENGTHS.items():
        value = os.environ.get(f"QUICKSTART_{name.upper()}")
        parser.add_argument(f"--{name}", type=_count, default=value, help=f"optimizer steps of the {role}")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def workflow_folder(args: argparse.Namespace) -> Path:
    """Say where a quickstart's files go."""
    names = {AGENT: "quickstart_grounder" if args.grounder_only else "quickstart", CHAT: f"quickstart_{CHAT}"}
    folder = Path(args.dir or os.environ.get("QUICKSTART_DIR") or Path("work_dirs") / names[args.family])
    folder = folder.expanduser()
    return folder.absolute() if str(folder).startswith("-") else folder  # which would be an option


def clear(folder: Path) -> None:
    """Start over: remove a quickstart's folder.

    Raises:
        ValueError: it is not a quickstart's.
    """
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "steps").is_dir():
            raise ValueError(
                f"{folder} is not the folder of a quickstart (it holds no steps/): not removed (--fresh)"
            )
        shutil.rmtree(folder)


def run_agent(site: Site, args: argparse.Namespace) -> None:
    """Run the agent's quickstart."""
    problem, on_cpu = missing_for_deepspeed(site.device.kind), site.device.kind == "cpu"
    if problem:
        site.say(f"{problem}: training with plain DDP instead.")
    quickstart = AgentQuickstart(
        site=site,
        lengths=Lengths(**{r: length for name, r in LENGTHS.items() if (length := getattr(args, name))}),
        has_chain=not args.grounder_only,
        deepspeed="none" if problem else "zero2",
        from_scratch=args.from_scratch,
        seed=args.seed,
    )
    workflow = Workflow(folder=site.folder, steps=quickstart.steps(), screen=screen_of(site))
    compiler = Compiler(site.folder)
    needs_compiler = on_cpu and not problem

    def wait() -> None:
        if not compiler.wait():
            site.say(f"DeepSpeed could not be compiled ({compiler.log}): training with plain DDP instead.")
            quickstart.leave_deepspeed(workflow.steps)

    workflow.run(before={"untrained": compiler.start, "grounder": wait} if needs_compiler else None)
    show(site, "results.txt")
    named = words(site)
    named["video"] = shlex.quote(str(max((site.folder / "data/charades_sta").rglob("*.mp4"))))
    site.say(AFTER_GROUNDER.format(**named))
    parts = [NEXT, NEXT_CURVES]
    if quickstart.has_chain:
        show(site, "answers.txt")
        site.say(AFTER_CHAIN.format(**named))
        named["asked"] = shlex.quote(str(min((site.folder / "data/nextqa/videos").iterdir())))
        parts.insert(1, NEXT_QUESTION)
    site.say("".join(parts).format(**named))
    workflow.screen.finish()


def run_chat(site: Site, args: argparse.Namespace) -> None:
    """Run Video-ChatGPT's quickstart."""
    quickstart = ChatQuickstart(site=site, length=args.steps or LENGTH)
    workflow = Workflow(folder=site.folder, steps=quickstart.steps(), screen=screen_of(site))
    workflow.run()
    show(site, "results.txt")
    video = shlex.quote(str(max((site.folder / "data/video_chatgpt/test_videos").glob("*.mp4"))))
    site.say(AFTER_CHAT.format(**words(site), video=video, ask=shlex.join(quickstart.ask())))
    workflow.screen.finish()


def screen_of(site: Site) -> Screen:
    """Make the screen of a quickstart; it rewrites a line only on a terminal."""
    site.say(f"Everything goes to {site.folder}, what the steps say to {site.folder / LOGS}.")
    return Screen(say=site.say, rewrite=rewrite if sys.stdout.isatty() else None, pace=pace_here())


def rewrite(text: str) -> None:
    """Write a text over the one before on a terminal's last line."""
    width = shutil.get_terminal_size().columns - 1
    sys.stdout.write(f"\r\x1b[K{text[:width]}")
    sys.stdout.flush()


def words(site: Site) -> dict[str, str]:
    """Name what the closing texts speak of."""
    return {
        "work": str(site.folder),
        "quoted": shlex.quote(str(site.folder)),
        "videomind": shlex.join([sys.executable, "-m", "videomind.cli"]),
        "budget": " ".join(BUDGET),
    }


def show(site: Site, name: str) -> None:
    """Say what a step has written."""
    site.say((site.folder / name).read_text(encoding="utf-8").rstrip())


class Compiler:
    """Lets DeepSpeed compile its CPU communication, which it does once, beside a step of a single process."""

    def __init__(self, folder: Path):
        self.log = folder / LOGS / "compile.log"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Begin, in a process beside the others."""
        code = "from deepspeed.comm.torch import build_shm_op; build_shm_op()"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as log_file:
            argv = [sys.executable, "-c", code]
            self.process = subprocess.Popen(argv, stdout=log_file, stderr=subprocess.STDOUT)

    def wait(self) -> bool:
        """Wait for the end. Returns whether it worked."""
        if self.process is None:
            self.start()
        return self.process.wait() == 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run `videomind quickstart`.

    Returns:
        0, 2 for arguments that cannot be used, or the exit code of a step that failed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what it started ends as well
    drop_ranks(os.environ)  # of another launcher: the steps start processes themselves
    return run_command(lambda: build_parser().parse_args(argv), run)


def run(args: argparse.Namespace) -> int:
    """Run what the command line names.

    Returns:
        0, the exit code of a step that failed, or 130 after an interrupt.

    Raises:
        ValueError: arguments cannot be used.
    """
    if args.family == CHAT and (args.grounder_only or args.from_scratch or args.seed is not None):
        raise ValueError(
            "--grounder-only, --from-scratch and --seed are for the agent, not for video_chatgpt"
        )
    folder = workflow_folder(args)
    run_family: Callable[[Site, argparse.Namespace], None] = run_chat if args.family == CHAT else run_agent
    try:
        if args.fresh:
            clear(folder)
        folder.mkdir(parents=True, exist_ok=True)
        site = site_of(folder, lambda text: print(text, flush=True))  # noqa: T201 - the command's report
        site.prepare_environment()
        run_family(site, args)
    except StepFailed as error:
        log.error("%s", error)
        return error.code if error.code > 0 else 1
    except KeyboardInterrupt:
        log.error("Stopped. The same command goes on from here.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
