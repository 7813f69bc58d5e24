"""The help of a training's command, from its dataclasses: transformers' parser takes seconds to import."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields
from textwrap import fill
from typing import get_args

from videomind.runs.recipes import FOLDER, read_recipe

WIDTH = 100  # of what stands below the arguments
VALUES = {bool: "True|False", int: "N", float: "X", str: "TEXT"}


def asks_for_help(argv: Sequence[str] | None) -> bool:
    """Tell whether a command line (None: this process's) asks for help."""
    return not {"-h", "--help"}.isdisjoint(sys.argv[1:] if argv is None else argv)


def usage_text(prog: str, description: str, groups: Iterable[type]) -> str:
    """Word the help of a training's command.

    Args:
        prog: the command.
        description: what it does.
        groups: dataclasses of arguments; of two of one name the first counts.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [--config FILE [--size SIZE]] [--NAME VALUE ...]",
        description=description.replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    recipe = parser.add_argument_group("Recipes")
    recipe.add_argument("--config", metavar="FILE", help="a recipe; arguments given beside it win over it")
    recipe.add_argument("--size", metavar="SIZE", help="which of the sizes of the recipe")
    names: set[str] = set()
    for kind in groups:
        group = parser.add_argument_group(kind.__doc__.splitlines()[0].rstrip("."))
        for entry in fields(kind):
            if entry.name not in names:
                _add(group, entry)
            names.add(entry.name)
    parser.epilog = fill(
        "All others are those of transformers.TrainingArguments (see its documentation). Of them the recipes "
        f"set {', '.join(recipe_arguments(names))}.",
        width=WIDTH,
    )
    return parser.format_help()


def _add(group: argparse._ArgumentGroup, entry: Field) -> None:
    """Add an argument, with what is known of it."""
    notes = [entry.metadata["help"]] if "help" in entry.metadata else []
    if entry.default is MISSING and entry.default_factory is MISSING:
        notes.append("required")
    elif entry.default not in (MISSING, None):
        notes.append(f"default {entry.default}")
    kind = next((k for k in (entry.type, *get_args(entry.type)) if k in VALUES), str)
    allowed = entry.metadata.get("choices")
    group.add_argument(
        f"--{entry.name}",
        metavar="|".join(allowed) if allowed else VALUES[kind],
        help="; ".join(notes).replace("%", "%%"),
    )


def recipe_arguments(names: set[str]) -> list[str]:
    """List what the recipes of a command set beside its own arguments, sorted.

    Args:
        names: the command's own arguments; a recipe whose model it does not know is another command's.
    """
    listed: set[str] = set()
    for path in FOLDER.glob("*.yaml"):
        recipe = read_recipe(path)
        chooses = {name for name, section in recipe.sections.items() if section == "model"}
        if chooses and chooses <= names:
            listed |= recipe.arguments.keys()
    return sorted(listed - names)
