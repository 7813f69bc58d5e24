"""Makes the Python environment that the scripts run in; needs nothing but Python with its venv module.

    python scripts/install.py FOLDER [--installer auto|uv|pip]

uv installs what requirements.txt pins: the one on PATH, else the pinned one, taken into the new environment.
Where neither can be had, or pip's settings say what uv can't be told, pip does. Both follow pip's settings
(files and PIP_*) and the usual variables of proxies and certificates, and end in the same versions.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

REPO = Path(__file__).resolve().parent.parent
REQUIREMENTS = REPO / "requirements.txt"
INSTALLED = "installed"  # in an environment: a copy of the requirements it has; scripts/env.sh compares
LOG = "install.log"
TMP = "tmp"
SIZE_GB = 6  # of the environment on Linux with CUDA's libraries, as measured

# What pip is told -> the variable that tells uv the same; whichever of uv's is set already wins.
UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "constraint": "UV_CONSTRAINT",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "no-cache-dir": "UV_NO_CACHE",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
NO_INDEX = "no-index"  # an option of both
# pip's settings that change neither what is installed nor from where.
COSMETIC = {
    *("disable-pip-version-check", "progress-bar", "quiet", "verbose", "no-input", "no-color", "log"),
    *("cache-dir", "retries", "root-user-action", "require-virtualenv", "break-system-packages"),
    *("no-warn-script-location", "config-file"),
}
SPACE = re.compile(r"no space left on device|disk quota exceeded", re.I)
UNREACHABLE = (
    # uv, with what caused it; the last cause is the deepest
    re.compile(r"Failed to fetch: `?(?P<url>\S+?)`?$(?:\n +(?:cause|Caused by): (?P<why>.*))*", re.M),
    # pip, after its last try
    re.compile(r"Retry\(total=0,.*connection broken by '(?P<why>\w+).*: (?P<url>\S+)$", re.M),
)
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


class InstallError(Exception):
    """What went wrong, in words for the person who waits.

    Attributes:
        is_final: the reason is known, and another installer would meet it too.
    """

    def __init__(self, message: str, *, is_final: bool = False):
        super().__init__(message)
        self.is_final = is_final


def say(text: str) -> None:
    """Tell the person who waits."""
    sys.stderr.write(text + "\n")


def pip_settings(listed: str) -> dict[str, str]:
    """Read what `pip config list` prints.

    Returns:
        Setting -> value, as `pip install` takes them: its own section wins over `global`, PIP_* over both.
    """
    lines = (line.partition("=") for line in listed.splitlines())
    found = {key: ast.literal_eval(value) for key, sign, value in lines if sign}
    settings = {}
    for section in ("global.", "install.", ":env:."):
        settings |= {key.removeprefix(section): v for key, v in found.items() if key.startswith(section)}
    return settings


def untold(settings: Mapping[str, str]) -> list[str]:
    """pip's settings that uv can't be told."""
    return sorted(key for key in settings if key not in {*UV_VARIABLES, NO_INDEX, *COSMETIC})


def _exists(place: str) -> bool:
    """Whether an index or folder may be asked: pip passes over local ones that are not there, uv stops."""
    parts = urlsplit(place)
    return parts.scheme not in ("", "file") or Path(parts.path).exists()


def uv_environment(settings: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which uv does what pip would with these settings.

    Args:
        settings: of `pip_settings`.
        environ: the present environment.
    """
    told = {}
    for key, value in settings.items():
        if key in ("extra-index-url", "find-links"):
            separator = "," if key == "find-links" else " "
            value = separator.join(place for place in value.split() if _exists(place))
        if key in UV_VARIABLES and value:
            told[UV_VARIABLES[key]] = value
    if told.get("UV_INDEX"):  # as with pip, all indexes are equal and the best version wins
        told["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return told | dict(environ)


def explanation(log: str, environ: Mapping[str, str], places: Mapping[str, str | Path]) -> str | None:
    """Say in one line what stopped an installer, where its log shows one of the usual reasons.

    Args:
        log: what it printed.
        environ: the environment it ran in.
        places: name -> folder of all that it writes to.
    """
    if SPACE.search(log):
        free = ", ".join(
            f"{_free_gb(Path(path)):.1f} GB for {name} ({path})" for name, path in places.items()
        )
        return f"No space left on the disk. The environment takes about {SIZE_GB} GB; free are {free}."
    for pattern in UNREACHABLE:
        if gone := [*pattern.finditer(log)]:
            proxy = next((f"the proxy that {name} names" for name in PROXIES if environ.get(name)), None)
            through = f"through {proxy}" if proxy else "without a proxy (HTTPS_PROXY would name one)"
            return (
                f"Could not reach {_without_password(gone[-1]['url'])} {through}: {gone[-1]['why']}. "
                "pip's settings (pip config set global.index-url URL) name another package index."
            )
    return None


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)


def _free_gb(folder: Path) -> float:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free / 1e9


def _wait(process: subprocess.Popen, seconds: float) -> int | None:
    """A process's exit code; None where it goes on after `seconds`."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


class Environment:
    """The environment being made.

    Args:
        folder: where it goes.
        environ: variables of whatever runs in it.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]):
        self.folder, self.log = folder, folder / LOG
        self.python = str(folder / "bin" / "python")
        # pip unpacks gigabytes below TMPDIR; /tmp is often a small one.
        self.environ = {"TMPDIR": str(folder / TMP), "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environ}

    def run(self, what: str, command: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Run a command with its output in the log, and say every 20 s that it is still at it.

        Args:
            what: the command's name for the person who waits.
            variables: of its environment; by default those of `Environment`.

        Raises:
            InstallError: it failed; with the reason where it is known, else the end of its output.
        """
        start = time.monotonic()
        environ = variables or self.environ
        with open(self.log, "a+", encoding="utf-8", errors="replace") as log:
            begin = log.seek(0, os.SEEK_END)
            with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environ) as process:
                while (status := _wait(process, 20)) is None:
                    say(f"  {what}: {time.monotonic() - start:.0f} s")
            log.seek(begin)
            output = log.read()
        if not status:
            return
        reason = explanation(output, environ, self._places(environ))
        is_final = reason is not None
        reason = reason or "\n".join([f"The end of {self.log}:", *output.splitlines()[-20:]])
        raise InstallError(f"{what} failed. {reason}", is_final=is_final)

    def _places(self, environ: Mapping[str, str]) -> dict[str, Path]:
        """Name -> folder of all that an installer writes to."""
        cache = environ.get("UV_CACHE_DIR") or environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return {"the environment": self.folder, "the cache": Path(cache), "TMPDIR": Path(environ["TMPDIR"])}

    def make(self) -> None:
        """Make the bare environment, anew where there is one.

        Raises:
            InstallError: the folder holds something else.
        """
        if self.folder.exists():
            if any(self.folder.iterdir()) and not (self.folder / "pyvenv.cfg").is_file():
                raise InstallError(f"{self.folder} holds something else than a Python environment")
            for path in self.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (self.folder / TMP).mkdir(parents=True)
        (self.folder / "pyvenv.cfg").touch()  # so that one that is broken off is known as ours
        self.run("python -m venv", [sys.executable, "-m", "venv", str(self.folder)])

    def settings(self) -> dict[str, str]:
        """pip's settings in this environment.

        Raises:
            InstallError: pip can't read them.
        """
        command = [self.python, "-m", "pip", "config", "list"]
        listed = subprocess.run(command, env=self.environ, capture_output=True, text=True)
        if listed.returncode:
            raise InstallError(f"pip can't read its settings. {listed.stderr.strip()}")
        return pip_settings(listed.stdout)

    def uv(self) -> list[str]:
        """The command that starts uv: the one on PATH, else the pinned one, which is installed here.

        Raises:
            InstallError: it can't be had.
        """
        found = shutil.which("uv")
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return [found]
        pinned = next(
            line for line in REQUIREMENTS.read_text("utf-8").splitlines() if line.startswith("uv==")
        )
        self.run(f"pip install {pinned}", [self.python, "-m", "pip", "install", pinned])
        return [self.python, "-m", "uv"]

    def installer(self, wanted: str) -> tuple[list[str], dict[str, str]]:
        """Choose what installs, and say which and why.

        Args:
            wanted: auto, uv or pip.

        Returns:
            Its command, and the variables that tell it what pip's settings say.

        Raises:
            InstallError: uv is wanted and can't be had.
        """
        pip = [self.python, "-m", "pip", "install"]
        settings = self.settings()
        if wanted == "pip":
            say("pip installs")
            return pip, {}
        if wanted == "auto" and (names := untold(settings)):
            say(f"pip installs: uv can't be told what pip's settings say of {', '.join(names)}")
            return pip, {}
        try:
            uv = self.uv()
        except InstallError as error:
            if wanted == "uv" or error.is_final:
                raise
            say(f"pip installs: uv can't be had here (log: {self.log})")
            return pip, {}
        version = subprocess.run([*uv, "--version"], capture_output=True, text=True, check=True).stdout
        say(f"{' '.join(version.split()[:2])} installs ({' '.join(uv)})")
        arguments = [
            "pip",
            "install",
            "--python",
            self.python,
            *([f"--{NO_INDEX}"] if NO_INDEX in settings else []),
        ]
        return [*uv, *arguments], uv_environment(settings, self.environ)

    def fill(self, wanted: str) -> None:
        """Install what the project needs and the project itself, as a link to its folder."""
        command, variables = self.installer(wanted)
        self.run("installing requirements.txt", [*command, "-r", str(REQUIREMENTS)], variables)
        self.run("installing videomind", [*command, "--no-deps", "-e", str(REPO)], variables)
        shutil.rmtree(self.folder / TMP)
        partial = self.folder / f"{INSTALLED}.tmp"
        shutil.copyfile(REQUIREMENTS, partial)
        partial.replace(self.folder / INSTALLED)


def main() -> int:
    """Command-line entry. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Makes the Python environment that the scripts run in.")
    parser.add_argument("folder", type=Path, help="of the environment; an older one there is replaced")
    parser.add_argument("--installer", default="auto", choices=("auto", "uv", "pip"))
    args = parser.parse_args()
    environment = Environment(args.folder.absolute(), os.environ)
    version = ".".join(map(str, sys.version_info[:3]))
    say(f"Making {environment.folder} with Python {version} (log: {environment.log})")
    try:
        environment.make()
        environment.fill(args.installer)
    except InstallError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"Can't make {environment.folder}: {error}")
        return 1
    except KeyboardInterrupt:
        say("Stopped. The same command starts the installation anew.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
