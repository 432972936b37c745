#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Instructions of the protocol core for fixed work, counted by callgrind and compared
# with benches/instructions.txt. Fails when one of them needs over 2 % more.
#
#   benches/instructions.sh             compares
#   benches/instructions.sh --record    writes what it counts as the new baseline
#
# call     a whole call, a packet each way, both ends
# run5     receiving a run of 5 full DATA packets, of 45: from the datagrams to the
# run45    application's notice, ACK decision included
# send45   45 full packets, from the application's bytes to datagrams
# ack45    the ACKs of 45 packets, at their sender
# per packet and per run follow from run5 and run45.
#
# Needs valgrind; without it nothing is compared. Counts depend on the compiler: with
# another than the baseline's nothing is compared either. A new baseline is a commit
# of its own, or says in its message what the instructions bought.
set -u
cd "$(dirname "$0")/.." || exit 1
BASELINE=benches/instructions.txt RECORD=
case ${1-} in
    "") ;; --record) RECORD=1 ;;
    *) sed -n '3,/^set -u/p' "$0" | sed 's/^# \{0,1\}//;$d' >&2; exit 2 ;;
esac
command -v valgrind >/dev/null || { echo "skipped: no valgrind here, so no instructions are counted"; exit 0; }
COMPILER=$(rustc --version)
if [ -z "$RECORD" ] && ! grep -qxF "# $COMPILER" "$BASELINE"; then
    echo "skipped: this is $COMPILER, and the baseline is of $(head -n 1 "$BASELINE")"
    exit 0
fi
cargo build --release --quiet --example instructions --features testkit || exit 1
P=${CARGO_TARGET_DIR:-target}/release/examples/instructions
count() { # NAME: instructions of a round
    local out rounds
    out=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        --toggle-collect='*instructions::measured*' "$P" "$1" 2>&1)
    rounds=$(awk -v name="$1" '$1 == name {print $2}' <<< "$out")
    awk -v rounds="${rounds:-0}" '/Collected/ && rounds {printf "%d\n", $NF / rounds}' <<< "$out"
}
declare -A COUNT
for name in call run5 run45 send45 ack45; do
    COUNT[$name]=$(count $name)
    [ -n "${COUNT[$name]}" ] || { echo "$name was not counted"; exit 1; }
done
packet=$(((COUNT[run45] - COUNT[run5]) / 40))
echo "per DATA packet received $packet, per run besides $((COUNT[run5] - 5 * packet))"
if [ -n "$RECORD" ]; then
    { echo "# $COMPILER"; for name in call run5 run45 send45 ack45; do echo "$name ${COUNT[$name]}"; done; } > "$BASELINE"
    cat "$BASELINE"
    exit 0
fi
BAD=0
while read -r name before; do
    case $name in \#*) continue ;; esac
    now=${COUNT[$name]}
    verdict=$(awk -v now="$now" -v before="$before" 'BEGIN {
        printf "%+.2f %%%s", 100 * (now / before - 1), (now > 1.02 * before) ? "  TOO MANY" : ""}')
    echo "$name: $now, baseline $before, $verdict"
    [ "${verdict%TOO MANY}" = "$verdict" ] || BAD=1
done < "$BASELINE"
exit $BAD
