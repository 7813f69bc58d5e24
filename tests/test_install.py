"""Making the environment: pip's settings hold for uv, and what goes wrong is one clear line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import install
import pytest
from helpers.runs import REPO

UNREACHABLE_BY_UV = """Using Python 3.11.7 environment at: v
error: Request failed after 3 retries in 9.3s
  cause: Failed to fetch: https://me:secret@{host}/simple/tabulate/
  cause: error sending request for url (https://{host}/simple/tabulate/)
  cause: client error (Connect)
  cause: Connection refused (os error 111)
"""
UNREACHABLE_BY_PIP = """WARNING: Retrying (Retry(total={left}, connect=None, read=None, status=None)) after \
connection broken by 'ProxyError('Cannot connect to proxy.', NewConnectionError('<HTTPSConnection object at \
0x7f3e>: Failed to establish a new connection: [Errno 111] Connection refused'))': /simple/{name}/
"""
NOT_FOUND = "ERROR: Could not find a version that satisfies the requirement x==1 (from versions: none)\n"
NO_SPACE = (
    "  cause: failed to copy file from /c/a.so to /v/.tmpZic: No space left on device (os error 28)\n",
    "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n\n 21/46 MB\n",
    "OSError: [Errno 122] Disk quota exceeded: '/v/lib'\n",
)


def test_pip_settings_in_the_order_in_which_pip_takes_them():
    listed = [
        "global.index-url='https://a/simple'",
        "global.timeout='5'",
        "install.timeout='6'",
        "download.timeout='7'",
        ":env:.index-url='https://b/simple?x=y'",
        "install.find-links='/w\\n/x'",
    ]
    expected = {"index-url": "https://b/simple?x=y", "timeout": "6", "find-links": "/w\n/x"}
    assert install.pip_settings("\n".join(listed)) == expected
    assert install.pip_settings("\n".join(reversed(listed))) == expected
    assert install.pip_settings("") == {}


def test_uv_is_told_what_pip_is(tmp_path):
    (tmp_path / "index").mkdir()
    here, gone = (tmp_path / "index").as_uri(), (tmp_path / "gone").as_uri()
    told = install.uv_environment(
        {
            "index-url": "https://a/simple",
            "extra-index-url": f"{here} {gone}\nhttps://b/simple",
            "find-links": f"{tmp_path / 'index'}\n{tmp_path / 'gone'} https://c/links",
            "trusted-host": "a b",
            "cert": "/certs.pem",
            "default-timeout": "180",
            "disable-pip-version-check": "1",
        },
        {"HOME": "/h", "SSL_CERT_FILE": "/mine.pem"},
    )
    assert told == {
        "HOME": "/h",
        "UV_DEFAULT_INDEX": "https://a/simple",
        "UV_INDEX": f"{here} https://b/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": f"{tmp_path / 'index'},https://c/links",
        "UV_INSECURE_HOST": "a b",
        "UV_HTTP_TIMEOUT": "180",
        "SSL_CERT_FILE": "/mine.pem",
    }
    assert install.uv_environment({"extra-index-url": gone, "find-links": "/gone"}, {}) == {}


def test_what_uv_cannot_be_told_is_named():
    harmless = dict.fromkeys(("index-url", "no-cache-dir", "progress-bar", "no-index"), "1")
    assert install.untold(harmless) == []
    assert install.untold(harmless | {"only-binary": ":all:", "pre": "1"}) == ["only-binary", "pre"]


@pytest.mark.parametrize("host", ["packages.invalid", "127.0.0.1:9"])
@pytest.mark.parametrize("proxy", [None, *install.PROXIES])
def test_what_could_not_be_reached_is_said(host, proxy):
    environ = {proxy: "http://me:secret@proxy:1"} if proxy else {}
    pip = (
        UNREACHABLE_BY_PIP.format(left=1, name="uv")
        + UNREACHABLE_BY_PIP.format(left=0, name="uv")
        + NOT_FOUND
    )
    uv, simple = UNREACHABLE_BY_UV.format(host=host), f"https://{host}/simple/tabulate/"
    for log, what, why in (
        (uv, simple, "Connection refused (os error 111)"),
        (uv.replace("cause:", "Caused by:"), simple, "Connection refused (os error 111)"),
        (pip, "/simple/uv/", "ProxyError"),
    ):
        line = install.explanation(log, environ, {})
        assert f"Could not reach {what} " in line and f": {why}. " in line
        assert "secret" not in line and "\n" not in line
        assert (f"the proxy that {proxy} names" if proxy else "without a proxy") in line


def test_a_connection_that_came_back_explains_nothing(tmp_path):
    assert install.explanation(UNREACHABLE_BY_PIP.format(left=3, name="torch") + NOT_FOUND, {}, {}) is None


@pytest.mark.parametrize("log", NO_SPACE)
def test_no_space_is_said_with_what_is_free(tmp_path, log):
    line = install.explanation("Collecting x\n" + log, {}, {"TMPDIR": tmp_path / "not" / "there"})
    assert line.startswith("No space left") and "\n" not in line
    free = shutil.disk_usage(tmp_path).free / 1e9
    said = float(line.split(" GB for TMPDIR")[0].split()[-1])
    assert said == pytest.approx(free, abs=5) and str(tmp_path / "not" / "there") in line


def run_install(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPO / "scripts/install.py"), str(folder), *arguments]
    base = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    return subprocess.run(command, env=base | env, capture_output=True, text=True)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    run = run_install(tmp_path)
    assert run.returncode == 1 and "holds something else than a Python environment" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.fixture
def stand_in(tmp_path) -> Path:
    """A PATH with a uv that only says how it was started."""
    (tmp_path / "path").mkdir()
    uv = tmp_path / "path" / "uv"
    uv.write_text('#!/bin/sh\necho "uv 9.8.7 $* index=$UV_DEFAULT_INDEX tmp=$TMPDIR"\n')
    uv.chmod(0o755)
    return tmp_path / "path"


@pytest.mark.parametrize("own_tmp", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_uv_on_path_installs(tmp_path, stand_in, own_tmp):
    folder = tmp_path / "v"
    variables = {
        "TMPDIR": str(tmp_path) if own_tmp else str(folder / "tmp"),
        "PIP_INDEX_URL": "https://a/simple",
    }
    run = run_install(folder, PATH=f"{stand_in}:/usr/bin:/bin", PIP_CONFIG_FILE=os.devnull, **variables)
    assert run.returncode == 0, run.stderr
    assert f"uv 9.8.7 installs ({stand_in}/uv)" in run.stderr
    requirements, package = (folder / "install.log").read_text().splitlines()[-2:]
    target = f"pip install --python {folder}/bin/python"
    assert requirements.startswith(f"uv 9.8.7 {target} -r {REPO}/requirements.txt ")
    assert package.startswith(f"uv 9.8.7 {target} --no-deps -e {REPO} ")
    assert requirements.endswith(f"index=https://a/simple tmp={variables['TMPDIR']}")
    assert (folder / "installed").read_bytes() == (REPO / "requirements.txt").read_bytes()
    assert not (folder / "tmp").exists()


@pytest.mark.parametrize("installer", ["auto", pytest.param("pip", marks=pytest.mark.slow)])
def test_a_dead_proxy_is_one_line(tmp_path, installer):
    """Without uv on PATH, so that it would have to be fetched."""
    nowhere = "http://127.0.0.1:9"
    offline = {"HTTPS_PROXY": nowhere, "https_proxy": nowhere, "HTTP_PROXY": nowhere, "http_proxy": nowhere}
    run = run_install(
        tmp_path / "v", "--installer", installer, **offline, PATH="/usr/bin:/bin", PIP_RETRIES="1",
        PIP_NO_CACHE_DIR="1", PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL="https://packages.invalid/simple",
    )  # fmt: skip
    last = run.stderr.splitlines()[-1]
    assert run.returncode == 1 and "Could not reach " in last and "/simple/" in last and "HTTPS_PROXY" in last
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "v" / "installed").exists()


@pytest.fixture
def copy(tmp_path) -> Path:
    """A checkout without history that holds what `scripts/env.sh` needs."""
    (tmp_path / "repo/scripts").mkdir(parents=True)
    for name in ("requirements.txt", "scripts/env.sh", "scripts/install.py"):
        shutil.copyfile(REPO / name, tmp_path / "repo" / name)
    return tmp_path / "repo"


def source_env(copy: Path, **env: str) -> subprocess.CompletedProcess:
    """What a script gets that sources env.sh: PYTHON and the folder of caches."""
    command = ["bash", "-c", 'set -euo pipefail; source scripts/env.sh; echo "$PYTHON ${XDG_CACHE_HOME:-}"']
    base = {"HOME": str(copy.parent), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=copy, env=base | env, capture_output=True, text=True)


def interpreters(folder: Path, **versions: tuple[str, bool]) -> str:
    """A PATH with stand-ins for interpreters. Args: name=(version, whether it has the venv module)."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "mkdir", "cmp"):
        (tools / name).symlink_to(shutil.which(name))
    for name, (version, has_venv) in versions.items():
        script = tools / name.replace("_", ".")
        script.write_text(
            '#!/bin/bash\ncase "$*" in\n'
            f"*version_info*) echo {version} ;;\n*ensurepip*) exit {int(not has_venv)} ;;\n"
            f'*) echo "made by {version}: $*" >&2; exit 3 ;;\nesac\n'
        )
        script.chmod(0o755)
    return str(tools)


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"python3_11": ("3.11", False)}, "apt-get install python3.11-venv"),
        ({"python3": ("3.13", False)}, "apt-get install python3.13-venv"),
        ({"python3_11": ("3.11", False), "python3": ("3.13", True)}, "made by 3.13: "),
        ({"python3_11": ("3.11", False), "python3_12": ("3.12", True)}, "made by 3.12: "),
        ({"python3": ("3.10", True), "python": ("3.12", True)}, "made by 3.12: "),
        ({"python3": ("3.9", True)}, "No Python 3.11, 3.12 or 3.13 found"),
        ({"python3": ("3.14", False)}, "No Python 3.11, 3.12 or 3.13 found"),
        ({}, "No Python 3.11, 3.12 or 3.13 found"),
    ],
)
def test_an_interpreter_that_can_make_environments_is_chosen(copy, versions, said):
    run = source_env(copy, PATH=interpreters(copy, **versions))
    assert run.returncode == 1 and run.stdout == ""
    assert said in run.stderr and len(run.stderr.splitlines()) == 1
    assert ("scripts/install.py" in run.stderr) == said.startswith("made by")


def test_the_interpreter_named_is_taken_or_refused(copy):
    path = interpreters(copy, python3_11=("3.11", True), python3_12=("3.12", True), python3=("3.10", True))
    assert "made by 3.12: " in source_env(copy, PATH=path, BASE_PYTHON="python3.12").stderr
    for wrong in ("python3", "nothing"):
        run = source_env(copy, PATH=path, BASE_PYTHON=wrong)
        assert run.returncode == 1 and f"BASE_PYTHON is {wrong}. Allowed: " in run.stderr


def test_an_environment_stands_until_the_requirements_change(copy):
    path = interpreters(copy, python3_11=("3.11", True))
    (copy / ".venv").mkdir()
    shutil.copyfile(copy / "requirements.txt", copy / ".venv/installed")
    assert source_env(copy, PATH=path).stdout.split()[0] == f"{copy}/.venv/bin/python"
    with open(copy / "requirements.txt", "a") as file:
        file.write("one-more\n")
    assert "made by 3.11: " in source_env(copy, PATH=path).stderr


@pytest.mark.parametrize("home", [None, "", "a file"])
def test_a_home_that_cannot_be_written_moves_the_caches(copy, home):
    (copy / "file").touch()
    env = {"PYTHON": "mine", "HOME": str(copy / "file"), "XDG_CACHE_HOME": ""}
    if home is None:
        env["XDG_CACHE_HOME"] = str(copy / "file/below")
    run = source_env(copy, **env)
    assert run.stdout.split() == ["mine", f"{copy}/work_dirs/cache"]
    assert "can't be written: caches go to" in run.stderr and (copy / "work_dirs/cache").is_dir()
    fine = source_env(copy, PYTHON="mine")
    assert fine.stdout.split() == ["mine"] and fine.stderr == ""


def test_modules_are_compiled_once_also_where_an_image_forbids_it(copy):
    module = copy / "here.py"
    module.touch()
    command = 'source scripts/env.sh; "$PYTHON" -c "import here"'
    env = {"HOME": str(copy.parent), "PATH": "/usr/bin:/bin", "PYTHON": sys.executable}
    subprocess.run(["bash", "-c", command], cwd=copy, env=env | {"PYTHONDONTWRITEBYTECODE": "1"}, check=True)
    assert list(copy.glob("__pycache__/here.*.pyc"))
