"""Where models lie: folders and hub ids, and the base that a role checkpoint stands on.

A checkpoint records its base as it was given, with the revision of one from the hub and a fingerprint of its
weights. A name alone says little: folders are renamed, copied and trained again.
"""

import hashlib
import json
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from videomind.files import read_json

log = logging.getLogger(__name__)

SAMPLE = 256  # bytes at both ends of a tensor that a fingerprint looks at
_VOLATILE = ("_name_or_path", "transformers_version")  # fields of a config that say nothing of a model
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_LENGTH = struct.Struct("<Q")  # of a safetensors file's header, its first bytes


def resolve_folder(name: str | Path, what: str, mend: str, *, revision: str | None = None) -> Path:
    """Find the local folder of a path or a hub id.

    Args:
        name: path or id.
        what: it is, for messages.
        mend: what to do where there is none, for messages.
        revision: of a model on the hub; by default its newest.

    Raises:
        ValueError: There is none; says which paths were tried and how to mend it.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    looks_like_hub_id = str(name).count("/") == 1 and not str(name).startswith((".", "/"))
    if looks_like_hub_id and not str(name).startswith(("model_zoo/", "work_dirs/")):
        try:
            return Path(snapshot_download(str(name), revision=revision))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"No {what} in {folder} and none on the hub ({reason}). {mend}") from None
    raise ValueError(f"No {what} in {folder.absolute()}. {mend}")


@dataclass(frozen=True, kw_only=True)
class Base:
    """The base of a role checkpoint, as its config.json records it.

    Attributes:
        name: path or hub id, as it was given.
        revision: of one from the hub, else None.
        fingerprint: of its weights and config; None in checkpoints of others.
    """

    name: str
    revision: str | None = None
    fingerprint: str | None = None

    @classmethod
    def recorded(cls, checkpoint: Path) -> "Base":
        """Read what a role checkpoint says."""
        path = checkpoint / "config.json"
        config = read_json(path)
        if not (name := config.get("base_model_path")):
            raise ValueError(f"{path} does not say which base model it stands on (base_model_path)")
        hub, revision = _hub_place(Path(name)) or (name, config.get("base_revision"))
        return cls(name=hub, revision=revision, fingerprint=config.get("base_fingerprint"))

    @classmethod
    def of(cls, folder: Path) -> "Base":
        """Describe the base in a folder; one that lies in the hub's cache by its id."""
        name, revision = _hub_place(folder) or (str(folder), None)
        return cls(name=name, revision=revision, fingerprint=fingerprint(folder))

    def find(self, checkpoint: Path) -> Path:
        """Find the base's folder: from where the checkpoint lies, from here, beside it, or from the hub.

        Args:
            checkpoint: folder that records this base.

        Raises:
            ValueError: It is nowhere, or what is there are other weights.
        """
        name = Path(self.name)
        relative = [parent / name for parent in (checkpoint, *checkpoint.resolve().parents)]
        tried = list(dict.fromkeys((*relative, name, checkpoint.parent / name.name)))
        others = []
        for folder in filter(Path.is_dir, tried):
            if self.fingerprint in (None, fingerprint(folder)):
                return name if name.is_dir() and name.samefile(folder) else folder
            others.append(str(folder.absolute()))
        if others:
            raise ValueError(
                f"{checkpoint} was trained on other weights than those in {', '.join(others)} (their "
                "fingerprint is not base_fingerprint in its config.json). Give its base model with "
                "--base_model_path."
            )
        listed = ", ".join(str(path.absolute()) for path in tried)
        mend = f"Tried {listed}. Give the right one with --base_model_path."
        return resolve_folder(self.name, f"base model of {checkpoint}", mend, revision=self.revision)


def _hub_place(folder: Path) -> tuple[str, str] | None:
    """Tell the id and the revision of a folder in the hub's cache; None for any other."""
    parts = folder.absolute().parts
    if len(parts) < 3 or parts[-2] != "snapshots" or not parts[-3].startswith("models--"):
        return None
    return parts[-3].removeprefix("models--").replace("--", "/"), parts[-1]


def find_base(checkpoint: Path, override: str | None) -> tuple[Path, Base]:
    """Find the base of a role checkpoint.

    Args:
        checkpoint: its folder.
        override: path or hub id that is used instead of the recorded one.

    Returns:
        The base's folder, and what a checkpoint that is trained on it records.

    Raises:
        ValueError: It is nowhere, or what is there are other weights.
    """
    if override is None:
        recorded = Base.recorded(checkpoint)
        folder = recorded.find(checkpoint)
        return folder, Base(name=recorded.name, revision=recorded.revision, fingerprint=fingerprint(folder))
    mend = f"Tried {Path(override).absolute()}. Give the right one with --base_model_path."
    folder = resolve_folder(override, f"base model of {checkpoint}", mend)
    base, trained_on = Base.of(folder), read_json(checkpoint / "config.json").get("base_fingerprint")
    if trained_on not in (None, base.fingerprint):
        log.warning("%s was trained on other weights than those in %s", checkpoint, folder)
    return folder, base


def check_same_base(first: Path, other: Path) -> None:
    """Refuse roles of different bases: their adapters would sit on weights they never saw.

    Fingerprints are compared, of the bases themselves where a checkpoint records none; names only where the
    weights are not here.

    Raises:
        ValueError: They differ.
    """
    bases = [Base.recorded(folder) for folder in (first, other)]
    marks = [base.fingerprint or _found(base, at) for base, at in zip(bases, (first, other), strict=True)]
    if None in marks:
        marks = [Path(base.name).name for base in bases]
    if marks[0] != marks[1]:
        raise ValueError(
            f"{first} stands on the base {bases[0].name}, {other} on {bases[1].name}: use roles of one base"
        )


def _found(base: Base, checkpoint: Path) -> str | None:
    """Take the fingerprint of a base that is on this machine, None of one that is not."""
    try:
        return fingerprint(base.find(checkpoint))
    except ValueError:
        return None


def fingerprint(folder: Path) -> str:
    """Mark a base by its config, and by name, type, shape and a sample of the values of each of its tensors.

    How tensors are spread over files does not count. The samples tell apart what training has changed: the
    first and the last bytes of every tensor.

    Raises:
        ValueError: A file of weights cannot be read.
    """
    config = {k: v for k, v in read_json(folder / "config.json").items() if k not in _VOLATILE}
    entries = sorted(entry for path in _weight_files(folder) for entry in _entries(path))
    return hashlib.sha256(json.dumps([config, entries], sort_keys=True).encode()).hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    """List the files that a base's weights are read from: safetensors where there are any."""
    matches = (sorted(folder.glob(pattern)) for pattern in _WEIGHTS)
    return next((paths for paths in matches if paths), [])


def _entries(path: Path) -> Iterator[list]:
    """Describe each tensor of a file; of a `.bin` the file itself."""
    with open(path, "rb") as file:
        if path.suffix != ".safetensors":
            yield [path.name, "", [path.stat().st_size], _sample(file, 0, path.stat().st_size)]
            return
        try:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            start = _LENGTH.size + length
            for name, tensor in header.items():
                first, last = tensor["data_offsets"]
                yield [name, tensor["dtype"], tensor["shape"], _sample(file, start + first, start + last)]
        except (struct.error, ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
            raise ValueError(f"{path} cannot be read as safetensors: {error}") from None


def _sample(file, first: int, last: int) -> str:
    file.seek(first)
    head = file.read(min(SAMPLE, last - first))
    file.seek(max(first, last - SAMPLE))
    return (head + file.read(min(SAMPLE, last - first))).hex()
