"""A new environment under every supported Python, and the requirements of machines that can't be had here.

The cheap half of scripts/fresh.sh. Environments stay in work_dirs/fresh, so that a rerun is quick.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.import_all import NUM_MODULES, failing_opencv, import_all
from helpers.runs import REPO, environment
from install import INSTALLED, REQUIREMENTS, pip_settings, uv_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "VIDEOMIND_FRESH" not in os.environ, reason="makes three environments (VIDEOMIND_FRESH=1)"
    ),
]
VERSIONS = ("3.11", "3.12", "3.13")
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
# Of a machine that was chosen for its age: what is older than these can't run the pinned torch.
PLATFORMS = {"MacBook, macOS 14": "aarch64-apple-darwin", "Linux on Arm": "aarch64-manylinux_2_28"}
SOURCES = ("deepspeed", "nncore")  # without wheels; both are Python alone and install without a compiler
MISLABELLED = r"decord \S+ is not supported on this platform"  # its wheel names another Python inside
HEAVY = {"opencv-python", "opencv-python-headless", "h5py"}
# They read golden data, but ask nothing that another Python could answer otherwise: what lies on which
# pretended device, and which modes files get.
SAME_EVERYWHERE = (
    "tests/test_on_devices.py",
    "tests/video_chatgpt/test_chat_on_devices.py",
    "tests/test_permissions.py",
)
OWN_FILE = str(Path(__file__).relative_to(REPO))


def interpreters(version: str) -> Iterator[str]:
    """Interpreters of a version, on PATH and of pyenv, that can make environments."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [shutil.which(f"python{version}"), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))]
    code = f"import sys, venv, ensurepip; sys.exit('{version}' != '%d.%d' % sys.version_info[:2])"
    for python in filter(None, found):
        if subprocess.run([python, "-c", code], capture_output=True).returncode == 0:
            yield python


def interpreter(version: str) -> str:
    """The first interpreter of a version; the test is skipped where there is none."""
    found = next(interpreters(version), None)
    if found is None:
        pytest.skip(f"no Python {version} with its venv module on PATH or in pyenv")
    return found


def environment_python(version: str) -> str:
    """The interpreter of an environment made by scripts/env.sh, which stays for later runs.

    The one that the tests run in is taken for its version, where it was made so too.
    """
    own = Path(sys.prefix) / INSTALLED
    if version == OWN and own.is_file() and own.read_bytes() == REQUIREMENTS.read_bytes():
        return sys.executable
    folder = REPO / "work_dirs/fresh" / f"venv-{version}"
    env = environment(VENV=str(folder), BASE_PYTHON=interpreter(version))
    del env["PYTHON"]
    command = ["bash", "-c", 'source scripts/env.sh; echo "$PYTHON"']
    run = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture(scope="module", params=VERSIONS)
def python(request) -> str:
    return environment_python(request.param)


def test_every_module_imports(python, tmp_path):
    """Without opencv, and with one that fails for the lack of a desktop's libraries."""
    for found in (
        import_all("cv2", python=python),
        import_all(python=python, PYTHONPATH=f"{failing_opencv(tmp_path)}:{REPO}"),
    ):
        assert found == {"modules": NUM_MODULES, "loaded": [], "strays": []}


def test_the_whole_is_consistent(python):
    run = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True)
    said = [line for line in run.stdout.splitlines() if not re.match(MISLABELLED, line)]
    assert said in ([], ["No broken requirements found."]), run.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_the_package_installs_into_an_empty_environment(version, tmp_path):
    """Resolved only: with the newest versions that setup.py allows, and nothing that brings a desktop."""
    subprocess.run([interpreter(version), "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)
    told = uv("pip", "install", "--dry-run", "--python", str(tmp_path / "v/bin/python"), str(REPO))
    names = {line.split("==")[0].strip(" +") for line in told.splitlines() if line.startswith(" + ")}
    assert {"torch", "transformers", "peft", "av"} <= names and not names & HEAVY


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=PLATFORMS.keys())
def test_requirements_resolve_elsewhere(platform, version):
    """From wheels, but for two that have none: nothing needs a compiler there."""
    sources = [word for name in SOURCES for word in ("--no-binary", name)]
    where = ("--python-platform", platform, "--python-version", version)
    told = uv(
        *("pip", "compile", "-q", "--no-header", "--no-annotate", *where),
        *("--only-binary", ":all:", *sources, "requirements.txt"),
        MACOSX_DEPLOYMENT_TARGET="14.0",
    )
    names = {line.split("==")[0] for line in told.splitlines()}
    assert {"torch", "transformers", "peft", "av"} <= names
    assert ("deepspeed" in names) == ("linux" in platform) and "decord" not in names


def uv(*arguments: str, **variables: str) -> str:
    """What uv says.

    Args:
        arguments: its command line.
        variables: of its environment, beside what pip's settings tell it.
    """
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    env = uv_environment(pip_settings(listed.stdout), environment(**variables))
    command = [sys.executable, "-m", "uv", *arguments]
    run = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


def test_fast_tests_pass_under_another_python():
    """Golden data and units under the newest Python that this one is not."""
    other = next((v for v in reversed(VERSIONS) if v != OWN and next(interpreters(v), None)), None)
    if other is None:
        pytest.skip(f"no other Python than {OWN} on PATH or in pyenv")
    python = environment_python(other)
    marks = "golden and not slow and not gpu"
    marked = [path for path in (REPO / "tests").rglob("test_*.py") if "mark.golden" in path.read_text()]
    files = sorted({str(path.relative_to(REPO)) for path in marked} - {*SAME_EVERYWHERE, OWN_FILE})
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks, *files]
    run = subprocess.run(command, cwd=REPO, env=environment(PYTHON=python), capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert " passed" in run.stdout.splitlines()[-1]
