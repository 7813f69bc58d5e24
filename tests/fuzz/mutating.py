"""Random changes of a file's bytes, the same for the same random numbers."""

import random
from collections.abc import Callable, Sequence

EXTREMES = tuple(bytes.fromhex(word) for word in ("00000000", "ffffffff", "7fffffff", "80000000", "00000001"))
# What JSON, CSV and text files may hold that no generator of them expects.
WORDS = tuple(
    word.encode("utf-8", "surrogatepass")
    for word in (
        *(
            "[" * 100_000,
            '{"x":' * 5_000,
            "9" * 5_000,
            "1e999",
            "-0",
            "NaN",
            "Infinity",
            "null",
            "true",
            '"',
            "\\",
        ),
        *(
            "\\ud800",
            "\u2028",
            "\x85",
            "\ufeff",
            "\x00",
            "\r",
            "\n",
            "\n\n",
            ",",
            ",,",
            "##",
            " ",
            "é",
            "\udcff",
        ),
        *("[]", "{}", "[[]]", '""', "-1", "1e-400", str(2**70)),
    )
)
Mutation = Callable[[bytearray, random.Random], None]


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3, 30))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    start, size = rng.randrange(len(data)), rng.choice((1, 4, 16, 200))
    data[start : start + size] = rng.randbytes(min(size, len(data) - start))


def number(data: bytearray, rng: random.Random) -> None:
    """Lengths, counts and times are what readers trust: four bytes, often of the header, become extreme."""
    start = rng.randrange(min(len(data), rng.choice((64, 1024, len(data)))))
    data[start : start + 4] = rng.choice(EXTREMES)


def tail_number(data: bytearray, rng: random.Random) -> None:
    """The same near the end, where mp4 keeps its index."""
    start = len(data) - 1 - rng.randrange(min(len(data), 3000))
    data[start : start + 4] = rng.choice(EXTREMES)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def leave_out(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 7, 188, 4000))]


def repeat(data: bytearray, rng: random.Random) -> None:
    start, size = rng.randrange(len(data)), rng.choice((1, 4, 188, 4000))
    data[start:start] = data[start : start + size]


def insert(data: bytearray, rng: random.Random) -> None:
    """A word that is odd in a text, anywhere or in place of a number."""
    start = rng.randrange(len(data))
    end = start
    if rng.random() < 0.5:
        while end < len(data) and chr(data[end]) in "0123456789.":
            end += 1
    data[start:end] = rng.choice(WORDS)


OF_VIDEOS: tuple[Mutation, ...] = (flip, overwrite, number, tail_number, cut, leave_out, repeat)
OF_TEXTS: tuple[Mutation, ...] = (flip, overwrite, cut, leave_out, repeat, insert, insert)


def mutated(data: bytes, rng: random.Random, mutations: Sequence[Mutation]) -> bytes:
    """Change data in one to four ways."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if changed:
            rng.choice(mutations)(changed, rng)
    return bytes(changed)
