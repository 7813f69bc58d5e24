# shellcheck shell=bash
# Sourced by the other scripts: finds or makes a Python environment with everything installed.
#
# Sets PYTHON. With PYTHON set already that one is used as it is; otherwise .venv/ in the repository is made
# once from requirements.txt and made anew when that file changes. Environment (all optional):
#   VENV          folder of the environment (default .venv)
#   BASE_PYTHON   the Python that a new one is made with (default: the first of 3.11, 3.12, 3.13 that can)
#   INSTALLER     uv or pip (default: uv where it can be had)

repo=$(unset CDPATH && cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() { # CANDIDATES...: prints the first that is of a supported version and can make environments
    local candidate version incomplete=''
    for candidate in "$@"; do
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case $version in
        3.11 | 3.12 | 3.13) ;;
        *) continue ;;
        esac
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
        incomplete=${incomplete:-$version}
    done
    if [[ $incomplete ]]; then
        echo "Python $incomplete has no venv module here; Debian and Ubuntu keep it apart:" \
            "apt-get install python$incomplete-venv (as root)." >&2
    elif [[ ${BASE_PYTHON:-} ]]; then
        echo "BASE_PYTHON is $BASE_PYTHON. Allowed: a Python 3.11, 3.12 or 3.13." >&2
    else
        echo "No Python 3.11, 3.12 or 3.13 found. Install one (Debian, Ubuntu: apt-get install python3 python3-venv)," \
            "or name one in BASE_PYTHON; PYTHON names one with everything installed." >&2
    fi
    return 1
}

# What compiles or downloads keeps it in the home folder, which batch nodes and containers often write-protect.
keep_caches() {
    local cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}
    if ! mkdir -p "$cache" 2>/dev/null || [[ ! -w $cache ]]; then
        export XDG_CACHE_HOME=$repo/work_dirs/cache
        echo "$cache can't be written: caches go to $XDG_CACHE_HOME" >&2
        mkdir -p "$XDG_CACHE_HOME"
    fi
}

make_environment() { # FOLDER
    local base
    if [[ ${BASE_PYTHON:-} ]]; then
        base=$(find_python "$BASE_PYTHON") || return
    else
        base=$(find_python python3.11 python3.12 python3.13 python3 python) || return
    fi
    "$base" "$repo/scripts/install.py" "$1" --installer "${INSTALLER:-auto}"
}

keep_caches
# Images set it to stay small. What uv installs is not compiled: every process would compile torch again, 8 s.
unset PYTHONDONTWRITEBYTECODE
if [[ -z ${PYTHON:-} ]]; then
    venv=${VENV:-$repo/.venv}
    if ! cmp -s "$repo/requirements.txt" "$venv/installed"; then
        make_environment "$venv" || exit 1
    fi
    PYTHON=$venv/bin/python
fi
export PYTHON
export PYTHONPATH="$repo${PYTHONPATH:+:$PYTHONPATH}"
