#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Makes packet captures: OpenAFS talking to OpenAFS in a network namespace of its
# own.
#
#   captures.sh WORKDIR OUTDIR [cell]
#
# WORKDIR takes the build of rxpeer, logs and a test cell; OUTDIR the .pcap
# files. Needs root and tcpdump (install.sh --captures). Takes about two minutes. `cell`: only those of the AFS cell.
set -u
HERE=$(cd "$(dirname "$0")" && pwd)
WORK=$(realpath -m "${1:?usage: captures.sh WORKDIR OUTDIR}")
OUT=$(realpath -m "${2:?usage: captures.sh WORKDIR OUTDIR}")
P=$WORK/bin/rxpeer
H=127.0.0.1
# A test key.
DESKEY=1:2:a7838acbc783ec94

# cap NAME FILTER: starts a capture; capend ends it.
cap() {
    NAME=$1
    rm -f "$WORK/tcpdump.log"; touch "$WORK/tcpdump.log"
    tcpdump -i lo -s 0 -U --immediate-mode -w "$OUT/$NAME.pcap" "$2" 2>"$WORK/tcpdump.log" &
    CAPPID=$!
    for _ in $(seq 50); do grep -q 'listening on' "$WORK/tcpdump.log" && break; sleep 0.1; done
}
capend() {
    sleep 1.2	# late acknowledgements
    kill -INT "$CAPPID"; wait "$CAPPID" 2>/dev/null
    printf '%-24s %7d bytes %5s packets\n' "$NAME" "$(stat -c %s "$OUT/$NAME.pcap")" \
        "$(tcpdump -r "$OUT/$NAME.pcap" 2>/dev/null | wc -l)"
}
srv() { # PORT OPTION...
    local p=$1; shift
    "$P" server "$p" --bind $H "$@" > "$WORK/server.$p.log" 2>&1 &
    SRVPID=$!
    for _ in $(seq 50); do grep -q ready "$WORK/server.$p.log" && break; sleep 0.1; done
}
srvend() { kill "$SRVPID" 2>/dev/null; wait "$SRVPID" 2>/dev/null; }
cl() { timeout 60 "$P" client $H "$@" >> "$WORK/clients.jsonl" 2>>"$WORK/clients.err"; }

inner() {
    ip link set lo up
    local F l
    srv 7009
    F='udp port 7009'
    cap null-send "$F";  cl 7009 sum --bytes 20000 --nojumbo; capend
    cap null-recv "$F";  cl 7009 pattern --bytes 20000; capend
    cap null-echo "$F";  cl 7009 echo --bytes 10000; capend
    cap null-rpc-small "$F"; cl 7009 rpc --count 5; capend
    cap null-parallel "$F"; cl 7009 sum --bytes 4000 --threads 8 --conns 2 --count 2; capend
    cap jumbo-send "$F"; cl 7009 sum --bytes 120000; capend
    cap jumbo-recv "$F"; cl 7009 pattern --bytes 120000; capend
    cap slow-reader "$F"; cl 7009 slowread --bytes 120000 --after 4096 --delay 20000; capend
    cap slow-writer "$F"; cl 7009 slowwrite --bytes 20000 --after 2500 --delay 300000; capend
    cap keepalive "$F"; cl 7009 slowread --bytes 8 --after 8 --delay 9000000; capend
    cap abort "$F"
    cl 7009 abort --code 4711                          # by the server, nothing sent
    cl 7009 abort --code 4712 --send 5000 --recv 5000  # after data both ways
    cl 7009 cabort --code 4713 --bytes 200000 --after 30000 # by the client in mid request
    cl 7009 send --service 999                         # no such service
    capend
    # A client that calls again right after an abort may find the channel still
    # taken and get a BUSY packet; that is a race, so try until it happens.
    for l in 1 2 3 4 5 6 7 8 9 10 11 12; do
        cap busy "$F"; cl 7009 abort --code 4711 --count 12; capend
        tcpdump -r "$OUT/busy.pcap" 'udp[28] = 3' 2>/dev/null | grep -q . && break
    done
    cap debug-version "$F"
    for l in -version "-rxstats -noconns" -allconnections -peers; do
        timeout 10 rxdebug $H 7009 $l >> "$WORK/rxdebug.log" 2>&1
    done
    capend
    srvend
    for l in clear auth crypt; do
        srv 7009 --security rxkad-$l
        cap rxkad-$l "$F"; cl 7009 echo --bytes 5000 --security rxkad-$l --count 2; capend
        srvend
    done
    srv 7009 --security rxkad-clear --key $DESKEY
    cap rxkad-krb4-crypt "$F"; cl 7009 echo --bytes 1000 --security rxkad-crypt --key $DESKEY --ticket4; capend
    srvend
    srv 7009 --security rxkad-crypt --require
    cap rxkad-refused "$F"
    cl 7009 echo --security rxkad-crypt --key 18:9:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
    cl 7009 echo --security rxkad-auth		# less than the server asks for
    cl 7009 echo				# null where the server has only rxkad
    capend
    srvend
    # A server that makes sure that the client is there before it serves it.
    srv 7009 --checkreach
    cap checkreach "$F"; cl 7009 rpc --count 2; capend
    srvend
    # Loss, by Rx's own drop switches: each side drops 10 % of what it sends. The
    # switch does not reach packets sent as a jumbogram, hence --frags 1.
    srv 7009 --drop 10 --frags 1
    cap loss-send "$F"; cl 7009 sum --bytes 60000 --drop 10 --frags 1; capend
    srvend; srv 7009 --drop 10 --frags 1
    cap loss-recv "$F"; cl 7009 pattern --bytes 60000 --drop 10 --frags 1; capend
    srvend
    # A server that is not there: ICMP port unreachable, and one that is silent.
    cap no-server "udp port 7010 or icmp"; cl 7010 rpc --dead 12; capend
    # Loss, repeats and another order on the way, by a relay on port 7008. Both
    # sides of the relay are in the capture; look at port 7008 for the client's.
    srv 7009
    "$HERE/udpmangle.py" --listen $H:7008 --to $H:7009 --drop 4 --dup 4 --reorder 8 --delay 5 --seed 3 --verbose \
        > "$OUT/mangled.jsonl" 2>&1 &
    local m=$!
    sleep 0.5
    cap mangled-send "udp port 7008"; cl 7008 sum --bytes 60000; capend
    cap mangled-recv "udp port 7008"; cl 7008 pattern --bytes 60000; capend
    kill $m; wait $m
    srvend
    # A small MTU on the way.
    ip link set lo mtu 1280
    srv 7009
    cap mtu1280 "$F"; cl 7009 sum --bytes 40000; capend
    srvend
    ip link set lo mtu 65536
}

cellcap() { # NAME FILTER COMMAND...: capture inside the cell's namespace
    local n=$1 f=$2 t; shift 2
    rm -f "$WORK/tcpdump.log"; touch "$WORK/tcpdump.log"
    "$HERE/cell.sh" exec "$WORK/cell" timeout 60 tcpdump -i lo -s 0 -U --immediate-mode -w "$OUT/$n.pcap" "$f" 2>"$WORK/tcpdump.log" &
    t=$!
    for _ in $(seq 50); do grep -q 'listening on' "$WORK/tcpdump.log" && break; sleep 0.1; done
    "$HERE/cell.sh" exec "$WORK/cell" timeout 40 "$@" >> "$WORK/cell.log" 2>&1
    sleep 1.2
    "$HERE/cell.sh" exec "$WORK/cell" pkill -INT -x tcpdump
    wait $t
    printf '%-24s %7d bytes %5s packets\n' "$n" "$(stat -c %s "$OUT/$n.pcap")" \
        "$(tcpdump -r "$OUT/$n.pcap" 2>/dev/null | wc -l)"
}

cell() {
    local a=10.254.77.1 c=rxtest.local
    rm -rf "$WORK/cell"
    "$HERE/cell.sh" up "$WORK/cell" --netns --addr $a || return 1
    cellcap cell-vldb-null "udp port 7003" vos listvldb -noauth -cell $c -noresolve
    cellcap cell-pts-localauth "udp port 7002" pts listentries -localauth
    cellcap cell-pts-krb5-crypt "udp port 7002" bash -c "
        kinit -k -t '$WORK/cell/krb5/users.keytab' admin; kvno -q afs/$c@RXTEST.LOCAL
        '$P' client $a 7002 ptsuser --name capuser --security rxkad-crypt --krb5 afs/$c --showkey"
    cellcap cell-fs-setacl "udp port 7000" bash -c "
        '$P' client $a 7000 setacl --vol \$(vos examine rx.data -noauth -noresolve | awk 'NR==1{print \$2}') \
            --security rxkad-auth --krb5 afs/$c --showkey"
    cellcap cell-fs-file "udp port 7000" bash -c "
        '$P' client $a 7000 fsfile --bytes 40000 --vol \$(vos examine rx.data -noauth -noresolve | awk 'NR==1{print \$2}') \
            --security rxkad-crypt --krb5 afs/$c --showkey"
    cellcap cell-vos-dump "udp port 7005 or udp port 7003" bash -c "vos dump rx.data 0 -localauth | wc -c"
    "$HERE/cell.sh" exec "$WORK/cell" klist -keK "$WORK/cell/krb5/afs.keytab" | grep '@' > "$OUT/cell-service-key.txt"
    grep -h session_key "$WORK/cell.log" > "$OUT/cell-session-keys.txt"
    "$HERE/cell.sh" down "$WORK/cell"
}

command -v tcpdump >/dev/null || { echo "captures.sh: tcpdump is missing: run install.sh --captures" >&2; exit 1; }
mkdir -p "$WORK" "$OUT"
[ "${3-}" = inner ] || rm -f "$WORK"/cell.log "$WORK"/clients.* "$WORK"/rxdebug.log
if [ "${3-}" = inner ]; then inner; exit; fi
make -s -C "$HERE" OUT="$WORK/bin" || exit 1
[ "${3-}" = cell ] || unshare -n "$0" "$WORK" "$OUT" inner
cell
