#!/usr/bin/env bash
# Every benchmark, one after the other. The numbers go to artefacts/benchmarks/*.json, or to the folder that is named.
# A benchmark that fails or takes longer than ten minutes does not stop the others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out=${1:-artefacts/benchmarks}
mkdir -p "$out"
failed=()
ask() {
    local name=$1 question=$2
    shift 2
    printf '\n== %s\n' "$name"
    timeout --kill-after=90 600 .venv/bin/python "scripts/benchmarks/$question.py" --json "$out/$name.json" "$@" ||
        failed+=("$name")
}
ask ingest-plain ingest --peer plain --rounds 2
ask ingest-tuned ingest --peer tuned --rounds 2
ask history-plain history --peer plain
ask history-tuned history --peer tuned
ask index_memory index_memory
ask backfill backfill --rounds 2
ask ride_stream ride_stream
ask incremental incremental --rounds 3
ask warehouse warehouse --rounds 2
ask matching matching
ask serve_proxy serve_proxy
ask forecast forecast
ask idle_cpu idle_cpu
[ "${#failed[@]}" -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
