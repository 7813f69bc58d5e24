"""What launchers leave in the environment: whole sets are used, parts of one are refused by name.

torchrun tells its processes by variables which one they are. Some of them alone (of an outer launcher, of
somebody's shell) would make a run write nothing, or wait for processes that never come.
"""

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


def _listed(variables: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={text}" for name, text in variables.items())
