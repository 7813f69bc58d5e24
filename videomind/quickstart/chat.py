"""Video-ChatGPT's quickstart: features, conversations, training and answers with tiny models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from videomind.quickstart.settings import Site
from videomind.quickstart.steps import Command, Step

TRAINING_NOTE = """\
A real run starts from LLaVA and trains the projector alone (--tune_mm_mlp_adapter True). The tiny Llama knows
nothing, so here all parameters train. Videos and phrasings of the test never enter."""
# Sizes for this model on two CPU cores; everything else is the recipe's.
TRAINING = (
    *("--tune_mm_mlp_adapter", "False", "--learning_rate", "3e-3"),
    *("--bf16", "False", "--tf32", "False", "--gradient_checkpointing", "False"),
    *(
        "--dataloader_num_workers",
        "0",
        "--save_steps",
        "50",
        "--save_total_limit",
        "1",
        "--logging_steps",
        "10",
    ),
)
GLOBAL_BATCH = 32
LENGTH = 125  # optimizer steps


@dataclass(frozen=True, kw_only=True)
class ChatQuickstart:
    """The steps of Video-ChatGPT's quickstart.

    Attributes:
        site: where it runs.
        length: optimizer steps of the training.
    """

    site: Site
    length: int

    def steps(self) -> list[Step]:
        """List all steps in their order."""
        return [*self._start(), *self._training()]

    def _at(self, name: str) -> Path:
        return self.site.folder / name

    def _command(self, *argv: str | Path, output: Path | None = None) -> Command:
        batch = self.site.batch(GLOBAL_BATCH)
        return Command(argv=tuple(map(str, argv)), output=output, environment=batch)

    def ask(self) -> Sequence[str]:
        """Write the command that asks a model, without the model and the questions."""
        tower = str(self._at("base") / "clip")
        return ("chat", "--vision_tower", tower, "--conv-mode", "vicuna_v1_1", "--temperature", "0")

    def _start(self) -> Iterator[Step]:
        data, base, features = self._at("data"), self._at("base"), self._at("features")
        conversations, told = self._at("training.json"), data / "video_chatgpt"
        render = ("videomind", "synthetic", "instructions", data, "--num_train", "200", "--num_test", "60")
        yield Step(
            name="data",
            title=f"Rendering videos with questions and answers -> {told}",
            makes=(told,),
            commands=(self._command(*render),),
            expected_s=2,
        )
        yield Step(
            name="base",
            title=f"Tiny CLIP and tiny Llama with random weights -> {base}",
            makes=(base,),
            commands=(self._command("videomind", "synthetic", "chat_base", base),),
            expected_s=6,
        )
        extract = ("videomind", "features", "--video_dir_path", told / "videos", "--clip_feat_path", features)
        yield Step(
            name="features",
            title=f"Features of the training videos -> {features}",
            needs=("data", "base"),
            makes=(features,),
            commands=(self._command(*extract, "--vision_tower", base / "clip"),),
            expected_s=8,
        )
        convert = ("videomind", "convert", "--input_json_file", told / "instructions.json")
        yield Step(
            name="conversations",
            title=f"Instructions as conversations -> {conversations}",
            needs=("data", "features"),
            makes=(conversations,),
            commands=(
                self._command(*convert, "--output_json_file", conversations, "--clip_feature_path", features),
            ),
            expected_s=1,
        )

    def _training(self) -> Iterator[Step]:
        untrained, trained = self._at("untrained"), self._at("video_chatgpt")
        needs, results = ("base", "features", "conversations"), self._at("results.json")
        yield Step(
            name="untrained",
            title="Before: the same model untrained",
            needs=needs,
            makes=(untrained / "finished",),
            commands=(self._command(*self._train(untrained, "--num_train_epochs", "0")),),
            expected_s=8,
        )
        yield self._answers(
            "before", untrained, needs="untrained", title="Before: questions about held-out videos"
        )
        yield Step(
            name="training",
            title=f"Training -> {trained} (log: {trained / 'train.log'})",
            note=TRAINING_NOTE,
            needs=needs,
            makes=(trained / "finished",),
            commands=(self._command(*self._train(trained, "--max_steps", str(self.length))),),
            expected_s=24,
        )
        yield self._answers("after", trained, needs="training", title="After")
        judged = [f"{label}={self._at(name) / 'judged.metrics.json'}" for label, name in RUNS.items()]
        compare = ("videomind", "compare", "--judged", *judged, "--out", results)
        yield Step(
            name="results",
            title="Results on held-out videos and phrasings (the same words as the true answer, or wrong)",
            needs=("before", "after"),
            makes=(results,),
            commands=(self._command(*compare, output=self._at("results.txt")),),
            expected_s=1,
        )

    def _train(self, out: Path, *arguments: str) -> Sequence[str | Path]:
        start = ("--config", "train_video_chatgpt", "--model_name_or_path", self._at("base") / "llama")
        data = ("--data_path", self._at("training.json"), "--video_folder", self._at("features"))
        return (
            "videomind",
            "launch",
            "train-chat",
            *start,
            *data,
            *TRAINING,
            "--output_dir",
            out,
            *arguments,
        )

    def _answers(self, name: str, model: Path, *, needs: str, title: str) -> Step:
        """Ask about held-out videos in held-out words, and judge whether the answers are right."""
        out, told = self._at(name), self._at("data") / "video_chatgpt"
        ask = ("videomind", *self.ask(), "--model-name", model, "--video_dir", told / "test_videos")
        ask += (
            "--max_new_tokens",
            "16",
            "--batch_size",
            "20",
            "--output_dir",
            out,
            "--output_name",
            "answers",
        )
        ask += ("--gt_file_question", told / "test_q.json", "--gt_file_answers", told / "test_a.json")
        judge = ("videomind", "judge", "--criterion", "zero_shot_qa", "--judge", "exact")
        judge += ("--pred_path", out / "answers.json", "--output_dir", out / "replies")
        return Step(
            name=name,
            title=title,
            needs=(needs, "data", "base"),
            makes=(out / "answers.json", out / "judged.metrics.json"),
            commands=(
                self._command(*ask),
                self._command(*judge, "--output_json", out / "judged.json", output=out / "judged.txt"),
            ),
            expected_s=8,
        )


RUNS = {"untrained": "before", "trained": "after"}
