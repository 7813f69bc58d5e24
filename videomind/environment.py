"""What launchers leave in the environment, and what a user without a home lacks there.

Whole sets of variables are used, parts of one are refused by name. torchrun tells its processes by variables
which one they are. Some of them alone (of an outer launcher, of somebody's shell) would make a run write
nothing, or wait for processes that never come.
"""

import os
import pwd
import tempfile
from collections.abc import Mapping, MutableMapping

RANK, WORLD_SIZE = "RANK", "WORLD_SIZE"
# What torchrun sets, all of it, for each process; the last two may be a user's for `videomind launch`.
WHO = (RANK, WORLD_SIZE, "LOCAL_RANK")
WHERE = ("MASTER_ADDR", "MASTER_PORT")
# Of MPI's launchers, which libraries take for torchrun's.
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
MPI = ("OMPI_COMM_WORLD_", "PMI_", "MV2_COMM_WORLD_", "MPI_LOCAL")
# Of `accelerate launch`: they change how a training computes, which its arguments are to say.
ACCELERATE = "ACCELERATE_"
# Other values of these give other numbers, within rounding or beyond.
OF_NUMBERS = (
    *("VIDEOMIND_VIDEO_READER", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
    *("CUBLAS_WORKSPACE_CONFIG", "CUDNN_DETERMINISTIC", "FLASH_ATTENTION_DETERMINISTIC"),
    *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
)
TORCHRUN = "Start it with `videomind launch` or torchrun, or unset what is left over."


def check_processes(environ: Mapping[str, str]) -> None:
    """Refuse what does not say which process of how many this one is.

    Args:
        environ: environment variables.

    Raises:
        ValueError: variables are missing or do not fit, or MPI started several processes; names them.
    """
    present = {name: environ[name] for name in WHO if environ.get(name)}
    if not present:
        if several := {name: environ[name] for name in MPI_SIZES if environ.get(name, "1") not in ("", "1")}:
            raise ValueError(
                f"{_listed(several)} in the environment, but MPI's processes are not used. {TORCHRUN}"
            )
        return
    needed = (*WHO, *WHERE) if present.get(WORLD_SIZE) != "1" else (RANK, WORLD_SIZE)
    if missing := [name for name in needed if not environ.get(name)]:
        raise ValueError(
            f"{_listed(present)} in the environment without {', '.join(missing)}, which torchrun sets. "
            f"{TORCHRUN}"
        )
    if wrong := {name: text for name, text in present.items() if not text.isdecimal()}:
        raise ValueError(f"{_listed(wrong)} in the environment. Allowed: whole numbers from 0. {TORCHRUN}")
    size = int(present[WORLD_SIZE])
    if too_large := {n: text for n, text in present.items() if n != WORLD_SIZE and int(text) >= size}:
        raise ValueError(
            f"{_listed(too_large)} in the environment. Allowed with WORLD_SIZE={size}: below it."
        )


def of_numbers(environ: Mapping[str, str]) -> list[str]:
    """List the variables that change what a run computes, NAME=VALUE each."""
    return [f"{name}={environ[name]}" for name in OF_NUMBERS if environ.get(name)]


def drop_foreign(environ: MutableMapping[str, str]) -> list[str]:
    """Remove the variables of other launchers that libraries would follow.

    Args:
        environ: environment variables, which are changed.

    Returns:
        What was there, NAME=VALUE each.
    """
    names = sorted(name for name in environ if name.startswith((ACCELERATE, *MPI)))
    return [f"{name}={environ.pop(name)}" for name in names]


def drop_ranks(environ: MutableMapping[str, str]) -> list[str]:
    """Remove what says that this process is one of several, for one that starts them itself.

    Returns:
        What was there, NAME=VALUE each.
    """
    return [
        f"{name}={environ.pop(name)}" for name in (*WHO, "LOCAL_WORLD_SIZE", "GROUP_RANK") if name in environ
    ]


def provide_home(environ: MutableMapping[str, str]) -> str | None:
    """Give libraries a folder to compile and to download into where the user's home is none.

    Containers run as users that have no home, or no name; batch nodes protect homes from writing.

    Args:
        environ: environment variables, which are changed.

    Returns:
        The folder, or None where there is one already.

    Raises:
        ValueError: another user has taken the folder's name.
    """
    user = os.getuid()
    if not any(environ.get(name) for name in ("LOGNAME", "USER")) and not _has_name(user):
        environ["USER"] = f"user{user}"  # else asking for the user's name is an error
    home = os.path.expanduser("~")
    if _is_writable(environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")):
        return None
    own = os.path.join(tempfile.gettempdir(), f"videomind-{user}")
    os.makedirs(own, mode=0o700, exist_ok=True)
    if os.stat(own).st_uid != user:
        raise ValueError(f"{own} is another user's: name a folder for caches in XDG_CACHE_HOME")
    if not os.path.isdir(home):
        environ["HOME"] = own
    environ |= {"XDG_CACHE_HOME": own, "TRITON_HOME": environ.get("TRITON_HOME", own)}
    return own


def _has_name(user: int) -> bool:
    try:
        return bool(pwd.getpwuid(user))
    except KeyError:
        return False


def _is_writable(folder: str) -> bool:
    """Tell whether files can be made in a folder; it is made where it is not there."""
    if not os.path.isabs(folder):  # there is no home to begin with
        return False
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _listed(variables: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={text}" for name, text in variables.items())
