# Sourced by the other scripts: finds or makes a Python environment with everything installed.
#
# Sets PYTHON. With PYTHON set already that one is used as it is; otherwise .venv/ in the repository is made
# once from requirements.txt and made anew when that file changes.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3 python; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "No Python 3.11, 3.12 or 3.13 found. Install one, or set PYTHON to one with everything installed." >&2
    return 1
}

# Runs a command with its output in a log, and says every 20 s that it is still at it.
with_heartbeat() {
    local what=$1 logfile=$2 start=$SECONDS status=0
    shift 2
    mkdir -p "$(dirname "$logfile")"
    "$@" >"$logfile" 2>&1 &
    local job=$!
    while kill -0 "$job" 2>/dev/null; do
        sleep 1
        (((SECONDS - start) % 20)) || echo "  $what: $((SECONDS - start)) s" >&2
    done
    wait "$job" || status=$?
    if ((status)); then
        echo "$what failed. The end of $logfile:" >&2
        tail -n 20 "$logfile" >&2
    fi
    return "$status"
}

install_environment() {
    local found
    found=$(find_python) || return
    echo "Installing into $repo/.venv with $("$found" --version) (about five minutes)" >&2
    rm -rf "$repo/.venv"
    "$found" -m venv "$repo/.venv" || return
    with_heartbeat "pip install" "$repo/work_dirs/install.log" \
        "$repo/.venv/bin/python" -m pip install --disable-pip-version-check -r "$repo/requirements.txt" || return
    with_heartbeat "pip install videomind" "$repo/work_dirs/install_videomind.log" \
        "$repo/.venv/bin/python" -m pip install --disable-pip-version-check --no-deps -e "$repo" || return
    cksum <"$repo/requirements.txt" >"$repo/.venv/installed"
}

if [[ -z ${PYTHON:-} ]]; then
    if [[ $(cat "$repo/.venv/installed" 2>/dev/null) != "$(cksum <"$repo/requirements.txt")" ]]; then
        install_environment || exit 1
    fi
    PYTHON=$repo/.venv/bin/python
fi
export PYTHON
export PYTHONPATH="$repo${PYTHONPATH:+:$PYTHONPATH}"
