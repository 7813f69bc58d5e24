"""MVBench (Li et al., arXiv 2311.17005): test, one file per task.

A row: `{"video": "a.mp4", "question": "What?", "candidates": ["x", "y"], "answer": "y"}`; the task
Episodic Reasoning has a folder of frames as its video.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation, as_list, as_text
from videomind.dataset.views import Answering
from videomind.roles import VisualBudget

NUM_FRAMES = 32
_FRAME_FOLDER = "tvqa/frames_fps3_hq"
_FOLDERS = {  # of every task, in the order of published results
    "Episodic Reasoning": _FRAME_FOLDER,
    "Action Sequence": "star/Charades_v1_480",
    "Action Prediction": "star/Charades_v1_480",
    "Action Antonym": "ssv2_video",
    "Fine-grained Action": "Moments_in_Time_Raw/videos",
    "Unexpected Action": "FunQA_test/test",
    "Object Existence": "clevrer/video_validation",
    "Object Interaction": "star/Charades_v1_480",
    "Object Shuffle": "perception/videos",
    "Moving Direction": "clevrer/video_validation",
    "Action Localization": "sta/sta_video",
    "Scene Transition": "scene_qa/video",
    "Action Count": "perception/videos",
    "Moving Count": "clevrer/video_validation",
    "Moving Attribute": "clevrer/video_validation",
    "State Change": "perception/videos",
    "Fine-grained Pose": "nturgbd",
    "Character Order": "perception/videos",
    "Egocentric Navigation": "vlnqa",
    "Counterfactual Inference": "clevrer/video_validation",
}
_FILES = {task: task.lower().replace(" ", "_").replace("-", "_") for task in _FOLDERS}


class MVBench(Source):
    """Twenty tasks on short videos."""

    names = {"mvbench": Answering}
    only_evaluates = True
    splits = {"test": tuple(f"mvbench/json/{name}.json" for name in _FILES.values())}
    video_root = "mvbench/video"
    video_name = "{vid}"
    min_ratio = 0.9
    answer_budget = VisualBudget(min_tokens=128, max_tokens=256, max_frames=64, fps=2.0)

    def rows(self, path: Path, split: str) -> Iterator[dict[str, Any]]:
        """Read the rows, each with its task."""
        (task,) = (task for task, name in _FILES.items() if name == path.stem)
        for row in super().rows(path, split):
            yield {**row, "task": task}

    def video_path(self, vid: str) -> str | list[str]:
        """Name a file, or the frames of a folder; without any the folder, which no reader takes."""
        path = super().video_path(vid)
        if not vid.startswith(_FRAME_FOLDER) or not os.path.isdir(path):
            return path
        frames = frame_numbers(sum(1 for _ in Path(path).glob("*.jpg")))
        return [f"{path}/{number:05d}.jpg" for number in frames] or path

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        vid = f"{_FOLDERS[row['task']]}/{as_text(row['video'])}"
        return self.asked(vid, row["question"], as_list(row["candidates"]), row["answer"], task=row["task"])


def frame_numbers(num_frames: int) -> list[int]:
    """Choose the frames, counted from 1, that stand for a folder, as published scores were made.

    Every (n // 31)th, at most 32, so that the tail can be missing; all of them below 31 frames.
    """
    return list(range(1, num_frames + 1, max(num_frames // (NUM_FRAMES - 1), 1)))[:NUM_FRAMES]
