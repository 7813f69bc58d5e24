"""Recipes: a training's arguments as a file, read by `--config FILE [--size SIZE]`.

A recipe is YAML. Its sections (`model`, `data`, `budget`, `adapter`, `schedule`) are there for the reader:
what counts are the names of the arguments inside. `extends` names a recipe that this one builds on, `sizes`
the values that `--size` may have; `{size}` and `{SIZE}` in a text stand for it (2b, 2B). `launch` is for
`videomind launch`. Arguments of the command line win over a recipe, so that everything can be overridden.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from videomind.roles import nearest

SECTIONS = ("model", "data", "budget", "adapter", "schedule")
LAUNCH = ("global_batch", "batch_per_device", "deepspeed", "master_port")
_KEYS = ("extends", "sizes", "launch", *SECTIONS)
FOLDER = Path(__file__).parents[2] / "scripts/recipes"


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice; the library's takes the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := {str(key) for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(
                None, None, f"{', '.join(sorted(twice))} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a recipe says.

    Attributes:
        arguments: name to value of a training's arguments, as they stand on a command line.
        sections: name of an argument to its section.
        launch: what `videomind launch` reads.
        sizes: values of `--size`; empty where there is only one.
    """

    arguments: dict[str, str] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)
    launch: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[str, ...] = ()


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe and those that it extends.

    Args:
        path: a file, or the name of one in scripts/recipes.

    Raises:
        ValueError: no such file, no YAML, an unknown section, or a value that no argument can have.
    """
    return _read(_find(path), seen=())


def _find(path: str | Path, beside: Path | None = None) -> Path:
    tries = [Path(path), FOLDER / path, (FOLDER / path).with_suffix(".yaml")]
    if beside is not None and not Path(path).is_absolute():
        tries.insert(0, beside.parent / path)
    for candidate in tries:
        if candidate.is_file():
            return candidate
    names = [recipe.stem for recipe in FOLDER.glob("*.yaml")]
    raise ValueError(f"No recipe {path} (--config). {nearest(str(path), names)}")


def _read(path: Path, seen: tuple[Path, ...]) -> Recipe:
    if path.resolve() in seen:
        raise ValueError(f"{path} extends itself (by way of {', '.join(p.name for p in seen)})")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} holds a {type(raw).__name__}, expected sections {', '.join(SECTIONS)}")
    for key, value in raw.items():
        if key not in _KEYS:
            raise ValueError(f"{path} has a section {key!r}. {nearest(str(key), _KEYS)}")
        if key not in ("extends", "sizes") and not isinstance(value, dict):
            raise ValueError(f"{path}, {key}: expected names and values, not {value!r}")
    base = _read(_find(raw["extends"], path), (*seen, path.resolve())) if "extends" in raw else Recipe()
    own = {name: (section, value) for section in SECTIONS for name, value in raw.get(section, {}).items()}
    if len(own) != sum(len(raw.get(section, {})) for section in SECTIONS):
        raise ValueError(f"{path} gives an argument in two sections")
    for name in raw.get("launch", {}):
        if name not in LAUNCH:
            raise ValueError(f"{path}, launch: unknown {name!r}. {nearest(str(name), LAUNCH)}")
    arguments = {name: _text(value, f"{path}, {section}, {name}") for name, (section, value) in own.items()}
    return Recipe(
        arguments={**base.arguments, **arguments},
        sections={**base.sections, **{name: section for name, (section, _) in own.items()}},
        launch={**base.launch, **raw.get("launch", {})},
        sizes=tuple(map(str, raw.get("sizes", base.sizes))),
    )


def _text(value: Any, place: str) -> str:
    """Write a value as it stands on a command line; a list is joined by commas."""
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ",".join(map(str, value))
    if isinstance(value, str | int | float):  # True and False too
        return str(value)
    raise ValueError(f"{place}: {value!r} is neither a text, a number, true or false, nor a list of these")


def expand(argv: Sequence[str]) -> list[str]:
    """Replace `--config` and `--size` by the arguments of the recipe, in front of all others.

    Raises:
        ValueError: see `read_recipe`; or a size that is missing, unknown, or given without a recipe.
    """
    path, size, rest = _taken(argv)
    if path is None:
        if size is not None:
            raise ValueError(f"--size {size} chooses among the sizes of a recipe: give its --config too")
        return rest
    recipe = read_recipe(path)
    if recipe.sizes and size not in recipe.sizes:
        given = "not given" if size is None else f"{size!r}"
        raise ValueError(f"--size is {given}. Sizes of {path}: {', '.join(recipe.sizes)}.")
    if size is not None and not recipe.sizes:
        raise ValueError(f"{path} has no sizes: leave --size {size} out")
    flags = []
    for name, value in recipe.arguments.items():
        flags += [f"--{name}", _sized(value, size)]
    return [*flags, *rest]


def _sized(value: str, size: str | None) -> str:
    return value if size is None else value.replace("{size}", size).replace("{SIZE}", size.upper())


def launch_section(argv: Sequence[str]) -> dict[str, Any]:
    """Read the `launch` section of a command line's recipe; empty without one."""
    path, _, _ = _taken(argv)
    return {} if path is None else read_recipe(path).launch


def _taken(argv: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """Take `--config` and `--size` out of a command line.

    Returns:
        The two (None where not given), and the rest of the line.
    """
    taken: dict[str, str | None] = {"--config": None, "--size": None}
    rest, parts = [], iter(argv)
    for part in parts:
        name, sign, value = part.partition("=")
        if name not in taken:
            rest.append(part)
            continue
        value = value if sign else next(parts, "")
        if not value or taken[name] is not None:
            raise ValueError(f"{name} has to be given once, with a value")
        taken[name] = value
    return taken["--config"], taken["--size"], rest


def given_arguments(argv: Sequence[str]) -> dict[str, str]:
    """List the arguments of an expanded command line by name, the last of each, as they stand there."""
    found: dict[str, list[str]] = {}
    name = ""
    for part in argv:
        if part.startswith("--"):
            name, sign, value = part[2:].partition("=")
            found[name] = [value] if sign else []
        elif name:
            found[name].append(part)
    return {name: " ".join(values) if values else "True" for name, values in found.items()}


def recipe_text(argv: Sequence[str], sections: Mapping[str, str]) -> str:
    """Write what a run was started with, as a recipe that `--config` reads again.

    Args:
        argv: an expanded command line.
        sections: argument to section; what is not in it goes to the schedule.
    """
    out: dict[str, dict[str, str]] = {}
    for name, value in given_arguments(argv).items():
        out.setdefault(sections.get(name, "schedule"), {})[name] = value
    ordered = {section: out[section] for section in SECTIONS if section in out}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=110)
