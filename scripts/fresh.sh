#!/usr/bin/env bash
# A fresh machine: clones this checkout and runs the README's two commands in it to the letter, with their times.
#
#   bash scripts/fresh.sh [bookworm] [trixie] [--python VERSION]... [--keep]
#
#   bookworm, trixie   in a minimal Debian 12, 13: python3, python3-venv, git, ca-certificates and nothing else. As
#                      root on Linux with debootstrap. Both by default
#   --python VERSION   on this machine with another Python, e.g. 3.12, from PATH or pyenv
#   --keep             leaves what was made; otherwise only the logs stay
#
# The quickstart is the short one (--grounder-only). What is committed is cloned. Environment (all optional):
#   FRESH_DIR       folder for it all, 8 GB per machine (default work_dirs/fresh)
#   DEBIAN_MIRROR   where Debian's packages come from (default: where this machine's do)
#   PIP_*, UV_*, *_PROXY, certificates, pip's and uv's files: as they are here, so they are in there
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
usage="Usage: bash scripts/fresh.sh [bookworm] [trixie] [--python VERSION]... [--keep]"
COMMANDS=("scripts/quickstart.sh --grounder-only" "scripts/test.sh")

keep='' machines=''
while (($#)); do
    case $1 in
    bookworm | trixie) machines+=" $1" ;;
    --python)
        machines+=" python${2:?"--python needs a version. $usage"}"
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
        ${mirror:+"$mirror"}
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

in_debian() { # ROOT COMMAND: with nothing of this environment but what reaching the package index takes
    local settings=() name
    for name in $(compgen -e | grep -E '^(PIP|UV)_|_(PROXY|proxy)$|^(SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE)$'); do
        settings+=("$name=${!name}")
    done
    # What is mounted and started in there ends with it, however it ends.
    env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        ${settings[@]+"${settings[@]}"} unshare --mount --pid --fork --kill-child \
        bash scripts/fresh/enter.sh "$1" "cd /root/videomind && $2"
}

find_interpreter() { # pythonVERSION: prints one that starts
    local candidate
    for candidate in "$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/${1#python}"*/bin/python; do
        if "$candidate" -c '' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "No $1 on PATH or in pyenv." >&2
    return 1
}

run_commands() { # MACHINE FOLDER PREFIX...: PREFIX... COMMAND runs a command in the clone
    local machine=$1 folder=$2 command start status=0
    shift 2
    for command in "${COMMANDS[@]}"; do
        start=$SECONDS
        if "$@" "bash $command" </dev/null 2>&1 | tee -a "$folder.log"; then
            summary+=("$machine: bash $command: $((SECONDS - start)) s")
        else
            summary+=("$machine: bash $command: FAILED after $((SECONDS - start)) s (log: $folder.log)")
            status=1
        fi
    done
    return "$status"
}

for machine in $machines; do
    [[ $machine == python* ]] || { need debootstrap && need unshare; }
done
summary=("Commit: $(git log -1 --format='%h %s')") failed=''
echo "${summary[0]}"
[[ -z $(git status --porcelain) ]] || echo "What is not committed is left out."
for machine in $machines; do
    folder=$work/$machine
    remove "$folder"
    rm -f "$folder.log"
    trap '[[ $keep ]] || remove "$folder"' EXIT
    case $machine in
    python*)
        base=$(find_interpreter "$machine")
        git clone -q . "$folder"
        here() { (cd "$folder" && env -u PYTHON -u VENV -u PYTHONPATH BASE_PYTHON="$base" bash -c "$1"); }
        run_commands "$machine" "$folder" here || failed=yes
        ;;
    *)
        start=$SECONDS
        make_debian "$machine" "$folder" >"$folder.log" 2>&1 || { tail -n 20 "$folder.log" >&2; exit 1; }
        git clone -q . "$folder/root/videomind"
        summary+=("$machine: a minimal Debian $(cat "$folder/etc/debian_version"): $((SECONDS - start)) s")
        run_commands "$machine" "$folder" in_debian "$folder" || failed=yes
        ;;
    esac
    [[ $keep ]] || remove "$folder"
done
printf '\n%s\n' "Results on $(uname -sm), $(nproc) cores:"
printf '  %s\n' "${summary[@]}"
[[ -z $failed ]]
