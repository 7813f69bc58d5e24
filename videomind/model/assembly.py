"""Several role checkpoints as one: in memory (`load_roles`), and as one folder on disk (`combine`)."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from videomind.files import copy_file
from videomind.model.bases import check_same_base, resolve_folder
from videomind.model.checkpoint import (
    EXTRA_FILE,
    LoadedModel,
    LoadSettings,
    is_role_checkpoint,
    load_adapter,
    load_extra,
    load_model,
    saved_roles,
)
from videomind.model.tensors import read_tensors
from videomind.roles import ALL_IN_ONE

log = logging.getLogger(__name__)

SHARED_SUFFIXES = (".json", ".txt", ".safetensors")
TRAINING_FILES = ("trainer_state.json", "training_args.json")


def load_roles(folders: Mapping[str, str | Path], settings: LoadSettings) -> LoadedModel:
    """Load roles of one or several checkpoints onto one base model.

    Args:
        folders: role to the folder or hub id that holds it; an all-in-one checkpoint plays any role.
        settings: how the weights are loaded.

    Raises:
        ValueError: Something is missing or does not fit; says what, and where.
    """
    resolved = _folders_of(folders)
    first, *others = dict.fromkeys(resolved.values())
    held = {
        folder: _adapters_for(folder, [r for r, f in resolved.items() if f == folder])
        for folder in resolved.values()
    }
    loaded = load_model(first, settings, roles=held[first])
    model = loaded.model
    for folder in others:
        check_same_base(first, folder)
        for role in held[folder]:
            model = load_adapter(model, folder, role)
        load_extra(model, folder, held[folder] or ["grounder"], keep=True)
    return replace(loaded, model=model)


def _folders_of(folders: Mapping[str, str | Path]) -> dict[str, Path]:
    """Find the folder of each role; of one under several spellings the first counts."""
    mend, first = "Give another path.", {}
    places = {role: resolve_folder(path, f"checkpoint of the {role}", mend) for role, path in folders.items()}
    return {role: first.setdefault(folder.resolve(), folder) for role, folder in places.items()}


def _adapters_for(folder: Path, roles: list[str]) -> list[str] | None:
    """Name the adapters that play roles; None for a merged model, which needs none."""
    if not (folder / "config.json").is_file() or not is_role_checkpoint(folder):
        return None
    saved = saved_roles(folder)
    return list(dict.fromkeys(ALL_IN_ONE if r not in saved and ALL_IN_ONE in saved else r for r in roles))


def _check_same_extra(home: Path, folder: Path, role: str) -> None:
    """Refuse what a checkpoint holds beside its adapter unless the one that all roles share has the same."""
    extra, shared = folder / EXTRA_FILE, home / EXTRA_FILE
    if folder == home or not extra.is_file():
        return
    ours, theirs = (read_tensors(path) if path.is_file() else {} for path in (shared, extra))
    differ = [n for n, t in theirs.items() if n not in ours or not torch.equal(ours[n].float(), t.float())]
    if differ:
        raise ValueError(
            f"{extra} holds tensors beside the {role}'s adapter that {home} has not ({', '.join(differ[:4])}"
            f"{', ...' if len(differ) > 4 else ''}); only {home}'s can be shared"
        )


def combine(folders: Mapping[str, str | Path], out: str | Path) -> None:
    """Write one folder that holds several roles, in the published layout.

    Config, tokenizer and grounding head come from the grounder's folder (else the first one's).

    Args:
        folders: role to the folder that holds it.
        out: a new or empty folder.

    Raises:
        ValueError: A role is missing, a base differs, or a checkpoint holds more than adapters and head,
            which the roles would then share.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty")
    resolved = _folders_of(folders)
    home = resolved.get("grounder", next(iter(resolved.values())))
    for role, folder in resolved.items():
        check_same_base(home, folder)
        if role not in saved_roles(folder):
            held = ", ".join(saved_roles(folder)) or "none"
            raise ValueError(f"{folder} has no adapter for the {role}. It holds: {held}.")
        _check_same_extra(home, folder, role)
    out.mkdir(parents=True, exist_ok=True)
    for file in home.iterdir():
        if file.is_file() and file.suffix in SHARED_SUFFIXES and file.name not in TRAINING_FILES:
            copy_file(file, out / file.name)
    for role, folder in resolved.items():
        for file in filter(Path.is_file, (folder / role).rglob("*")):
            copy_file(file, out / file.relative_to(folder))
    log.info("Wrote %s with %s", out, ", ".join(resolved))
