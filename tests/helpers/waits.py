"""What docs/BENCHMARKS.md records of pretended devices."""

import re

from helpers.pretended import UPLOAD, WAIT, PretendedDevices
from helpers.runs import REPO


def recorded() -> dict[str, tuple[int, int]]:
    """Waits and blocking uploads, as docs/BENCHMARKS.md has them."""
    text = (REPO / "docs/BENCHMARKS.md").read_text()
    (section,) = re.findall(r"^## Waits$(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    rows = re.findall(r"^\| (a [^|]+?) \| (\d+) \| (\d+) \|$", section, flags=re.M)
    return {name: (int(waits), int(uploads)) for name, waits, uploads in rows}


def waits_of(devices: PretendedDevices) -> tuple[int, int]:
    """Waits and blocking uploads that were seen since the last `clear`."""
    return devices.number(WAIT), devices.number(UPLOAD)


def assert_no_more(name: str, waits: int, uploads: int) -> None:
    """The figures of docs/BENCHMARKS.md may only fall."""
    print(f"| {name} | {waits} | {uploads} |")
    most = recorded()[name]
    assert waits <= most[0] and uploads <= most[1], f"{name}: {waits} waits, {uploads} blocking uploads"
