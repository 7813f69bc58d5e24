"""QaEgo4D (Baermann and Waibel, CVPR Workshops 2022): train, valid, test.

A row: `{"video_id": "v1", "moment_start_frame": 30, "moment_end_frame": 90, "question": "where is cup",
"answer": "sink", "wrong_answers": ["bed", "car", "box"]}`, or with `"options"` that hold the answer too.
"""

from typing import Any

from videomind.dataset.base import DroppedRow, Source
from videomind.dataset.phrases import capitalize
from videomind.dataset.schema import Annotation, as_list, as_text
from videomind.dataset.views import Answering, AnsweringCrop, Grounding

FPS = 30
NUM_OPTIONS = 4


class QaEgo4D(Source):
    """Questions about egocentric videos with the moment that answers them."""

    names = {"qa_ego4d": Answering, "qa_ego4d_crop": AnsweringCrop, "qa_ego4d_grounding": Grounding}
    splits = {
        "train": "qa_ego4d/annotations.QaEgo4D_train.json",
        "valid": "qa_ego4d/annotations.QaEgo4D_val_options.json",
        "test": "qa_ego4d/annotations.QaEgo4D_test_options.json",
    }
    video_root = "ego4d/v1/videos_3fps_480_noaudio"
    durations = "ego4d/v1/durations.json"
    draws_as = "videomind.dataset.sub_classes.qa_ego4d"

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        vid, question, answer = row["video_id"], as_text(row["question"]), as_text(row["answer"])
        duration = self.duration(vid)
        if split == "train" and duration is not None and not 10 <= duration <= 600:
            raise DroppedRow("video shorter than 10 s or longer than 600 s")
        right, options = None, list(as_list(row.get("options") or row["wrong_answers"]))
        if not row.get("options"):
            right = self.rng(vid, question).randrange(NUM_OPTIONS)
            options.insert(right, answer)
        if len(options) != NUM_OPTIONS:
            raise ValueError(f"{len(options)} options, expected {NUM_OPTIONS}")
        span = [round(row[name] / FPS, 3) for name in ("moment_start_frame", "moment_end_frame")]
        return self.asked(vid, capitalize(question), options, answer, right=right, capital=True, span=[span])
