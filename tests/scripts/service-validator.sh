#!/usr/bin/env bash
# DMTF's redfish-service-validator against the simulator, offline. What it still finds is listed; more than the pinned number fails.
#
#   tests/scripts/service-validator.sh IRONYARD VENV [SCHEMAS]
set -euo pipefail
ironyard=${1:?program} venv=${2:?virtualenv}
schemas=${3:-$(cd "$(dirname "$0")/../.." && pwd)/../shared/schemas/redfish-publications.tar.xz}
known=${KNOWN_FAILURES:-0}
if [ ! -f "$schemas" ]; then
  echo "*** SKIPPED: redfish-service-validator: $schemas is not there ***"
  [ -z "${IRONYARD_REQUIRE_ALL:-}" ]
  exit
fi
work=$(mktemp -d)
"$ironyard" simulate --bmcs 1 --port 0 >"$work/out" &
simulator=$!
trap 'kill $simulator 2>/dev/null; wait $simulator 2>/dev/null; rm -rf "$work"' EXIT
until grep -q ready "$work/out"; do kill -0 $simulator; sleep 0.1; done
port=$(sed -E 's/.* port ([0-9]+);.*/\1/' "$work/out")
tar -xJf "$schemas" -C "$work"
csdl=$(find "$work" -type d -name csdl | head -1)
# The validator's own log is long; its exit code says only that something failed.
"$venv/bin/rf_service_validator" -r "http://127.80.0.1:$port" -u admin -p simulated --authtype Basic --schema_directory "$csdl" --skipschema \
  --logdir "$work/report" >"$work/log" 2>&1 || true
log=$(find "$work/report" -name '*Debug*.log' | head -1)
[ -n "$log" ] || { cat "$work/log"; exit 1; }
grep 'ERROR - FAIL' "$log" | sed -E 's/^.*ERROR - //' | sort | uniq -c | sort -rn || true
failures=$(grep -c 'ERROR - FAIL' "$log" || true)
echo "redfish-service-validator: $(grep -c 'Validating' "$work/log") resources, $failures failures, $known known"
[ "$(grep -c 'Validating' "$work/log")" -ge 30 ] || { echo "it saw too little to have validated anything"; exit 1; }
[ "$failures" -le "$known" ]
