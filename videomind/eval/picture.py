"""A picture of predictions: a film strip per video, the true moments and what was found below it.

`python -m videomind.eval.picture OUT.png untrained=PATH trained=PATH` (folders of predictions). Of a single
run that answers questions, what every role did is drawn: plan, candidates with their verdicts, answer.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from videomind.eval.metrics import check_ans, option_letters
from videomind.eval.records import labelled_runs
from videomind.files import labelled_paths
from videomind.logger import run_command
from videomind.prediction import Prediction
from videomind.roles import VisualBudget, VisualUnits
from videomind.video.request import Excerpt

log = logging.getLogger(__name__)

FRAME, FRAMES, LABEL, BAR = 76, 10, 76, 15  # pixels, but for the number of frames
SHOWN = 110  # characters of a reason that there is room for
TRUE, FOUND, BACK = (70, 150, 80), (200, 90, 40), (235, 235, 235)
PASSED_OVER = (235, 195, 170)  # candidates that were not chosen
CANDIDATES = 5  # that are drawn
# From the size of a frame in the strip to twice its area.
_UNITS = VisualUnits(token_side=FRAME // 4, frames_per_step=1)
_BUDGET = VisualBudget(min_tokens=16, max_tokens=32, max_frames=FRAMES, fps=1.0, units=_UNITS)


def film_strip(path: str) -> Image.Image:
    """Draw evenly spread frames of a video side by side."""
    from videomind.video.excerpts import read_excerpt

    frames = read_excerpt(Excerpt(path=path, budget=_BUDGET, num_frames=FRAMES)).frames
    strip = Image.new("RGB", (FRAME * FRAMES, FRAME), "white")
    for i, frame in enumerate(np.moveaxis(frames.numpy(), 1, -1)):
        strip.paste(Image.fromarray(frame).resize((FRAME - 2, FRAME)), (i * FRAME, 0))
    return strip


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line below a film strip: moments on a bar, words, or both.

    Attributes:
        label: to the left of it.
        spans: moments [start, end], s; None where there is no bar.
        colour: of the moments.
        text: on the bar beside its moments, or alone.
    """

    label: str
    spans: Sequence[Sequence[float]] | None = None
    colour: tuple[int, int, int] = FOUND
    text: str = ""


def draw_sample(sample: Mapping[str, Any], rows: Sequence[Row]) -> Image.Image:
    """Draw a sample: what is asked, the film strip, and rows below it."""
    from videomind.video.reader import BadVideoError

    image = Image.new("RGB", (LABEL + FRAME * FRAMES, FRAME + 24 + (BAR + 4) * len(rows) + 14), "white")
    draw = ImageDraw.Draw(image)
    asked = sample.get("query") or sample.get("question") or ""
    draw.text((LABEL, 4), f"“{asked}”", fill="black")
    try:
        image.paste(film_strip(sample["video_path"]), (LABEL, 22))
    except BadVideoError as error:  # its predictions failed for the same reason
        log.warning("A strip is left empty: %s", error)
        draw.text((LABEL + 4, 22 + FRAME // 2), str(error)[-SHOWN:], fill="black")
    ends = [end for row in rows for _, end in row.spans or ()]
    scale = FRAME * FRAMES / (sample.get("duration") or max(ends, default=1.0))
    for i, row in enumerate(rows):
        top = FRAME + 26 + i * (BAR + 4)
        draw.text((4, top), row.label, fill="black")
        if row.spans is not None:
            draw.rectangle((LABEL, top, image.width - 3, top + BAR), fill=BACK)
        moments = [(LABEL + start * scale, LABEL + end * scale) for start, end in row.spans or ()]
        for left, right in moments:
            draw.rectangle((left, top, right, top + BAR), fill=row.colour)
        text = row.text[:SHOWN]
        draw.text((beside(moments, draw.textlength(text), image.width), top + 2), text, fill="black")
    return image


def beside(moments: Sequence[tuple[float, float]], width: float, right: float) -> float:
    """Place words beside what is drawn on a bar, behind it where they have room and else before it.

    Args:
        moments: their left and right ends, px.
        width: of the words, px.
        right: end of the bar, px.
    """
    if not moments:
        return LABEL + 4
    behind = max(end for _, end in moments) + 4
    before = min(start for start, _ in moments) - width - 4
    return behind if behind + width < right or before < LABEL else before


def draw_prediction(predictions: Mapping[str, Prediction]) -> Image.Image:
    """Draw one sample: query, strip, true moments, and the best window of every run.

    Args:
        predictions: the same sample's of each run by label.
    """
    sample = next(iter(predictions.values())).annotation
    rows = [Row(label="true", spans=sample.get("span") or [], colour=TRUE)]
    rows += [Row(label=label, spans=(run.pred or [])[:1]) for label, run in predictions.items()]
    return draw_sample(sample, rows)


def draw_chain(prediction: Prediction) -> Image.Image:
    """Draw what every role did for one question: plan, candidates with their verdicts, answer."""
    sample, rows = prediction.annotation, []
    if prediction.planner_response is not None:
        rows.append(Row(label="planner", text=prediction.planner_response))
    rows.append(Row(label="true", spans=sample.get("span") or [], colour=TRUE))
    proposed = (prediction.pred_ori or prediction.pred or [])[:CANDIDATES]
    scores, verdicts = prediction.conf_ori or prediction.conf or [], prediction.probs or []
    for i, (span, score) in enumerate(zip(proposed, scores, strict=False)):
        words = f"grounder {score:.2f}" + (f", verifier {verdicts[i]:.2f}" if i < len(verdicts) else "")
        is_chosen = span == (prediction.pred or [None])[0]
        colour = FOUND if is_chosen else PASSED_OVER
        label = f"{i + 1}. chosen" if is_chosen else f"{i + 1}."
        rows.append(Row(label=label, spans=[span], colour=colour, text=words))
    if prediction.response is not None:
        rows.append(Row(label="answer", text=_answer(prediction)))
    return draw_sample(sample, rows)


def _answer(prediction: Prediction) -> str:
    """Write the answer, and whether it is right."""
    said, sample = prediction.response, prediction.annotation
    options, letter = sample.get("options"), sample.get("ans")
    if not options or letter is None:
        return said
    letters = option_letters(len(options))
    is_right = check_ans(said, num_options=len(options), ans=letter)
    true = options[letters.index(letter.lower())] if letter.lower() in letters else sample.get("answer")
    return f"{said} (right: {true})" if is_right else f"{said} (wrong: it is {letter}, {true})"


def draw_sample_of(predictions: Mapping[str, Prediction]) -> Image.Image:
    """Draw one sample of some runs: side by side, or what all roles of a single one did."""
    only = next(iter(predictions.values()))
    has_answer = len(predictions) == 1 and only.response is not None
    return draw_chain(only) if has_answer else draw_prediction(predictions)


def chosen_samples(count: int, number: int) -> range:
    """Choose the samples of a data set that are drawn: some, spread over all of them."""
    return range(0, count, max(count // number, 1))[:number]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="videomind picture", description=__doc__)
    parser.add_argument("out", help="PNG to write")
    parser.add_argument("runs", nargs="+", metavar="LABEL=PATH")
    parser.add_argument("--samples", type=int, default=2, help="per data set")
    return run_command(lambda: parser.parse_args(argv), draw)


def draw(args: argparse.Namespace) -> None:
    """Draw what the command line names."""
    runs_by_dataset = labelled_runs(labelled_paths(args.runs))
    strips = [
        draw_sample_of({label: run.predictions[i] for label, run in runs.items()})
        for runs in runs_by_dataset.values()
        for i in chosen_samples(min(len(run.predictions) for run in runs.values()), args.samples)
    ]
    canvas = Image.new("RGB", (strips[0].width, sum(s.height for s in strips)), "white")
    top = 0
    for strip in strips:
        canvas.paste(strip, (0, top))
        top += strip.height
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    canvas.save(args.out)
    log.info("Wrote %s", args.out)


if __name__ == "__main__":
    sys.exit(main())
