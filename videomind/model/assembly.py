"""Several role checkpoints as one model: a base with the adapters of all roles, and one grounding head."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from videomind.files import read_json
from videomind.model.checkpoint import (
    LoadedModel,
    LoadSettings,
    is_role_checkpoint,
    load_adapter,
    load_extra,
    load_model,
    resolve_folder,
    saved_roles,
)
from videomind.roles import ALL_IN_ONE


def load_roles(folders: Mapping[str, str | Path], settings: LoadSettings) -> LoadedModel:
    """Load roles of one or several checkpoints onto one base model.

    Args: folders, role to the folder or hub id that holds it (an all-in-one checkpoint plays any role).
    Raises: ValueError that says what is missing or does not fit, and where.
    """
    mend = "Give another path."
    places = {role: resolve_folder(path, f"checkpoint of the {role}", mend) for role, path in folders.items()}
    first, *others = dict.fromkeys(places.values())
    held = {
        folder: _adapters_for(folder, [r for r, f in places.items() if f == folder])
        for folder in places.values()
    }
    loaded = load_model(first, settings, roles=held[first])
    model = loaded.model
    for folder in others:
        _check_same_base(first, folder)
        for role in held[folder]:
            model = load_adapter(model, folder, role)
        load_extra(model, folder, held[folder] or ["grounder"], keep=True)
    return replace(loaded, model=model)


def _adapters_for(folder: Path, roles: list[str]) -> list[str] | None:
    """The adapters that play roles; None for a merged model, which needs none."""
    if not (folder / "config.json").is_file() or not is_role_checkpoint(folder):
        return None
    saved = saved_roles(folder)
    return list(dict.fromkeys(ALL_IN_ONE if r not in saved and ALL_IN_ONE in saved else r for r in roles))


def _check_same_base(first: Path, other: Path) -> None:
    """Refuse roles of different backbones: their adapters would sit on weights they never saw."""
    bases = [Path(read_json(f / "config.json").get("base_model_path", "")).name for f in (first, other)]
    if bases[0] != bases[1]:
        raise ValueError(
            f"{first} stands on the base {bases[0]}, {other} on {bases[1]}: use roles of one base"
        )
