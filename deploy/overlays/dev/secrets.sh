#!/usr/bin/env bash
# Secrets of a development cluster: certificates, the gateway's key, the database's password. Made once; run again, it changes nothing.
#
#   deploy/overlays/dev/secrets.sh IRONYARD
set -euo pipefail
ironyard=${1:?program}
kubectl get namespace ironyard >/dev/null 2>&1 || kubectl create namespace ironyard
kubectl -n ironyard get secret bmc-gateway-key >/dev/null 2>&1 && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
services=(inventory bmc-gateway discovery claim maintenance)
"$ironyard" certs --out "$work" --hosts localhost --hosts 127.0.0.1
for service in "${services[@]}"; do
  kubectl -n ironyard create secret generic "$service-tls" --from-file=ca.crt="$work/ca.pem" --from-file=tls.crt="$work/$service.pem" --from-file=tls.key="$work/$service.key"
done
password=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
kubectl -n ironyard create secret generic ironyard-database --from-literal=password="$password" --from-literal=url="postgres://postgres:$password@postgres:5432/postgres"
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/key"
kubectl -n ironyard create secret generic bmc-gateway-key --from-file=key="$work/key"
