"""Synthetic instructions on disk: those of Video-ChatGPT for training, zero-shot questions for evaluation.

    <root>/video_chatgpt/instructions.json          # rows of q, a, video_id, as VideoInstruct
    <root>/video_chatgpt/videos/{vid}.mp4
    <root>/video_chatgpt/test_q.json                # rows of video_name, question, question_id
    <root>/video_chatgpt/test_a.json                # rows of answer, question_id
    <root>/video_chatgpt/test_videos/{vid}.mp4

A video shows one thing on one floor; half of the questions are about the colour of the one, half about the
other. The splits differ in videos and in phrasing.
"""

import random
from pathlib import Path

from videomind.files import write_json
from videomind.synthetic.phrases import COLOURS, FLOORS, INSTRUCTIONS, corpus, question
from videomind.synthetic.scenes import Scene

VIDEO_FOLDERS = {"train": "videos", "test": "test_videos"}
PER_VIDEO = {"train": 2, "test": 1}  # questions of each kind


def pairs_of(scene: Scene, split: str, rng: random.Random) -> list[tuple[str, str]]:
    """Ask about a video: questions, each with its answer."""
    (event,) = scene.events
    about = {"colour": event.colour, "shape": event.shape, "action": event.action}
    answers = {"colour": event.colour, "floor": event.floor}
    return [
        (_asked(question(rng, kind=kind, split=split, **about)), _told(kind, answers[kind]))
        for _ in range(PER_VIDEO[split])
        for kind in INSTRUCTIONS
    ]


def _asked(text: str) -> str:
    return f"{text.capitalize()}?"


def _told(kind: str, name: str) -> str:
    return {"colour": "It is {}.", "floor": "The floor is {}."}[kind].format(name)


def write_instructions(folder: Path, splits: dict[str, list[Scene]], seed: str) -> None:
    """Write the training rows and the two files of zero-shot questions."""
    rng = random.Random(f"{seed}/instructions")
    rows = [
        {"q": q, "a": a, "video_id": scene.vid}
        for scene in splits["train"]
        for q, a in pairs_of(scene, "train", rng)
    ]
    rng.shuffle(rows)  # in every second row the video comes first, which must not tell the kind of question
    write_json(folder / "instructions.json", rows)
    questions, answers = [], []
    for scene in splits["test"]:
        for number, (q, a) in enumerate(pairs_of(scene, "test", rng)):
            name = f"{scene.vid}_{number}"
            questions.append({"video_name": scene.vid, "question": q, "question_id": name})
            answers.append({"answer": a, "question_id": name})
    write_json(folder / "test_q.json", questions)
    write_json(folder / "test_a.json", answers)


def instruction_texts() -> list[str]:
    """List what training questions and answers can be, in a fixed order: what a tokenizer is trained on."""
    questions = [_asked(text) for templates in INSTRUCTIONS.values() for text in corpus("train", templates)]
    answers = [_told("colour", name) for name in COLOURS] + [_told("floor", name) for name in FLOORS]
    return questions + answers * 20
