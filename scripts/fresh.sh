#!/usr/bin/env bash
# A fresh machine: clones this checkout and runs the README's two commands in it to the letter, with their times.
#
#   bash scripts/fresh.sh [bookworm] [trixie] [--python VERSION]... [--newest VERSION]... [--keep]
#
#   bookworm, trixie   in a minimal Debian 12, 13: python3, python3-venv, git, ca-certificates and nothing else. As
#                      root on Linux with debootstrap. Both by default
#   --python VERSION   on this machine with another Python, e.g. 3.12, from PATH or pyenv
#   --newest VERSION   instead of the two: `pip install .` into an empty environment of that Python, with the newest
#                      versions that setup.py allows (listed in newestVERSION.txt), and the fast tests with them
#   --keep             leaves what was made; otherwise only logs and lists stay
#
# The quickstart is the short one (--grounder-only). What is committed is cloned. Environment (all optional):
#   FRESH_DIR       folder for it all, 8 GB per machine (default work_dirs/fresh)
#   DEBIAN_MIRROR   where Debian's packages come from (default: where this machine's do)
#   PIP_*, UV_*, *_PROXY, certificates, pip's and uv's files: as they are here, so they are in there
set -euo pipefail
unset CDPATH # it would change what cd goes to and says
cd "$(dirname "${BASH_SOURCE[0]}")/.."
usage="Usage: bash scripts/fresh.sh [bookworm] [trixie] [--python VERSION]... [--newest VERSION]... [--keep]"

keep='' machines=''
while (($#)); do
    case $1 in
    bookworm | trixie) machines+=" $1" ;;
    --python | --newest)
        machines+=" ${1#--}${2:?"$1 needs a version. $usage"}"
        shift
        ;;
    --keep) keep=yes ;;
    *)
        echo "Unknown argument $1. $usage" >&2
        exit 2
        ;;
    esac
    shift
done
machines=${machines:-bookworm trixie}
work=${FRESH_DIR:-work_dirs/fresh}
mkdir -p "$work"
work=$(cd "$work" && pwd)

need() { # COMMAND: which makes or enters a Debian
    if ! command -v "$1" >/dev/null || ((EUID != 0)); then
        echo "A minimal Debian needs root and $1 (apt-get install debootstrap util-linux)." >&2
        exit 2
    fi
}

remove() { # FOLDER: never through something mounted in it
    if grep -qF " $1/" /proc/self/mounts; then
        echo "Something is mounted below $1: left as it is." >&2
        return 1
    fi
    rm -rf --one-file-system "$1"
}

make_debian() { # SUITE ROOT
    local suite=$1 root=$2 mirror=${DEBIAN_MIRROR:-}
    # shellcheck disable=SC2016 # apt fills it in
    mirror=${mirror:-$(apt-get indextargets --format '$(SITE)' 2>/dev/null | grep -m 1 '/debian$' || true)}
    debootstrap --variant=minbase --include=python3,python3-venv,git,ca-certificates "$suite" "$root" \
        ${mirror:+"$mirror"} || return
    # How this machine reaches its package index: names, certificates, settings.
    local file
    for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt /etc/pip.conf /etc/uv/uv.toml \
        "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}" "${PIP_CONFIG_FILE:-}" "${UV_CONFIG_FILE:-}"; do
        [[ ! -f $file ]] || install -D -m 644 "$file" "$root$file"
    done
    for file in .config/pip/pip.conf .pip/pip.conf .config/uv/uv.toml; do
        [[ ! -f $HOME/$file ]] || install -D -m 644 "$HOME/$file" "$root/root/$file"
    done
}

here() { # COMMAND
    cd "$folder" && exec env -u PYTHON -u VENV -u PYTHONPATH BASE_PYTHON="$base" bash -c "$1"
}

in_debian() { # COMMAND: with nothing of this environment but what reaching the package index takes
    local settings=() name
    for name in $(compgen -e | grep -E '^(PIP|UV)_|_(PROXY|proxy)$|^(SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE)$'); do
        settings+=("$name=${!name}")
    done
    # What is mounted and started in there ends with unshare, however it ends.
    exec env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        ${settings[@]+"${settings[@]}"} unshare --mount --pid --fork --kill-child \
        bash scripts/fresh/enter.sh "$folder" "cd /root/videomind && $1"
}

find_interpreter() { # VERSION: prints one that starts
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1"*/bin/python; do
        if "$candidate" -c '' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "No Python $1 on PATH or in pyenv." >&2
    return 1
}

run() { # COMMAND: in the clone, by what $enter names; the time goes to the summary
    local start=$SECONDS
    "$enter" "$1" </dev/null > >(tee -a "$folder.log") 2>&1 &
    job=$!
    if wait "$job"; then
        summary+=("$machine: $1: $((SECONDS - start)) s")
    else
        summary+=("$machine: $1: FAILED after $((SECONDS - start)) s (log: $folder.log)")
        failed=yes
    fi
    job=''
}

run_both() { # what the README promises
    run "bash scripts/quickstart.sh --grounder-only"
    run "bash scripts/test.sh"
}

run_newest() { # on what a user gets in a year
    run "$base -m venv empty"
    run "empty/bin/python -m pip install ."
    "$folder/empty/bin/python" -m pip list --format freeze --exclude videomind >"$work/$machine.txt"
    run "empty/bin/python -m pip install '.[dev,deepspeed,decord,nncore]'" # what the tests need
    run "empty/bin/python -m pytest -q -m 'not slow and not gpu' -n 2 --dist loadscope"
}

finish() { # whatever ends this script: what it started and made goes with it
    if [[ $job ]]; then
        kill -TERM "$job" 2>/dev/null || true
        kill -KILL "$job" 2>/dev/null || true # unshare ignores the first, and takes all in there along
        wait "$job" 2>/dev/null || true
    fi
    [[ $keep || ! $folder ]] || remove "$folder"
}

version_of() { echo "${1#??????}"; } # MACHINE: pythonVERSION or newestVERSION

for machine in $machines; do
    case $machine in
    bookworm | trixie) need debootstrap && need unshare ;;
    *) find_interpreter "$(version_of "$machine")" >/dev/null ;;
    esac
done
job='' folder='' failed=''
trap finish EXIT
trap 'exit 130' INT TERM
summary=("Commit: $(git log -1 --format='%h %s')")
echo "${summary[0]}"
[[ -z $(git status --porcelain) ]] || echo "What is not committed is left out."
for machine in $machines; do
    folder=$work/$machine
    remove "$folder"
    rm -f "$folder.log"
    case $machine in
    bookworm | trixie)
        start=$SECONDS
        make_debian "$machine" "$folder" >"$folder.log" 2>&1 || { tail -n 20 "$folder.log" >&2; exit 1; }
        summary+=("$machine: a minimal Debian $(cat "$folder/etc/debian_version"): $((SECONDS - start)) s")
        git clone -q . "$folder/root/videomind"
        enter=in_debian
        run_both
        ;;
    *)
        base=$(find_interpreter "$(version_of "$machine")")
        git clone -q . "$folder"
        enter=here
        if [[ $machine == newest* ]]; then run_newest; else run_both; fi
        ;;
    esac
    [[ $keep ]] || remove "$folder"
done
printf '\n%s\n' "Results on $(uname -sm), $(nproc) cores:"
printf '  %s\n' "${summary[@]}"
[[ -z $failed ]]
