"""The agent's quickstart: grounder, verifier and planner on a tiny Qwen2-VL, alone and as a chain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from videomind.agent.infer import NEXT_RUN
from videomind.quickstart.settings import SCRIPTS, Site
from videomind.quickstart.steps import Command, Step
from videomind.roles import get_role
from videomind.synthetic.shipped import TINY_BASE, folder_digest

PRETRAINED = """\
A real run starts from a pretrained Qwen2-VL. This one was taught to see colours, to read queries and to
answer questions, on training videos and phrasings alone (--from-scratch makes it again)."""
WARMING = """\
A real run starts from a pretrained Qwen2-VL. The tiny one knows nothing, so all its parameters first learn
to see colours and read queries (and to answer questions, for the chain), with the language loss alone, on the
training videos and phrasings. Test videos, phrasings and answers never enter."""
# Sizes for this model on two CPU cores. Everything else is what the recipes do for a real run.
BUDGET = ("--min_tokens_per_frame", "4", "--max_tokens_per_frame", "6")
TRAINING = (
    *("--lora_r", "32", "--lora_alpha", "32", "--lora_dropout", "0"),
    *("--learning_rate", "2e-3", "--warmup_steps", "0.05"),
    *("--gradient_checkpointing", "False", "--dataloader_num_workers", "0"),
    *("--save_steps", "50", "--logging_steps", "10", *BUDGET),
)
TRAINING_HEAD = ("--head_lr", "1e-3", "--loss_sal_weight", "1")
GLOBAL_BATCH = 8
# For a training of no step, which only writes its model.
ALONE = {"NPROC_PER_NODE": "1", "GLOBAL_BATCH": "1", "BATCH_PER_DEVICE": "1", "DEEPSPEED": "none"}
GROUNDING = ("--datasets", "charades_sta,qvhighlights")
QUESTION_VIDEOS = ("--num_question_train", "80", "--num_question_test", "20")
CHAINS = {
    "whole_video": (),
    "grounder": ("gnd",),
    "verifier": ("gnd", "ver"),
    "planner": ("gnd", "ver", "pla"),
}

# Seconds of a training's start and end, and of a step, on the machine of docs/BENCHMARKS.md.
START_S = 16
STEP_S = {"grounder": 0.3, "verifier": 0.14, "planner": 0.14}


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Optimizer steps of each training."""

    grounder: int = 260
    verifier: int = 200
    planner: int = 120


@dataclass(frozen=True, kw_only=True)
class AgentQuickstart:
    """The steps of the agent's quickstart.

    Attributes:
        site: where it runs.
        lengths: of its trainings.
        has_chain: whether the other roles and the chain follow the grounder.
        deepspeed: stage of the trainings, or none.
        from_scratch: whether the tiny base is made here, instead of taking the one that comes with the code.
        seed: of the trainings; None: their own.
    """

    site: Site
    lengths: Lengths
    has_chain: bool
    deepspeed: str
    from_scratch: bool = False
    seed: int | None = None

    def steps(self) -> list[Step]:
        """List all steps in their order."""
        chain = [*self._other_roles(), *self._chains()] if self.has_chain else []
        return [*self._start(), *self._grounder(), *chain]

    def leave_deepspeed(self, steps: Sequence[Step]) -> None:
        """Let the trainings of steps run without DeepSpeed."""
        for command in (command for step in steps for command in step.commands):
            if "DEEPSPEED" in command.environment:
                command.environment["DEEPSPEED"] = "none"

    def _at(self, name: str) -> Path:
        return self.site.folder / name

    def _command(self, *argv: str | Path, output: Path | None = None, **environment: str) -> Command:
        environment = {**self.site.batch(GLOBAL_BATCH), "DEEPSPEED": self.deepspeed} | environment
        return Command(argv=tuple(map(str, argv)), output=output, environment=environment)

    def _start(self) -> Iterator[Step]:
        data = self._at("data")
        questions = QUESTION_VIDEOS if self.has_chain else ()
        sizes = ("--num_train", "200", "--num_valid", "40", "--num_test", "40")
        yield Step(
            name="data",
            title=f"Rendering videos with known moments -> {data}",
            makes=(data,),
            commands=(self._command("videomind", "synthetic", "data", data, *sizes, *questions),),
            expected_s=20 if self.has_chain else 17,
        )
        yield from self._warmed_up() if self.from_scratch else [self._shipped()]

    def _shipped(self) -> Step:
        warm = self._at("base_warm")
        digest = ("--digest", folder_digest(TINY_BASE))
        return Step(
            name="warmup",
            title=f"A tiny Qwen2-VL that comes with the code -> {warm}",
            note=PRETRAINED,
            makes=(warm,),
            commands=(self._command("videomind", "synthetic", "shipped", warm, *digest),),
            expected_s=1,
        )

    def _warmed_up(self) -> Iterator[Step]:
        data, base, warm = self._at("data"), self._at("base"), self._at("base_warm")
        yield Step(
            name="base",
            title=f"Tiny Qwen2-VL with random weights -> {base}",
            makes=(base,),
            commands=(self._command("videomind", "synthetic", "base", base),),
            expected_s=5,
        )
        yield Step(
            name="warmup",
            title=f"Warming the tiny base up -> {warm}",
            note=WARMING,
            needs=("data", "base"),
            makes=(warm,),
            commands=(self._command("videomind", "synthetic", "warmup", base, data, warm),),
            expected_s=150 if self.has_chain else 65,
        )

    def _grounder(self) -> Iterator[Step]:
        untrained, trained = self._at("untrained"), self._at("grounder")
        argv = self._training("grounder", untrained, *GROUNDING, "--num_train_epochs", "0")
        yield Step(
            name="untrained",
            title="Before: the same model untrained",
            needs=("warmup",),
            makes=(untrained / "finished",),
            commands=(self._command(*argv, **ALONE),),
            expected_s=9,
        )
        yield self._evaluation(
            "before", untrained, needs="untrained", title="Before: held-out videos and phrasings"
        )
        yield self._role("grounder", self.lengths.grounder, *GROUNDING)
        yield self._evaluation("after", trained, needs="grounder", title="After")
        runs = [
            f"{label}={self._at(name)}" for label, name in (("untrained", "before"), ("trained", "after"))
        ]
        results, picture = self._at("results.json"), self._at("picture.png")
        yield Step(
            name="results",
            title="Results on held-out videos and phrasings",
            needs=("before", "after"),
            makes=(results, picture),
            commands=(
                self._command(
                    "videomind", "compare", *runs, "--out", results, output=self._at("results.txt")
                ),
                self._command("videomind", "picture", picture, *runs),
            ),
        )

    def _training(self, role: str, out: Path, *arguments: str) -> Sequence[str]:
        start = (
            "--config",
            "common",
            "--model_name_or_path",
            self._at("base_warm"),
            "--data_root",
            self._at("data"),
        )
        frames = ("--cache_frames", self._at("frames"))  # the same few videos, over and over
        rest = ("--role", role, "--output_dir", out, *(TRAINING_HEAD if get_role(role).has_head else ()))
        rest += () if self.seed is None else ("--seed", str(self.seed))
        return ("videomind", "launch", "train", *start, *TRAINING, *frames, *rest, *arguments)

    def _role(
        self, role: str, length: int, *arguments: str | Path, needs: Sequence[str] = ("warmup",)
    ) -> Step:
        out = self._at(role)
        argv = self._training(role, out, *arguments, "--max_steps", str(length))
        return Step(
            name=role,
            title=f"Training the {role} -> {out} (log: {out / 'train.log'})",
            needs=tuple(needs),
            makes=(out / "finished",),
            commands=(self._command(*argv),),
            expected_s=START_S + length * STEP_S[role],
        )

    def _evaluation(self, name: str, model: Path, *, needs: str, title: str) -> Step:
        """Evaluate on both data sets, on videos and phrasings that training never saw."""
        out, data = self._at(name), self._at("data")
        scored = out / "qvhighlights/valid"
        splits = (("charades_sta", "test", out / "charades_sta"), ("qvhighlights", "valid", scored))
        runs = [
            ("--dataset", dataset, "--split", split, "--model_gnd_path", model, "--pred_path", folder)
            for dataset, split, folder in splits
        ]
        truth = ("--qvhighlights_anno", data / "qvhighlights/highlight_val_release.jsonl")
        return Step(
            name=name,
            title=title,
            needs=(needs, "data"),
            makes=(splits[0][2] / "output.jsonl", scored / "metrics.log"),
            commands=(
                self._inference(*runs, max_new_tokens=16),
                self._command(
                    *("videomind", "evaluate", scored, *truth), output=out / "qvhighlights_official.txt"
                ),
            ),
            expected_s=16,
        )

    def _inference(self, *runs: Sequence[str | Path], max_new_tokens: int) -> Command:
        """Predict several splits, or by several chains, in the same processes."""
        common = ("--data_root", self._at("data"), "--max_new_tokens", str(max_new_tokens), *BUDGET)
        parts = [(*run, *common) for run in runs]
        joined = [word for number, part in enumerate(parts) for word in ((NEXT_RUN,) * (number > 0) + part)]
        return self._command("videomind", "launch", "infer", *joined)

    def _other_roles(self) -> Iterator[Step]:
        data, verifying, planning = self._at("data"), self._at("verifying.json"), self._at("planning.jsonl")
        make = ("env", f"DATA_ROOT={data}", "bash", SCRIPTS / "data/make_verifying.sh", self._at("grounder"))
        yield Step(
            name="verifying",
            title=f"Candidates of the grounder on its training videos -> {verifying}",
            needs=("grounder", "data"),
            makes=(verifying,),
            commands=(self._command(*make, "charades_sta", verifying, "--max_new_tokens", "16", *BUDGET),),
            expected_s=23,
        )
        yield self._role(
            "verifier", self.lengths.verifier, "--datasets", verifying, needs=("warmup", "verifying")
        )
        make_plans = ("videomind", "data", "make-planning", "nextqa", "charades_sta:0.5", "--data_root", data)
        yield Step(
            name="planning",
            title=f"How questions are to be answered -> {planning}",
            needs=("data",),
            makes=(planning,),
            commands=(self._command(*make_plans, "--out", planning),),
        )
        yield self._role(
            "planner", self.lengths.planner, "--datasets", planning, needs=("warmup", "planning")
        )

    def _chains(self) -> Iterator[Step]:
        agent, answers, picture = self._at("agent"), self._at("answers.json"), self._at("chain.png")
        roles = ("grounder", "verifier", "planner")
        yield Step(
            name="agent",
            title=f"The roles as one agent -> {agent}",
            needs=roles,
            makes=(agent,),
            commands=(self._command("videomind", "combine", agent, *(f"{r}={self._at(r)}" for r in roles)),),
            expected_s=5,
        )
        folders = [self._at(f"chain_{name}") for name in CHAINS]
        yield Step(
            name="chains",
            title=f"Questions, by {', '.join(name.replace('_', ' ') for name in CHAINS)}",
            needs=("agent", "data", "warmup"),
            makes=tuple(folder / "output.jsonl" for folder in folders),
            commands=(
                self._inference(
                    *(self._chain(*chain) for chain in zip(CHAINS.values(), folders, strict=True)),
                    max_new_tokens=80,
                ),
            ),
            expected_s=50,
        )
        labels = ("whole video", "grounder", "+ verifier", "+ planner")
        runs = [f"{label}={folder}" for label, folder in zip(labels, folders, strict=True)]
        compare = ("videomind", "compare", "--questions", "--out", answers, *runs)
        yield Step(
            name="answers",
            title="Questions about held-out videos",
            needs=("chains",),
            makes=(answers, picture),
            commands=(
                self._command(*compare, output=self._at("answers.txt")),
                self._command("videomind", "picture", picture, f"chain={folders[-1]}", "--samples", "3"),
            ),
        )

    def _chain(self, parts: Sequence[str], out: Path) -> Sequence[str | Path]:
        """Ask the test questions, by a chain of some roles."""
        base = ("--base_model_path", self._at("base_warm"))
        roles = [word for part in parts for word in (f"--model_{part}_path", self._at("agent"))]
        plans = ("--auto_planning",) if "pla" in parts else ()
        return ("--dataset", "nextgqa", "--split", "test", "--pred_path", out, *base, *roles, *plans)
