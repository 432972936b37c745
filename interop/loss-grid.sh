#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Bulk transfer through a relay that loses and delays: OpenAFS with itself, ours with OpenAFS each way, and ours
# with itself, in turns and with the same seeds.
#
#   loss-grid.sh [--dir DIR] [--seeds N] [--loss "P..."] [--rtt "MS..."] [--scale N]
#
# For each round trip (default "0 10 100" ms), loss (default "1 5" %) and operation (`recv` and `send`, seen from
# the client, one call): the median in MB/s over the seeds (default 3). A call moves so much that OpenAFS takes some
# seconds for it, times --scale. `theirs` is OpenAFS with itself; `ours>` our client with its server, `>ours` its
# client with our server. OpenAFS runs without jumbograms, as its servers do.
#
# Needs OpenAFS's packages (openafs/install.sh) and our binaries (cargo build --release).
set -u
ROOT=$(cd "$(dirname "$0")/.." && pwd)
DIR=$ROOT/target/loss-grid SEEDS=3 LOSSES="1 5" RTTS="0 10 100" SCALE=1
while [ $# -gt 0 ]; do
    case $1 in
        --dir) DIR=$2; shift ;; --seeds) SEEDS=$2; shift ;; --loss) LOSSES=$2; shift ;;
        --rtt) RTTS=$2; shift ;; --scale) SCALE=$2; shift ;;
        *) sed -n '3,/^set -u/p' "$0" | sed 's/^# \{0,1\}//;$d' >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$DIR" && DIR=$(realpath "$DIR")
die() { echo "loss-grid.sh: $*" >&2; exit 1; }
"$ROOT/interop/openafs/peer.sh" build "$DIR" >/dev/null || die "rxpeer does not build"
P=$DIR/bin/rxpeer BIN=${CARGO_TARGET_DIR:-$ROOT/target}/release
[ -x "$BIN/rx" ] && [ -x "$BIN/echo-server" ] || die "no release binaries: cargo build --release"
OPTIONS=(--udpbuf 4096 --nojumbo)
STARTED=()
stop() { for p in "${STARTED[@]}"; do kill -TERM "$p" 2>/dev/null; wait "$p" 2>/dev/null; done; STARTED=(); }
trap stop EXIT
port() { # FILE SED-PATTERN: waits for the line, prints the port
    for _ in $(seq 200); do
        local found; found=$(sed -nE "$2" "$1" | head -n 1)
        [ -n "$found" ] && { echo "$found"; return; }
        sleep 0.05
    done
    die "did not start: $(cat "$1")"
}
one() { # SERVER CLIENT OP RTT LOSS SEED BYTES: prints MB/s
    local server
    : > "$DIR/server.out"; : > "$DIR/relay.out"
    if [ "$1" = ours ]; then "$BIN/echo-server" --listen 127.0.0.1:0 > "$DIR/server.out" 2>&1 &
    else "$P" server 0 --bind 127.0.0.1 --quiet "${OPTIONS[@]}" > "$DIR/server.out" 2>&1 & fi
    STARTED+=($!)
    server=$(port "$DIR/server.out" 's/.*"port":([0-9]+).*/\1/p; s/^listening on .*:([0-9]+)$/\1/p')
    "$ROOT/interop/openafs/udpmangle.py" --listen 127.0.0.1:0 --to "127.0.0.1:$server" --drop "$5" \
        --delay "$(awk -v r="$4" 'BEGIN {print r / 2}')" --seed "$6" > "$DIR/relay.out" 2>&1 &
    STARTED+=($!)
    local relay; relay=$(port "$DIR/relay.out" 's/.*"listen": \[[^,]*, ([0-9]+)\].*/\1/p')
    if [ "$2" = ours ]; then
        "$BIN/rx" perf "127.0.0.1:$relay" "$3" --bytes "$7" --timeout 120 --json > "$DIR/client.out" 2>&1
    else
        timeout 120 "$P" client 127.0.0.1 "$relay" "$3" --bytes "$7" "${OPTIONS[@]}" > "$DIR/client.out" 2>&1
    fi || { echo "failed: $*: $(tail -n 2 "$DIR/client.out")" >&2; echo "$7 0" > "$DIR/client.out"; }
    grep '^{' "$DIR/client.out" | tail -n 1 | sed -nE 's/.*"seconds": ?([0-9.e-]+).*/\1/p' |
        awk -v b="$7" '{print b / 1e6 / $1}'
    stop
}
median() { sort -n | awk '{v[NR] = $1} END {print NR ? v[int((NR + 1) / 2)] : 0}'; }
printf '%-5s %6s %5s | %8s %8s %8s %8s | %s\n' op rtt loss theirs 'ours>' '>ours' ours 'to theirs'
for op in recv send; do
    for rtt in $RTTS; do
        for loss in $LOSSES; do
            bytes=$(awk -v r="$rtt" -v l="$loss" -v s="$SCALE" 'BEGIN {
                b = r >= 100 ? 400000 : r >= 1 ? 2000000 : 8000000
                print int(s * (l >= 3 ? b / 4 : b)) }')
            for system in theirs-theirs theirs-ours ours-theirs ours-ours; do : > "$DIR/$system"; done
            for seed in $(seq "$SEEDS"); do
                for system in theirs-theirs theirs-ours ours-theirs ours-ours; do
                    one "${system%-*}" "${system#*-}" "$op" "$rtt" "$loss" "$seed" "$bytes" >> "$DIR/$system"
                done
            done
            set -- "$(median < "$DIR/theirs-theirs")" "$(median < "$DIR/theirs-ours")" \
                "$(median < "$DIR/ours-theirs")" "$(median < "$DIR/ours-ours")"
            awk -v op="$op" -v rtt="$rtt" -v loss="$loss" -v a="$1" -v b="$2" -v c="$3" -v d="$4" 'BEGIN {
                printf "%-5s %6s %4s%% | %8.3f %8.3f %8.3f %8.3f | %.1f %.1f %.1f\n", op, rtt, loss, a, b, c, d,
                    a ? b / a : 0, a ? c / a : 0, a ? d / a : 0 }'
        done
    done
done
