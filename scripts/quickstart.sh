#!/usr/bin/env bash
# The main job on an embedded default: renders videos with known moments and questions, makes a tiny model, trains
# grounder, verifier and planner with the same code as a real run, and evaluates the chain of them.
#
#   bash scripts/quickstart.sh [--fresh] [--grounder-only] [--from-scratch]
#   bash scripts/quickstart.sh video_chatgpt [--fresh]      the other model family
#
#   --fresh           starts over; otherwise finished steps are skipped
#   --grounder-only   the short run: the grounder before and after its training
#   --from-scratch    makes the tiny base as well, which comes with the code (model_zoo/tiny-qwen2-vl)
#
# Needs Python 3.11 to 3.13 and git; uses a GPU or NPU if there is one. Everything goes to work_dirs/quickstart,
# that of the short run to work_dirs/quickstart_grounder (QUICKSTART_DIR overrides it).
set -euo pipefail
unset CDPATH # it would change what cd goes to and says
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/env.sh
source scripts/env.sh
exec "$PYTHON" -m videomind.cli quickstart "$@"
