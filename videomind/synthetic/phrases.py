"""What is said about a synthetic event: the words, and sentence templates held out per split.

The colour is what tells the events of a video apart; shape and action are said and drawn, but decorate.
"""

import random

COLOURS: dict[str, tuple[int, int, int]] = {  # name -> RGB
    "red": (222, 32, 32),
    "green": (28, 172, 52),
    "blue": (38, 62, 226),
    "yellow": (236, 216, 36),
    "purple": (160, 36, 198),
    "cyan": (40, 208, 218),
}
SHAPES: tuple[str, ...] = ("ball", "box", "triangle", "ring", "cross")
ACTIONS: dict[str, tuple[str, str]] = {  # stem -> third person, gerund
    "slide": ("slides", "sliding"),
    "bounce": ("bounces", "bouncing"),
    "spin": ("spins", "spinning"),
    "shake": ("shakes", "shaking"),
    "grow": ("grows", "growing"),
}

# {c} colour, {s} shape, {v} action in the third person, {g} its gerund.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "train": (
        "a {c} {s} {v}",
        "the {c} {s} {v} on the screen",
        "a {s} that is {c} {v}",
        "we see a {c} {s} {g}",
        "there is a {c} {s} {g} around",
        "{c} {s} {g}",
        "the {s} {g} is {c}",
        "someone shows a {c} {s}",
        "look at the {c} {s} as it {v}",
        "a {c} object {v} in the video",
        "something {c} appears and {v}",
        "the thing that {v} is {c}",
        "the screen shows something {c}",
        "it is a {g} {s} in {c}",
    ),
    "valid": (
        "a {g} {s} that is {c}",
        "there is a {c} object {g}",
        "look at something {c} that {v}",
        "the {c} thing {v} around",
    ),
    "test": (
        "a {c} {s} is {g}",
        "the {s} in {c} {v}",
        "we see something {c} on the screen",
        "it is the {c} {s} that {v}",
        "someone shows the {g} {c} object",
    ),
}


FLOORS: dict[str, tuple[int, int, int]] = {  # name -> RGB
    "white": (246, 246, 246),
    "black": (8, 8, 8),
    "orange": (250, 128, 12),
    "pink": (250, 160, 205),
    "brown": (104, 62, 24),
}
EVER = ("yes", "no", "only at night", "in every scene", "nobody knows")
# Questions: about the floor under one event, and about whether a colour is ever seen.
FLOOR: dict[str, tuple[str, ...]] = {
    "train": (
        "what is the floor like while a {c} {s} {v}",
        "which floor is there when the {c} {s} {v} on the screen",
        "what does the floor look like while we see a {c} {s} {g}",
        "what floor is shown when there is a {c} {s} {g} around",
        "which floor do we see while something {c} appears and {v}",
        "what is the floor when someone shows a {c} {s}",
    ),
    "test": (
        "which floor is shown while a {c} {s} is {g}",
        "what is the floor like when the {s} in {c} {v}",
        "what does the floor look like when someone shows the {g} {c} object",
    ),
}
WHOLE: dict[str, tuple[str, ...]] = {
    "train": (
        "is something {c} ever shown in this video",
        "is there a {c} object in this video",
        "does something {c} appear in this video",
        "is a {c} {s} ever shown in this video",
        "does this video show a {c} {s}",
        "do we ever see something {c} in this video",
        "is anything {c} in this video",
        "can a {c} object be seen in this video",
    ),
    "test": ("is there something {c} in this video", "does a {c} object ever appear in this video"),
}
QUESTIONS = {"floor": FLOOR, "whole": WHOLE}
COLOUR: dict[str, tuple[str, ...]] = {
    "train": (
        "what colour is the {s}",
        "what is the colour of the {s}",
        "which colour does the {s} have in this video",
        "the {s} that is {g} has which colour",
        "can you tell me the colour of the {s} in the video",
        "what colour does the object have that is {g}",
        "which colour is the thing shown in this video",
    ),
    "test": (
        "which colour is the {s} in this video",
        "can you tell me what colour the {s} has",
        "what is the colour of the object that is {g}",
    ),
}
INSTRUCTIONS = {"colour": COLOUR, "floor": FLOOR}  # about a video that shows one thing


def sentence(rng: random.Random, *, split: str, colour: str, shape: str, action: str) -> str:
    """Draw a sentence of a split about an event, lower case and without a full stop."""
    third_person, gerund = ACTIONS[action]
    return rng.choice(TEMPLATES[split]).format(c=colour, s=shape, v=third_person, g=gerund)


def question(rng: random.Random, *, kind: str, split: str, colour: str, shape: str, action: str) -> str:
    """Draw a question of a split, lower case and without its mark.

    Args:
        rng: draws.
        kind: a key of QUESTIONS or INSTRUCTIONS.
        split: whose phrasings are used.
        colour: asked about.
        shape: asked about.
        action: asked about.
    """
    third_person, gerund = ACTIONS[action]
    template = rng.choice((QUESTIONS | INSTRUCTIONS)[kind][split])
    return template.format(c=colour, s=shape, v=third_person, g=gerund)


def corpus(split: str, templates: dict[str, tuple[str, ...]] = TEMPLATES) -> list[str]:
    """List every sentence of a split, in a fixed order: what a tokenizer is trained on."""
    return [
        template.format(c=colour, s=shape, v=third_person, g=gerund)
        for template in templates[split]
        for colour in COLOURS
        for shape in SHAPES
        for third_person, gerund in ACTIONS.values()
    ]
