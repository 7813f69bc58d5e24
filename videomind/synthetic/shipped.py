"""The tiny base that comes with the code: warmed up, as a pretrained model stands at the start of a real run.

It lies in `model_zoo/tiny-qwen2-vl`, whose README says how it was made.
"""

import hashlib
from pathlib import Path

from videomind.files import copy_file
from videomind.synthetic.folders import MARKER, is_made, making

TINY_BASE = Path(__file__).parents[2] / "model_zoo/tiny-qwen2-vl"
README = "README.md"


def shipped_files(folder: Path) -> list[Path]:
    """List the files of the model.

    Raises:
        ValueError: there are none.
    """
    files = sorted(path for path in folder.glob("*") if path.is_file() and path.name not in (README, MARKER))
    if not any(path.suffix == ".safetensors" for path in files):
        raise ValueError(
            f"No tiny base in {folder}: it comes with a checkout of the code (--from-scratch makes one)"
        )
    return files


def folder_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of a model's files.

    Raises:
        ValueError: there are none.
    """
    digest = hashlib.sha256()
    for path in shipped_files(folder):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()


def copy_shipped(output: str | Path, digest: str | None = None) -> None:
    """Copy the tiny base, so that a run's folder holds all that it needs; a finished copy stays.

    Args:
        output: the folder to write.
        digest: what the files must be; None takes any.

    Raises:
        ValueError: they are not there, are others, or the folder holds something else.
    """
    output = Path(output).absolute()
    if digest not in (None, own := folder_digest(TINY_BASE)):
        raise ValueError(f"{TINY_BASE} has the digest {own}, not {digest}")
    made_with = {"shipped": own}
    if not is_made(output, made_with, "a tiny base"):
        with making(output, made_with) as partial:
            for path in shipped_files(TINY_BASE):
                copy_file(path, partial / path.name)
