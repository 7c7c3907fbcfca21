#!/usr/bin/env bash
# Every benchmark, one after the other, some fifteen minutes on two cores. The numbers go to artefacts/benchmarks/*.json,
# or to the folder that is named. A benchmark that fails or takes longer than ten minutes does not stop the others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out=${1:-artefacts/benchmarks}
mkdir -p "$out"
failed=()
for question in ingest history index_memory serve_proxy idle_cpu; do
    printf '\n== %s\n' "$question"
    timeout --kill-after=90 600 .venv/bin/python "scripts/benchmarks/$question.py" --json "$out/$question.json" ||
        failed+=("$question")
done
[ "${#failed[@]}" -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
