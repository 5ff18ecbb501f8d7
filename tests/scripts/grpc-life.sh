#!/usr/bin/env bash
# Runs the calls of docs/grpcurl.md as they stand there, with Python's gRPC over reflection instead of grpcurl: the whole life by gRPC alone.
#
#   tests/scripts/grpc-life.sh IRONYARD VENV
set -euo pipefail
ironyard=${1:?program} venv=${2:?virtualenv}
here=$(cd "$(dirname "$0")" && pwd)
data=$(mktemp -d)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$ironyard" up --simulate 4 --in-band off --port "$port" --data "$data" >"$data/out" 2>"$data/log" &
up=$!
trap 'kill $up 2>/dev/null; wait $up 2>/dev/null; rm -rf "$data"' EXIT
until grep -q ready "$data/out"; do kill -0 $up; sleep 0.1; done
"$venv/bin/python" "$here/grpc_life.py" "127.0.0.1:$port" "$here/../../docs/grpcurl.md" "$here/../../proto"
