#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Builds rxpeer and proves that it works: every operation, over null security
# and the three rxkad levels, with loss, with parallel calls, and through the
# relay udpmangle.py.
#
#   peer.sh build DIR     makes DIR/bin/rxpeer
#   peer.sh check DIR     builds and runs the checks (about 40 s)
#
# Needs no root. Uses free UDP ports on 127.0.0.1.
set -u
VERB=${1-}; DIR=${2-}
{ [ "$VERB" = build ] || [ "$VERB" = check ]; } && [ -n "$DIR" ] || { sed -n '3,/^set -u/p' "$0" | sed 's/^# \{0,1\}//;$d' >&2; exit 2; }
HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$DIR"
make -s -C "$HERE" OUT="$(realpath "$DIR")/bin" || exit 1
P=$DIR/bin/rxpeer
[ "$VERB" = build ] && { echo "built: bin/rxpeer"; exit 0; }

PIDS=()
trap 'for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null; done; wait' EXIT
bg() { # LOG COMMAND...: starts a server, waits until it says ready, sets PORT
    local log=$1; shift
    "$@" > "$log" 2>&1 &
    PIDS+=($!)
    for _ in $(seq 50); do
        PORT=$(sed -nE '/ready/s/.*"port":([0-9]+).*|.*"listen": \[[^]]*, ([0-9]+)\].*/\1\2/p' "$log")
        [ -n "$PORT" ] && return
        sleep 0.1
    done
    echo "FAIL  did not start: $*"; exit 1
}
OK=0; BAD=0
c() { # DESCRIPTION PATTERN CLIENT-ARGS...
    local d=$1 re=$2 out; shift 2
    out=$(timeout 90 "$P" client 127.0.0.1 "$@" 2>&1)
    if grep -Eq "$re" <<< "$out"; then OK=$((OK + 1)); echo "ok    $d"
    else BAD=$((BAD + 1)); echo "FAIL  $d: $out"; fi
}
good='"errors":0,"last_error":0,"bad_content":0'
DES=1:2:a7838acbc783ec94

bg "$DIR/server.log" "$P" server 0 --bind 127.0.0.1; A=$PORT
for s in null rxkad-clear rxkad-auth rxkad-crypt; do
    for op in "send --bytes 300000" "recv --bytes 300000" "rpc --send 3000 --recv 7000" "echo --bytes 100000" \
              "sum --bytes 100000" "pattern --bytes 100000" "echo --bytes 0"; do
        # shellcheck disable=SC2086
        c "$s: $op" "$good" "$A" $op --count 2 --security $s
    done
    c "$s: abort with data both ways" '"last_error":4712' "$A" abort --code 4712 --send 5000 --recv 5000 --security $s
    c "$s: abort by the client" '"last_error":4713' "$A" cabort --code 4713 --bytes 200000 --after 20000 --security $s
done
c "4 calls at once on one connection" "$good" "$A" sum --bytes 100000 --threads 4 --conns 1 --count 3
c "16 threads on 4 connections" "$good" "$A" sum --bytes 50000 --threads 16 --conns 4 --count 3
c "more threads than channels" "$good" "$A" rpc --threads 10 --conns 1 --count 50
c "slow reader" "$good" "$A" slowread --bytes 200000 --after 8192 --delay 10000
c "slow writer" "$good" "$A" slowwrite --bytes 50000 --after 2000 --delay 20000
c "no jumbograms" "$good" "$A" echo --bytes 200000 --nojumbo
c "small MTU" "$good" "$A" echo --bytes 100000 --mtu 600
c "loss 5 %" "$good" "$A" pattern --bytes 100000 --drop 5 --droprecv 5
c "unknown service" '"last_error":-2' "$A" send --service 999
c "unknown key" '"last_error":19270408' "$A" send --security rxkad-crypt --key 18:9:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
bg "$DIR/server2.log" "$P" server 0 --bind 127.0.0.1 --security rxkad-auth --require --key $DES; B=$PORT
c "Kerberos 4 ticket" "$good" "$B" echo --bytes 10000 --security rxkad-crypt --key $DES --ticket4
c "level below the server's" '"last_error":19270402' "$B" echo --security rxkad-clear --key $DES --ticket4
c "null where rxkad is required" '"last_error":-2' "$B" echo
bg "$DIR/relay.log" "$HERE/udpmangle.py" --listen 127.0.0.1:0 --to "127.0.0.1:$A" --drop 2 --dup 3 --reorder 5 --delay 1; R=$PORT
c "through the relay, up" "$good" "$R" sum --bytes 100000
c "through the relay, down" "$good" "$R" pattern --bytes 100000 --security rxkad-crypt
echo "passed $OK, failed $BAD"
[ "$BAD" -eq 0 ]
