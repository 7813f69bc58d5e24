"""A picture of predictions: a film strip per video, the true moments and what was found below it.

`python -m videomind.eval.picture OUT.png untrained=PATH trained=PATH` (folders of predictions).
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

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


def draw_prediction(predictions: dict[str, Prediction]) -> Image.Image:
    """Draw one sample: query, strip, true moments, and the best window of every run.

    Args:
        predictions: the same sample's of each run by label.
    """
    from videomind.video.reader import BadVideoError

    sample = next(iter(predictions.values())).annotation
    rows = [("true", sample.get("span") or [], TRUE)]
    rows += [(label, (prediction.pred or [])[:1], FOUND) for label, prediction in predictions.items()]
    image = Image.new("RGB", (LABEL + FRAME * FRAMES, FRAME + 24 + (BAR + 4) * len(rows) + 14), "white")
    draw = ImageDraw.Draw(image)
    asked = sample.get("query") or sample.get("question") or ""
    draw.text((LABEL, 4), f"“{asked}”", fill="black")
    try:
        image.paste(film_strip(sample["video_path"]), (LABEL, 22))
    except BadVideoError as error:  # its predictions failed for the same reason
        log.warning("A strip is left empty: %s", error)
        draw.text((LABEL + 4, 22 + FRAME // 2), str(error)[-SHOWN:], fill="black")
    ends = [end for _, spans, _ in rows for _, end in spans]
    scale = FRAME * FRAMES / (sample.get("duration") or max(ends, default=1.0))
    for i, (label, spans, colour) in enumerate(rows):
        top = FRAME + 26 + i * (BAR + 4)
        draw.text((4, top), label, fill="black")
        draw.rectangle((LABEL, top, image.width - 3, top + BAR), fill=BACK)
        for start, end in spans:
            draw.rectangle((LABEL + start * scale, top, LABEL + end * scale, top + BAR), fill=colour)
    return image


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
        draw_prediction({label: run.predictions[i] for label, run in runs.items()})
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
