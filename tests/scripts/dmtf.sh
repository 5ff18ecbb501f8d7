#!/usr/bin/env bash
# DMTF's tools against the simulator: redfish-service-validator (offline) on every family, redfish-protocol-validator, redfish-use-case-checkers,
# and the tools of redfish_utilities as a second client. Failures that are known are listed here with their reasons; any other fails.
#
#   tests/scripts/dmtf.sh IRONYARD VENV [SCHEMAS]
set -euo pipefail
ironyard=${1:?program} venv=${2:?virtualenv}
schemas=${3:-$(cd "$(dirname "$0")/../.." && pwd)/../shared/schemas/redfish-publications.tar.xz}
work=$(mktemp -d)
simulator=
stop() { if [ -n "$simulator" ]; then kill "$simulator" 2>/dev/null || true; wait "$simulator" 2>/dev/null || true; simulator=; fi; }
trap 'stop; rm -rf "$work"' EXIT
start() {
  stop
  # What the one before has said must not be taken for this one's.
  : >"$work/out"
  "$ironyard" simulate --port 0 "$@" >"$work/out" &
  simulator=$!
  until grep -q ready "$work/out"; do kill -0 $simulator; sleep 0.1; done
  port=$(sed -E 's/.* port ([0-9]+);.*/\1/' "$work/out")
}
failed=0

if [ -f "$schemas" ]; then
  tar -xJf "$schemas" -C "$work"
  csdl=$(find "$work" -type d -name csdl | head -1)
  for family in generic idrac ilo xcc supermicro ami openbmc; do
    start --bmcs 1 --profile "$family"
    "$venv/bin/rf_service_validator" -r "http://127.80.0.1:$port" -u admin -p simulated --authtype Basic --schema_directory "$csdl" --skipschema \
      --logdir "$work/$family" >"$work/$family.log" 2>&1 || true
    log=$(find "$work/$family" -name '*Debug*.log' | head -1)
    [ -n "$log" ] || { cat "$work/$family.log"; exit 1; }
    # iLO's clock is HPE's own resource: there is no DMTF schema for it. Recorded iLO trees have it so.
    grep 'ERROR - FAIL' "$log" | sed -E 's/^.*ERROR - //' | grep -v 'HpeiLODateTime\|/Managers/1/DateTime' | sort | uniq -c >"$work/failures" || true
    count=$(grep -c 'Validating' "$work/$family.log" || true)
    echo "redfish-service-validator: $family: $count resources, $(wc -l <"$work/failures") kinds of failure"
    cat "$work/failures"
    [ "$count" -ge 30 ] || { echo "it saw too little to have validated anything"; exit 1; }
    [ ! -s "$work/failures" ] || failed=1
  done
else
  echo "*** SKIPPED: redfish-service-validator: $schemas is not there ***"
  [ -z "${IRONYARD_REQUIRE_ALL:-}" ]
fi

start --bmcs 1 --tls
root=https://127.80.0.1:$port
openssl s_client -connect "127.80.0.1:$port" </dev/null 2>/dev/null | openssl x509 >"$work/ca.pem"
export REQUESTS_CA_BUNDLE=$work/ca.pem
"$venv/bin/rf_protocol_validator" -r "$root" -u admin -p simulated --ca-bundle "$work/ca.pem" --report-dir "$work/protocol" >"$work/protocol.log" 2>&1 || true
grep Summary "$work/protocol.log" | sed 's/^/redfish-protocol-validator: /'
# Known, and why: accounts of the simulator have roles but no privileges (every account may do everything), and the change of a password that
# is asked for before anything else is a knob of the whole BMC, not a property of one account. An account's unknown properties are refused
# together with the known ones.
known='SEC_PRIV_OPERATION_TO_PRIV_MAPPING|SEC_PWD_CHANGE_REQ_ALLOW_SESSION_LOGIN|SEC_PWD_CHANGE_REQ_DISALLOW_ALL_OTHERS|REQ_PATCH_MIXED_PROPS'
cut -f1-6 "$work"/protocol/*.tsv | grep -P '\tFAIL\t' | tee "$work/protocol.fail" | grep -E "^($known)" | sed 's/^/  known: /' | cut -c1-200 || true
if grep -vE "^($known)" "$work/protocol.fail"; then failed=1; fi
[ "$(grep -cP '\tPASS\t' "$work"/protocol/*.tsv)" -ge 300 ] || { echo "it saw too little to have validated anything"; exit 1; }

"$venv/bin/rf_use_case_checkers" -r "$root" -u admin -p simulated --report-dir "$work/cases" \
  --test-list PowerControl BootOverride AccountManagement QueryParameters >"$work/cases.log" 2>&1 || true
grep -A3 'PASS' "$work/cases.log" | sed 's/^/redfish-use-case-checkers: /'
grep -A2 'PASS' "$work/cases.log" | tail -1 | awk -F'|' '{ if ($2 + 0 < 20 || $4 + 0 > 0) exit 1 }' || failed=1

tool() { # name, words that its answer must hold, arguments
  local name=$1 words=$2
  shift 2
  if "$venv/bin/$name" -u admin -p simulated -r "$root" "$@" >"$work/tool" 2>&1 && grep -q "$words" "$work/tool"; then
    echo "$name $*: works"
  else
    echo "$name $*: FAILS"; cat "$work/tool"; failed=1
  fi
}
tool rf_sys_inventory.py 'NV000000A'
tool rf_sensor_list.py 'Inlet'
tool rf_firmware_inventory.py 'BIOS'
tool rf_accounts.py 'Administrator'
tool rf_bios_settings.py 'Virtualization'
tool rf_bios_settings.py 'Virtualization' -a Virtualization Enabled
tool rf_boot_override.py '' -t Pxe
tool rf_boot_override.py 'Target: Pxe' -i
tool rf_power_reset.py '' -t On
tool rf_manager_config.py 'Firmware' info
tool rf_virtual_media.py 'CD1' info
tool rf_virtual_media.py '' insert -image http://192.0.2.1/x.iso
tool rf_virtual_media.py '' eject -i CD1
tool rf_update.py '' -i http://192.0.2.1/NIC1-30.0.0.bin
tool rf_event_service.py 'Subscription'
tool rf_certificates.py '' info
[ "$failed" = 0 ]
