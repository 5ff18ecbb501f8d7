#!/usr/bin/env bash
# The five services as processes of their own on loopback: mutual TLS, PostgreSQL, one schema each. A service that ends is started again.
#
#   deploy/loopback.sh FOLDER DATABASE_URL [BASE_PORT] [FOLDER_WITH_PROGRAMS]
#
# Certificates, configurations, logs and process ids go to FOLDER; `ironyard.env` there is what the command line needs. Ctrl-C ends it all.
set -euo pipefail
folder=${1:?folder}; database=${2:?database URL}; base=${3:-7710}; bin=${4:-target/debug}
mkdir -p "$folder"
"$bin/${IRONYARD_CLI:-ironyard}" certs --out "$folder/tls" >/dev/null
[ -f "$folder/key" ] || (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$folder/key")

declare -A port=([inventory]=$base [bmc-gateway]=$((base + 1)) [discovery]=$((base + 2)) [claim]=$((base + 3)) [maintenance]=$((base + 4)))
tls=$folder/tls
for service in "${!port[@]}"; do
  {
    printf '[server]\nlisten = "127.0.0.1:%s"\nops_listen = "127.0.0.1:%s"\n' "${port[$service]}" "$((${port[$service]} + 10))"
    printf '[server.tls]\nclient_ca = "%s"\ncertificate = "%s"\nkey = "%s"\n' "$tls/ca.pem" "$tls/$service.pem" "$tls/$service.key"
    printf '[database]\nurl = "%s"\nschema = "%s"\n' "$database" "${service//-/_}"
    case $service in
      discovery | claim | maintenance)
        printf '[peers]\ninventory = "https://127.0.0.1:%s"\nbmc_gateway = "https://127.0.0.1:%s"\ndiscovery = "https://127.0.0.1:%s"\n' \
          "${port[inventory]}" "${port[bmc-gateway]}" "${port[discovery]}"
        printf '[peers.tls]\nca = "%s"\ncertificate = "%s"\nkey = "%s"\n' "$tls/ca.pem" "$tls/$service.pem" "$tls/$service.key"
        ;;
    esac
    case $service in
      bmc-gateway)
        printf '[gateway]\nkey_file = "%s"\nallowed_ranges = ["127.0.0.0/8"]\n' "$folder/key"
        printf '[gateway.inventory]\naddress = "https://127.0.0.1:%s"\n' "${port[inventory]}"
        printf '[gateway.inventory.tls]\nca = "%s"\ncertificate = "%s"\nkey = "%s"\n' "$tls/ca.pem" "$tls/$service.pem" "$tls/$service.key"
        ;;
      discovery)
        printf '[discovery]\nagent_url = "https://127.0.0.1:%s"\nin_band = "%s"\nfirst_wipe = "%s"\n' "${port[discovery]}" "${IN_BAND:-optional}" "${FIRST_WIPE:-waive}"
        printf '[discovery.image]\nsimulated = true\nlisten = "127.0.0.1:%s"\nauthority = "%s"\n' "$((base + 20))" "$tls/ca.pem"
        ;;
    esac
  } >"$folder/$service.toml"
done

cat >"$folder/ironyard.env" <<ENV
export IRONYARD_INVENTORY=https://127.0.0.1:${port[inventory]}
export IRONYARD_BMC_GATEWAY=https://127.0.0.1:${port[bmc-gateway]}
export IRONYARD_DISCOVERY=https://127.0.0.1:${port[discovery]}
export IRONYARD_CLAIM=https://127.0.0.1:${port[claim]}
export IRONYARD_MAINTENANCE=https://127.0.0.1:${port[maintenance]}
export IRONYARD_CA=$tls/ca.pem IRONYARD_CERT=$tls/administrator.pem IRONYARD_KEY=$tls/administrator.key
ENV

supervise() {
  while :; do
    "$bin/ironyard-$1" --config "$folder/$1.toml" 2>>"$folder/$1.log" &
    echo $! >"$folder/$1.pid"
    wait $! || true
    sleep 1
  done
}

stop() {
  trap - INT TERM EXIT
  kill "${supervisors[@]}" 2>/dev/null || true
  for service in "${!port[@]}"; do kill "$(cat "$folder/$service.pid")" 2>/dev/null || true; done
}
trap stop INT TERM EXIT
supervisors=()
for service in "${!port[@]}"; do
  supervise "$service" &
  supervisors+=($!)
done
echo "ready: source $folder/ironyard.env"
wait
