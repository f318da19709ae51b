#!/usr/bin/env bash
# Hands the clips of a spool to a cloud that runs on this machine for as long as that takes, over mTLS.
#
#   deploy/way-up.sh SPOOL FOLDER [VEHICLE]        ROADFUSE=path/to/roadfuse
#
# FOLDER is made, for the cloud's data. PostgreSQL does not run as root: its own user must be able to reach it then.
set -euo pipefail
spool=$1 folder=$2 vehicle=${3:-car-1} roadfuse=${ROADFUSE:-roadfuse}
mkdir -m 755 "$folder"
identity=$folder/$vehicle

"$roadfuse" cloud ca init --data "$folder/data" >/dev/null
"$roadfuse" cloud serve --data "$folder/data" --port 0 --enrol-port 0 >"$folder/addresses" 2>"$folder/log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
for _ in $(seq 300); do
  [ "$(wc -l <"$folder/addresses")" -ge 2 ] && break
  kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
  sleep 0.2
done
port() { sed -n "s/^$1 .*:\([0-9]*\)$/\1/p" "$folder/addresses"; }

token=$("$roadfuse" cloud enrol-token --data "$folder/data" "$vehicle")
"$roadfuse" uplink enrol --cloud "localhost:$(port enrolment)" --ca "$folder/data/ca/ca.pem" \
  --vehicle "$vehicle" --token "$token" --identity "$identity" >/dev/null
"$roadfuse" uplink run --spool "$spool" --cloud "localhost:$(port ingest)" --identity "$identity" --clips all --once
"$roadfuse" uplink status --spool "$spool"
"$roadfuse" cloud gap --data "$folder/data"
