#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Our speed next to OpenAFS's: the same loads, OpenAFS with OpenAFS and ours with
# ours, alternating in one run so that both meet the same machine.
#
#   bench-openafs.sh [--dir DIR] [--pairs N] [--bytes N] [--calls N] [--only openafs|ours]
#                    [--security null|rxkad] [--level clear|auth|crypt]
#
# Loads, on loopback: `recv` and `send` of --bytes in one call (default 500000000;
# with rxkad 100000000), and --calls small calls (default 40000; 3 bytes up, 30
# down), 16 at once on 4 connections. Each `pair` is one run of both. Prints the
# medians, the ratio ours / OpenAFS, and CPU seconds of client and server together.
# Without --security there is none; with rxkad both sides demand it at --level
# (default crypt), each with a ticket that it prints itself with the same key.
# OpenAFS runs with jumbograms, its library's default (`jumbo`), and without, its
# servers' default (`plain`); with large socket buffers, which ours asks for too.
# The ratios are ours to either.
#
# Needs OpenAFS's packages (openafs/install.sh) and builds ours with cargo. Writes
# into DIR (default target/bench-openafs).
set -u
ROOT=$(cd "$(dirname "$0")/.." && pwd)
DIR=$ROOT/target/bench-openafs PAIRS=3 BYTES= CALLS=40000 ONLY= SECURITY=null LEVEL=crypt
while [ $# -gt 0 ]; do
    case $1 in
        --dir) DIR=$2; shift ;; --pairs) PAIRS=$2; shift ;; --bytes) BYTES=$2; shift ;;
        --calls) CALLS=$2; shift ;; --only) ONLY=$2; shift ;;
        --security) SECURITY=$2; shift ;; --level) LEVEL=$2; shift ;;
        *) sed -n '3,/^set -u/p' "$0" | sed 's/^# \{0,1\}//;$d' >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$DIR" && DIR=$(realpath "$DIR")
die() { echo "bench-openafs.sh: $*" >&2; exit 1; }
# Options of both of a system's programs, of its client alone, and of its server alone.
P_BOTH=() P_CLIENT=() P_SERVER=() O_CLIENT=() O_SERVER=()
case $SECURITY in
    null) : "${BYTES:=500000000}" ;;
    rxkad)
        : "${BYTES:=100000000}"
        KEY=(--key 18:1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f)
        SESSION=(--session 0123456789abcdef)
        P_BOTH=(--security "rxkad-$LEVEL" "${KEY[@]}")
        P_CLIENT=("${SESSION[@]}") P_SERVER=(--require)
        O_CLIENT=(--security rxkad "${KEY[@]}" --level "$LEVEL" "${SESSION[@]}")
        O_SERVER=(--security rxkad "${KEY[@]}" --minimum-level "$LEVEL" --require) ;;
    *) die "--security $SECURITY: null or rxkad" ;;
esac
"$ROOT/interop/openafs/install.sh" --check >/dev/null || die "OpenAFS's packages are missing: run interop/openafs/install.sh"
"$ROOT/interop/openafs/peer.sh" build "$DIR" >/dev/null || die "rxpeer does not build"
P=$DIR/bin/rxpeer
if [ "$ONLY" != openafs ]; then
    (cd "$ROOT" && cargo build --release --quiet --bins) || die "cargo build failed"
    BIN=${CARGO_TARGET_DIR:-$ROOT/target}/release
    [ -n "$("$BIN/rx" --help 2>/dev/null)" ] || die "$BIN/rx does not run"
fi

SERVER=
trap '[ -n "$SERVER" ] && kill "$SERVER" 2>/dev/null' EXIT
ready() { # FILE SED-PATTERN: waits for the server's line, sets PORT
    for _ in $(seq 100); do
        PORT=$(sed -nE "$2" "$1" | head -n 1)
        [ -n "$PORT" ] && return
        sleep 0.05
    done
    die "server did not start: $(cat "$1")"
}
cpu() { # PID: user and system CPU seconds so far
    awk -v hz="$(getconf CLK_TCK)" '{sub(/.*\) /, ""); print ($12 + $13) / hz}' "/proc/$1/stat"
}
children_cpu() { # sets NOW: CPU seconds of all children that have ended
    times > "$DIR/times"	# not in a pipe: a subshell has no children yet
    NOW=$(awk 'NR == 2 {for (i = 1; i <= 2; i++) {split($i, t, /[ms]/); s += t[1] * 60 + t[2]} print s}' "$DIR/times")
}
client() { # COMMAND...: sets TAKEN, the seconds in its JSON, and CPU, the client's
    local before
    children_cpu; before=$NOW
    "$@" > "$DIR/client.out" 2> "$DIR/client.err" || die "failed: $*: $(cat "$DIR/client.out" "$DIR/client.err")"
    children_cpu
    TAKEN=$(grep '^{' "$DIR/client.out" | tail -n 1 | sed -nE 's/.*"seconds": ?([0-9.e-]+).*/\1/p')
    CPU=$(awk -v a="$before" -v b="$NOW" 'BEGIN {print b - a}')
}
# one SYSTEM LOAD: appends "system load seconds cpu"
one() {
    local system=$1 load=$2 before options=(--udpbuf 4096 "${P_BOTH[@]}")
    [ "$system" = plain ] && options+=(--nojumbo)
    case $system in
        plain | jumbo) "$P" server 0 --bind 127.0.0.1 --quiet "${options[@]}" "${P_SERVER[@]}" > "$DIR/server.out" 2>&1 & ;;
        ours) "$BIN/echo-server" --listen 127.0.0.1:0 "${O_SERVER[@]}" > "$DIR/server.out" 2>&1 & ;;
    esac
    SERVER=$!
    ready "$DIR/server.out" 's/.*"port":([0-9]+).*/\1/p; s/^listening on .*:([0-9]+)$/\1/p'
    before=$(cpu "$SERVER")
    if [ "$system" = ours ]; then
        case $load in
            small) client "$BIN/rx" perf "127.0.0.1:$PORT" rpc --send 3 --recv 30 --count "$CALLS" --parallel 16 --connections 4 --json "${O_CLIENT[@]}" ;;
            *) client "$BIN/rx" perf "127.0.0.1:$PORT" "$load" --bytes "$BYTES" --timeout 300 --json "${O_CLIENT[@]}" ;;
        esac
    else
        case $load in
            small) client "$P" client 127.0.0.1 "$PORT" rpc --send 3 --recv 30 --count $((CALLS / 16)) --threads 16 --conns 4 "${options[@]}" "${P_CLIENT[@]}" ;;
            *) client "$P" client 127.0.0.1 "$PORT" "$load" --bytes "$BYTES" "${options[@]}" "${P_CLIENT[@]}" ;;
        esac
    fi
    CPU=$(awk -v c="$CPU" -v a="$before" -v b="$(cpu "$SERVER")" 'BEGIN {print c + b - a}')
    kill -TERM "$SERVER"; wait "$SERVER" 2>/dev/null; SERVER=
    echo "$system $load $TAKEN $CPU" >> "$DIR/runs"
}

systems=(plain jumbo ours)
[ "$ONLY" = openafs ] && systems=(plain jumbo)
[ "$ONLY" = ours ] && systems=(ours)
: > "$DIR/runs"
for _ in $(seq "$PAIRS"); do
    for load in recv send small; do
        for system in "${systems[@]}"; do one "$system" "$load"; done
    done
done

[ "$SECURITY" = rxkad ] && SECURITY="rxkad $LEVEL"
echo "$(uname -sr), $(nproc) cores, $(date -u +%F); $SECURITY; bulk $BYTES bytes, $((CALLS / 16 * 16)) small calls; medians of $PAIRS"
awk -v bytes="$BYTES" -v calls="$((CALLS / 16 * 16))" '
    { n[$1, $2]++; t[$1, $2, n[$1, $2]] = $3; c[$1, $2, n[$1, $2]] = $4 }
    function median(v, k,    i, j, x, m, s) {
        m = n[k]
        for (i = 1; i <= m; i++) s[i] = (v == "t" ? t[k, i] : c[k, i]) + 0
        for (i = 2; i <= m; i++) for (j = i; j > 1 && s[j - 1] > s[j]; j--) { x = s[j]; s[j] = s[j - 1]; s[j - 1] = x }
        return m % 2 ? s[(m + 1) / 2] : (s[m / 2] + s[m / 2 + 1]) / 2
    }
    function rate(who, load,    k) {
        k = who SUBSEP load
        if (!n[k]) return 0
        return load == "small" ? calls / median("t", k) : bytes / 1e6 / median("t", k)
    }
    function show(who, load,    k) {
        k = who SUBSEP load
        return n[k] ? sprintf("%10.0f %7.2f", rate(who, load), median("c", k)) : sprintf("%10s %7s", "-", "-")
    }
    function ratio(who, load) { return rate("ours", load) && rate(who, load) ? sprintf("%5.2f", rate("ours", load) / rate(who, load)) : "    -" }
    END {
        printf "%-6s %-8s | %18s | %18s | %18s | %s\n", "load", "unit", "plain rate, CPU s", "jumbo rate, CPU s", "ours rate, CPU s", "ours / plain, jumbo"
        split("recv send small", loads, " ")
        for (i = 1; i <= 3; i++) {
            l = loads[i]
            printf "%-6s %-8s | %s | %s | %s | %s  %s\n", l, l == "small" ? "calls/s" : "MB/s", show("plain", l), show("jumbo", l), show("ours", l),
                ratio("plain", l), ratio("jumbo", l)
        }
    }' "$DIR/runs"
