"""What happens in a synthetic video: drawn from a seed; `render_scene` turns it into pixels.

Events never overlap. In a Charades-like scene each event is a moment of its own colour; in a
QVHighlights-like scene an event may come back, on the 2-s grid of that data set.
"""

import random
import string
from dataclasses import dataclass
from fractions import Fraction

from videomind.synthetic.phrases import ACTIONS, COLOURS, FLOORS, SHAPES

NTSC = Fraction(30000, 1001)
# Most videos are cheap to decode; every split of three or more holds all three rates.
_RATES = (Fraction(3), Fraction(25), NTSC) + (Fraction(3),) * 21
# Width x height, px: even, as H.264 asks, but off the grid of 28; some portrait, a few wide.
_SIZES = ((100, 100), (104, 82), (116, 86), (82, 106), (112, 90), (94, 112), (90, 90), (130, 74))
QVH_GRID_S = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One thing that can be asked for.

    Attributes:
        spans: [start, end] in s, when it is visible.
        colour: a key of COLOURS.
        shape: one of SHAPES.
        action: a key of ACTIONS.
        floor: a key of FLOORS, which is there meanwhile, if any.
    """

    spans: tuple[tuple[float, float], ...]
    colour: str
    shape: str
    action: str
    floor: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One video to render.

    Attributes:
        vid: its name.
        rate: frames per second.
        num_frames: of the video.
        width: px.
        height: px.
        seed: of all that decorates.
        events: not ordered by time.
    """

    vid: str
    rate: Fraction
    num_frames: int
    width: int
    height: int
    seed: int
    events: tuple[Event, ...]

    @property
    def duration_s(self) -> float:
        """Length of the video, s."""
        return float(self.num_frames / self.rate)


def _place(rng: random.Random, lengths: list[int], total: int, gap: int) -> list[int]:
    """Put intervals in random free places, in the order given and at least `gap` apart (any unit).

    Returns:
        Their starts.
    """
    slack = total - sum(lengths) - gap * (len(lengths) - 1)
    if slack < 0:
        raise ValueError(f"Intervals of {lengths} with gaps of {gap} do not fit into {total}")
    cuts = sorted(rng.randint(0, slack) for _ in lengths)
    return [cut + sum(lengths[:i]) + gap * i for i, cut in enumerate(cuts)]


def _name(rng: random.Random, colour: str) -> dict[str, str]:
    """Draw the names of an event of a colour."""
    return {"colour": colour, "shape": rng.choice(SHAPES), "action": rng.choice(list(ACTIONS))}


def charades_scene(rng: random.Random, index: int) -> Scene:
    """Draw a Charades-like video of 20-50 s: 2-4 events of distinct colours, each seen once.

    Args:
        rng: draws.
        index: within its split, which decides the frame rate.
    """
    rate = _RATES[index % len(_RATES)]
    num_frames = round(rng.uniform(20, 50 if rate == 3 else 30) * rate)
    tenths = int(num_frames / rate * 10)  # 0.1 s is the unit of Charades-STA
    count = min(rng.randint(2, 4), tenths // 80)
    longest = min(150, tenths * 7 // 10 // count)
    lengths = [rng.randint(min(50, longest), longest) for _ in range(count)]
    starts = _place(rng, lengths, tenths, 15)
    events = tuple(
        Event(spans=((start / 10, (start + length) / 10),), **_name(rng, colour))
        for start, length, colour in zip(starts, lengths, rng.sample(list(COLOURS), count), strict=True)
    )
    width, height = rng.choice(_SIZES)
    vid = "".join(rng.choices(string.ascii_uppercase + string.digits, k=5))
    return Scene(
        vid=vid,
        rate=rate,
        num_frames=num_frames,
        width=width,
        height=height,
        seed=rng.getrandbits(32),
        events=events,
    )


def qvhighlights_scene(rng: random.Random, index: int) -> Scene:
    """Draw a QVHighlights-like video of 40-80 s, a few of 150 s: 2-3 events, some seen twice.

    Args:
        rng: draws.
        index: within its split, which decides the frame rate.
    """
    rate = _RATES[index % len(_RATES)]
    steps = rng.randint(20, 40) if rate == 3 else rng.randint(20, 25)  # of 2 s
    if index % 16 == 6:
        steps = 75
    colours = rng.sample(list(COLOURS), min(rng.randint(2, 3), steps // 9))
    order = [c for c in colours for _ in range(1 + (rng.random() < 0.4 and steps >= 28))]
    rng.shuffle(order)
    longest = min(14, steps * 7 // 10 // len(order))
    lengths = [rng.randint(min(4, longest), longest) for _ in order]
    starts = _place(rng, lengths, steps, 1)
    spans: dict[str, list[tuple[float, float]]] = {colour: [] for colour in colours}
    for colour, start, length in zip(order, starts, lengths, strict=True):
        spans[colour].append((start * QVH_GRID_S, (start + length) * QVH_GRID_S))
    events = tuple(Event(spans=tuple(spans[colour]), **_name(rng, colour)) for colour in colours)
    width, height = rng.choice(_SIZES)
    duration_s = steps * QVH_GRID_S
    youtube_id = "".join(rng.choices(string.ascii_letters + string.digits, k=11))
    return Scene(
        vid=f"{youtube_id}_0.0_{duration_s}.0",
        rate=rate,
        num_frames=round(duration_s * rate),
        width=width,
        height=height,
        seed=rng.getrandbits(32),
        events=events,
    )


def question_scene(rng: random.Random, index: int) -> Scene:
    """Draw a video of 100-125 s for questions: 3 events of distinct colours on distinct floors.

    The pauses between them are so long that an excerpt of 32 s around one shows no other.

    Args:
        rng: draws.
        index: within its split, which is not used.
    """
    lengths = [rng.randint(9, 14) for _ in range(3)]  # s
    total, margin = rng.randint(100, 125), 10
    starts = [margin + start for start in _place(rng, lengths, total - 2 * margin, 14)]
    names = zip(rng.sample(list(COLOURS), 3), rng.sample(list(FLOORS), 3), strict=True)
    events = tuple(
        Event(spans=((start, start + length),), floor=floor, **_name(rng, colour))
        for start, length, (colour, floor) in zip(starts, lengths, names, strict=True)
    )
    width, height = rng.choice(_SIZES)
    return Scene(
        vid="".join(rng.choices(string.digits, k=10)),
        rate=Fraction(2),
        num_frames=2 * total,
        width=width,
        height=height,
        seed=rng.getrandbits(32),
        events=events,
    )


def instruction_scene(rng: random.Random, index: int) -> Scene:
    """Draw a video of 4-8 s that shows one thing on one floor from beginning to end.

    Args:
        rng: draws.
        index: within its split, which decides the frame rate.
    """
    rate = _RATES[index % len(_RATES)]
    num_frames = round(rng.uniform(4, 8) * rate)
    width, height = rng.choice(_SIZES)
    names = {**_name(rng, rng.choice(list(COLOURS))), "floor": rng.choice(list(FLOORS))}
    return Scene(
        vid=f"v_{''.join(rng.choices(string.ascii_letters + string.digits, k=11))}",
        rate=rate,
        num_frames=num_frames,
        width=width,
        height=height,
        seed=rng.getrandbits(32),
        events=(Event(spans=((0, float(num_frames / rate)),), **names),),
    )
