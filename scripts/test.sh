#!/usr/bin/env bash
# Runs the checks: format, lint (Python and shell), tests. From a fresh clone it installs everything first.
#
#   bash scripts/test.sh [--all] [PYTEST_ARGUMENTS...]      --all adds the slow tests
set -euo pipefail
unset CDPATH # it would change what cd goes to and says
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/env.sh
source scripts/env.sh

marks="not slow and not gpu" processes=2
if [[ ${1:-} == --all ]]; then
    marks="not gpu" processes=3 # slow tests wait now and then
    shift
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false

# Only what is tracked: what runs write into the checkout is not ours to format. Without git all there is.
python=()
while IFS= read -r -d '' path; do
    [[ -f $path ]] && python+=("$path")
done < <(git ls-files -z -- '*.py' 2>/dev/null)
((${#python[@]})) || python=(.)
"$PYTHON" -m ruff format --force-exclude --check ${python[@]+"${python[@]}"}
"$PYTHON" -m ruff check --force-exclude ${python[@]+"${python[@]}"}
shellcheck=$(dirname "$PYTHON")/shellcheck
if [[ -x $shellcheck ]] || shellcheck=$(command -v shellcheck); then
    find scripts .ci -type f '(' -name '*.sh' -o -name '*.sbatch' -o -name run ')' -exec "$shellcheck" '{}' +
else
    echo "SKIPPED shellcheck: none is installed, and its package has none for this machine"
fi
exec "$PYTHON" -m pytest -m "$marks" -n "${TEST_PROCESSES:-$processes}" --dist loadscope --no-loadscope-reorder \
    -q --durations 10 "$@"
