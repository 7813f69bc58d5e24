"""What the package needs: bounded, tested within the bounds, and nothing that brings a desktop along."""

import ast
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).parents[1]
REFERENCE = "nncore"  # of a test alone
HEAVY = {
    REFERENCE, "h5py", "opencv-python", "opencv-python-headless", "opencv-contrib-python",
    "opencv-contrib-python-headless",
}  # fmt: skip


def setup_arguments() -> dict:
    """The literal arguments of setup.py's call."""
    tree = ast.parse((REPO / "setup.py").read_text(encoding="utf-8"))
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup")
    wanted = ("install_requires", "extras_require")
    return {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg in wanted}


NEEDED = [Requirement(text) for text in setup_arguments()["install_requires"]]
EXTRAS = {
    extra: [Requirement(text) for text in texts]
    for extra, texts in setup_arguments()["extras_require"].items()
}
TESTED = [
    Requirement(line)
    for line in (REPO / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
SUPPORTED = [*NEEDED, *(requirement for group in EXTRAS.values() for requirement in group)]


@pytest.mark.parametrize("requirement", SUPPORTED, ids=str)
def test_every_range_has_both_ends(requirement):
    assert sorted(spec.operator for spec in requirement.specifier) == ["<", ">="]


@pytest.mark.parametrize("requirement", TESTED, ids=str)
def test_what_is_tested_is_pinned_and_supported(requirement):
    (pin,) = requirement.specifier
    assert pin.operator == "=="
    ranges = [supported.specifier for supported in SUPPORTED if supported.name == requirement.name]
    assert ranges and all(pin.version in specifier for specifier in ranges)


def test_all_that_the_package_needs_is_tested():
    assert {requirement.name for requirement in NEEDED} <= {requirement.name for requirement in TESTED}


def resolved(wanted: Iterable[Requirement], *, optional: bool) -> set[str]:
    """Find the names of all distributions that these lead to as installed here.

    Args:
        wanted: where to start.
        optional: whether one that is not installed is passed over.
    """
    found: set[str] = set()
    waiting = [(requirement, "") for requirement in wanted]
    seen = set()
    while waiting:
        requirement, of_extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        found.add(canonicalize_name(requirement.name))
        for extra in ("", *requirement.extras):
            if (key := (requirement.name, extra)) not in seen:
                seen.add(key)
                waiting += ((child, extra) for child in children(requirement, optional=optional))
    return found


def children(requirement: Requirement, *, optional: bool) -> Iterator[Requirement]:
    try:
        yield from map(Requirement, metadata.requires(requirement.name) or ())
    except metadata.PackageNotFoundError:
        if not optional:
            raise


def test_nothing_needed_brings_a_desktop():
    """opencv needs libxcb and libGL, which a server has not, and breaks the imports after it without them."""
    names = resolved(NEEDED, optional=False)
    assert len(names) > len(NEEDED)
    assert names & HEAVY == set()


@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - {REFERENCE}))
def test_no_extra_brings_a_desktop(extra):
    assert resolved(EXTRAS[extra], optional=True) & HEAVY == set()


def test_only_the_reference_of_the_tests_brings_a_desktop():
    tested = [requirement for requirement in TESTED if requirement.name != REFERENCE]
    assert resolved(tested, optional=True) & HEAVY == set()
