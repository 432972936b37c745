#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# A real one-machine AFS cell from Debian's OpenAFS server packages, on
# loopback only, in a directory of its own. All servers are user space; no
# kernel module is used.
#
#   cell.sh up     DIR [--noauth] [--no-bos] [--netns] [--jumbo] [--addr A.B.C.D]
#   cell.sh status DIR
#   cell.sh check  DIR
#   cell.sh exec   DIR COMMAND [ARG...]
#   cell.sh down   DIR
#
# up      default is authenticated mode: a KDC, a service key in KeyFileExt,
#         UserList, protection database with an administrator. --noauth runs
#         the same servers with NoAuth and no key. --no-bos starts the servers
#         directly instead of under bosserver. --netns puts the cell into a
#         network namespace of its own (then only `exec` reaches it). --jumbo
#         passes -jumbo to the servers that have the switch (they default to
#         -nojumbo). Running `up` on a cell that is up only reports it.
# exec    runs a command where /etc/openafs and KRB5_CONFIG are the cell's:
#         needed for `vos -localauth` and its like.
# down    stops everything; leaves DIR (databases, logs). Remove DIR for a
#         fresh cell.
#
# The servers live in one PID, mount and host-name namespace and a root of their
# own, where DIR/etc, DIR/var, DIR/log and DIR/vicepa lie over the paths compiled
# into the packages. So nothing is written outside DIR, and killing the
# namespace's first process ends every server. OpenAFS ignores 127/8 when it looks for its
# own addresses, so the cell gets one more address on lo (a /32, removed by
# `down`).
#
# Ports: 7000 fileserver, 7002 ptserver, 7003 vlserver, 7005 volserver,
# 7007 bosserver, all UDP; KDC 10088 UDP and TCP.
set -u

CELL=rxtest.local
REALM=RXTEST.LOCAL
KDCPORT=10088
ADMINPW=adminpw
USERPW=userpw

die() { echo "cell.sh: $*" >&2; exit 1; }
usage() { sed -n '3,/^set -u/p' "$0" | sed 's/^# \{0,1\}//;$d' >&2; exit 2; }

VERB=${1-}; [ -n "$VERB" ] || usage; shift
DIR=${1-};  [ -n "$DIR" ]  || usage; shift
case $VERB in up|down|status|check|exec) ;; *) usage ;; esac
[ "$(id -u)" = 0 ] || die "must be root"
DIR=$(realpath -m "$DIR")
STATE=$DIR/state
HERE=$(cd "$(dirname "$0")" && pwd)

ADDR=10.254.77.1; MODE=auth; BOS=1; NETNS=0; JUMBO=-nojumbo
[ -r "$STATE" ] && . "$STATE"

alive() { [ -r "$DIR/ns.pid" ] && [ -d "/proc/$(cat "$DIR/ns.pid")" ] \
          && [ "$(readlink "/proc/$(cat "$DIR/ns.pid")/ns/pid")" = "$(cat "$DIR/ns.id" 2>/dev/null)" ]; }

# Runs a command inside the cell's namespaces.
nsargs() {
    NSC=(nsenter -t "$(cat "$DIR/ns.pid")" -m -u -p -r -w)
    [ "$NETNS" = 1 ] && NSC+=(-n)
    NSC+=(env KRB5_CONFIG="$DIR/krb5/krb5.conf" KRB5_KDC_PROFILE="$DIR/krb5/kdc.conf"
          KRB5CCNAME="${KRB5CCNAME:-FILE:$DIR/krb5/cc}")
}
inns() { nsargs; "${NSC[@]}" "$@"; }
A() { if [ "$MODE" = auth ]; then echo -localauth; else echo -noauth; fi; }

# waitfor SECONDS COMMAND...: polls until the command succeeds.
waitfor() {
    local end=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -ge $end ] && return 1
        sleep 0.2
    done
}

write_config() {
    local e=$DIR/etc s=$DIR/etc/server
    mkdir -p "$s" "$DIR"/var/{db,local,backup} "$DIR"/{log,vicepa,krb5,run}
    chmod 700 "$DIR/var/db" "$DIR/var/local" "$DIR/var/backup"
    echo "$CELL" | tee "$e/ThisCell" > "$s/ThisCell"
    printf '>%s\t#test cell\n%s\t#afs1.%s\n' "$CELL" "$ADDR" "$CELL" | tee "$e/CellServDB" > "$s/CellServDB"
    echo "$REALM" > "$s/krb.conf"
    echo admin > "$s/UserList"
    echo "/afs:/var/cache/openafs:50000" > "$e/cacheinfo"
    echo "$ADDR" > "$DIR/var/local/NetInfo"
    touch "$DIR/vicepa/AlwaysAttach"
    rm -f "$DIR/var/local/NoAuth"
    [ "$MODE" = noauth ] && touch "$DIR/var/local/NoAuth"
    printf '127.0.0.1 localhost\n%s afs1.%s afs1\n' "$ADDR" "$CELL" > "$DIR/run/hosts"
    local L=/usr/lib/openafs
    PTSERVER="$L/ptserver -rxbind"
    VLSERVER="$L/vlserver -rxbind $JUMBO"
    FILESERVER="$L/fileserver -rxbind $JUMBO -L -implicit rl"
    VOLSERVER="$L/volserver -rxbind $JUMBO"
    cat > "$e/BosConfig" <<BOS
restrictmode 0
restarttime 16 0 0 0 0
checkbintime 16 0 0 0 0
bnode simple ptserver 1
parm $PTSERVER
end
bnode simple vlserver 1
parm $VLSERVER
end
BOS
    # The file server starts later, over bos: it asks the protection server at
    # once, and when that has no quorum yet it sleeps for 30 seconds.
    cp "$e/BosConfig" "$DIR/var/local/BosConfig"
}

write_krb5() {
    local k=$DIR/krb5
    cat > "$k/krb5.conf" <<KRB
[libdefaults]
    default_realm = $REALM
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
    forwardable = false
    udp_preference_limit = 1400
[realms]
    $REALM = {
        kdc = $ADDR:$KDCPORT
    }
[domain_realm]
    .$CELL = $REALM
    $CELL = $REALM
KRB
    cat > "$k/kdc.conf" <<KDC
[kdcdefaults]
    kdc_listen = $ADDR:$KDCPORT
    kdc_tcp_listen = $ADDR:$KDCPORT
[realms]
    $REALM = {
        database_name = $k/principal
        key_stash_file = $k/stash
        acl_file = $k/kadm5.acl
        max_life = 24h
        supported_enctypes = aes256-cts-hmac-sha1-96:normal aes128-cts-hmac-sha1-96:normal
    }
[logging]
    kdc = FILE:$DIR/log/kdc.log
    admin_server = FILE:$DIR/log/kadmin.log
    default = FILE:$DIR/log/krb5.log
KDC
    : > "$k/kadm5.acl"
    export KRB5_CONFIG=$k/krb5.conf KRB5_KDC_PROFILE=$k/kdc.conf
    if [ ! -e "$k/principal" ]; then
        kdb5_util create -s -r "$REALM" -P masterpw > "$DIR/log/kdb5.log" 2>&1 || die "kdb5_util failed, see $DIR/log/kdb5.log"
        # The service key is made from a fixed password: a test key, the same
        # in every cell this script makes, so that captures can be decrypted.
        local q
        for q in "addprinc -pw $ADMINPW admin" "addprinc -pw $USERPW user1" \
            "addprinc -e aes256-cts-hmac-sha1-96:normal -pw afs-test-service-key afs/$CELL" \
            "ktadd -norandkey -k $k/afs.keytab afs/$CELL" \
            "ktadd -norandkey -k $k/users.keytab admin user1"; do
            kadmin.local -r "$REALM" -q "$q" >> "$DIR/log/kadmin.local.log" 2>&1
        done
        [ -s "$k/afs.keytab" ] || die "no service keytab, see $DIR/log/kadmin.local.log"
    fi
}

# The first process of the namespaces: its own root (the machine's folders, with
# the cell's over the paths that OpenAFS has compiled in, and /vicepa, which the
# machine need not have), then address, then waits and reaps.
init_script() {
    cat <<'INIT'
set -e
DIR=$1 ADDR=$2 NETNS=$3 CELL=$4
R=$DIR/run/root
mount --make-rprivate /
mount -t tmpfs -o mode=755 none "$R"
mount --make-unbindable "$R"	# or the copy of DIR's own folder would hold it again
for e in /* ; do
    n=${e#/}
    if [ -L "$e" ]; then cp -P "$e" "$R/"
    elif [ "$n" = vicepa ] || [ "$n" = proc ]; then :
    elif [ -d "$e" ]; then mkdir "$R/$n"; mount --rbind "$e" "$R/$n"
    fi
done
mkdir "$R/vicepa" "$R/proc"
mount --bind "$DIR/etc" "$R/etc/openafs"
mount --bind "$DIR/var" "$R/var/lib/openafs"
mount --bind "$DIR/log" "$R/var/log/openafs"
mount --bind "$DIR/vicepa" "$R/vicepa"
mount --bind "$DIR/run/hosts" "$R/etc/hosts"
mount -t proc proc "$R/proc"
hostname "afs1.$CELL"
[ "$NETNS" = 1 ] && ip link set lo up
ip addr show dev lo | grep -q "inet $ADDR/" || { ip addr add "$ADDR/32" dev lo; [ "$NETNS" = 1 ] || touch "$DIR/run/made-addr"; }
touch "$DIR/run/ready"
exec chroot "$R" bash -c 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done'
INIT
}

start_ns() {
    local opt=(--mount --uts --pid --fork --kill-child) u c
    [ "$NETNS" = 1 ] && opt+=(--net)
    rm -f "$DIR/run/ready"
    mkdir -p "$DIR/run/root"
    init_script > "$DIR/run/init.sh"
    setsid unshare "${opt[@]}" bash "$DIR/run/init.sh" "$DIR" "$ADDR" "$NETNS" "$CELL" \
        </dev/null >"$DIR/log/init.log" 2>&1 &
    u=$!
    waitfor 10 test -e "$DIR/run/ready" || { kill "$u" 2>/dev/null; die "namespace did not start, see $DIR/log/init.log"; }
    c=$(tr -d ' ' < "/proc/$u/task/$u/children")
    [ -n "$c" ] || die "no namespace process"
    echo "$c" > "$DIR/ns.pid"
    readlink "/proc/$c/ns/pid" > "$DIR/ns.id"
}

spawn() { # NAME COMMAND...: a daemon inside, output into the log folder
    local n=$1; shift
    # setsid --fork: the daemon becomes a child of the namespace's first process
    inns setsid --fork "$@" </dev/null >"$DIR/log/$n.out" 2>&1
}

answers() { # PORT...: waits until Rx answers there
    local p
    for p in "$@"; do
        waitfor 40 inns timeout 5 rxdebug "$ADDR" "$p" -version || { down; die "port $p does not answer"; }
    done
}

up() {
    while [ $# -gt 0 ]; do
        case $1 in
            --noauth) MODE=noauth ;; --auth) MODE=auth ;;
            --no-bos) BOS=0 ;; --netns) NETNS=1 ;; --jumbo) JUMBO=-jumbo ;;
            --addr) ADDR=$2; shift ;;
            *) usage ;;
        esac
        shift
    done
    if alive; then echo "already up"; status; return; fi
    for b in /usr/lib/openafs/fileserver /usr/lib/openafs/vlserver /usr/sbin/bosserver /usr/bin/pts; do
        [ -x $b ] || die "$b is missing: run install.sh first"
    done
    if [ "$NETNS" = 0 ]; then
        local used
        used=$(ss -Hlun "( sport = :7000 or sport = :7002 or sport = :7003 or sport = :7005 or sport = :7007 )" |
               awk -v a="$ADDR" '{split($4, x, ":"); if (x[1] == "0.0.0.0" || x[1] == "*" || x[1] == a) print $4}')
        [ -z "$used" ] || die "ports in use: $(echo $used); try --netns"
    fi
    local t0=$SECONDS
    mkdir -p "$DIR" || die "cannot make $DIR"
    # A cell made in one mode cannot be reused in the other: the databases
    # would hold entries the other mode does not expect.
    if [ -r "$STATE" ] && [ "$(sed -n 's/^MODE=//p' "$STATE")" != "$MODE" ]; then
        rm -rf "$DIR"/{etc,var,log,vicepa,krb5,run}
    fi
    printf 'ADDR=%s\nMODE=%s\nBOS=%s\nNETNS=%s\nJUMBO=%s\n' "$ADDR" "$MODE" "$BOS" "$NETNS" "$JUMBO" > "$STATE"
    write_config
    [ "$MODE" = auth ] && write_krb5
    start_ns
    if [ "$MODE" = auth ]; then
        spawn krb5kdc krb5kdc -n -r "$REALM" -P "$DIR/run/kdc.pid"
        if [ ! -e "$DIR/etc/server/KeyFileExt" ]; then
            local kvno
            kvno=$(klist -k "$DIR/krb5/afs.keytab" | awk '$2 ~ "^afs/" {print $1; exit}')
            inns asetkey add rxkad_krb5 "$kvno" 18 "$DIR/krb5/afs.keytab" "afs/$CELL" \
                || { down; die "asetkey failed"; }
        fi
    fi
    if [ "$BOS" = 1 ]; then
        if [ "$MODE" = noauth ]; then spawn bosserver bosserver -nofork -rxbind -noauth
        else spawn bosserver bosserver -nofork -rxbind; fi
    else
        # shellcheck disable=SC2086
        { spawn ptserver $PTSERVER; spawn vlserver $VLSERVER; }
    fi
    answers 7002 7003
    # ubik needs a moment until it is its own quorum
    waitfor 60 inns timeout 5 pts listmax $(A) -cell $CELL || { down; die "ptserver has no quorum"; }
    waitfor 60 inns timeout 5 vos listvldb -server "$ADDR" $(A) -cell $CELL || { down; die "vlserver has no quorum"; }
    if [ "$BOS" = 1 ]; then
        inns timeout 30 bos create "$ADDR" fs fs "$FILESERVER" "$VOLSERVER" /usr/lib/openafs/salvager \
            $(A) -cell $CELL > "$DIR/log/bos.out" 2>&1 || { down; die "bos create fs failed, see $DIR/log/bos.out"; }
    else
        # shellcheck disable=SC2086
        { spawn fileserver $FILESERVER; spawn volserver $VOLSERVER; }
    fi
    answers 7005 7000
    if [ "$MODE" = auth ] && ! inns pts examine admin -localauth >/dev/null 2>&1; then
        inns pts createuser admin 1 -localauth > "$DIR/log/pts.out" 2>&1
        inns pts adduser admin system:administrators -localauth >> "$DIR/log/pts.out" 2>&1
        inns pts createuser user1 1001 -localauth >> "$DIR/log/pts.out" 2>&1
    fi
    # root volumes: something to read and write for a client
    local v
    waitfor 30 inns timeout 10 vos partinfo "$ADDR" a $(A) -noresolve || { down; die "volserver does not serve /vicepa"; }
    for v in root.afs root.cell rx.data; do
        inns timeout 30 vos examine $v $(A) -noresolve >/dev/null 2>&1 ||
            inns timeout 60 vos create "$ADDR" a $v -maxquota 0 $(A) -noresolve >> "$DIR/log/vos.out" 2>&1 ||
            { down; die "vos create $v failed, see $DIR/log/vos.out"; }
    done
    echo "up after $((SECONDS - t0)) s: cell $CELL at $ADDR, mode $MODE, bos $BOS, netns $NETNS"
}

stop_ns() {
    local p i
    p=$(cat "$DIR/ns.pid")
    kill -KILL "$p" 2>/dev/null
    for i in $(seq 50); do [ -d "/proc/$p" ] || break; sleep 0.1; done
}

down() {
    if alive; then
        # let the file server write its volumes out, for a bounded time
        if [ "$BOS" = 1 ]; then
            inns timeout 25 bos shutdown "$ADDR" $(A) -wait -cell $CELL >/dev/null 2>&1
        else
            inns bash -c 'p=$(pgrep -x fileserver) && kill -QUIT $p && for i in $(seq 100); do pgrep -x fileserver >/dev/null || break; sleep 0.2; done' 2>/dev/null
        fi
        stop_ns
    fi
    rm -f "$DIR/ns.pid" "$DIR/ns.id"
    [ -e "$DIR/run/made-addr" ] && ip addr del "$ADDR/32" dev lo 2>/dev/null
    rm -f "$DIR/run/made-addr"
    return 0
}

status() {
    alive || { echo "down"; return 1; }
    echo "up: cell $CELL at $ADDR, mode $MODE, bos $BOS, netns $NETNS"
    local p n rc=0
    for p in 7000:fileserver 7002:ptserver 7003:vlserver 7005:volserver 7007:bosserver; do
        n=${p#*:}; p=${p%%:*}
        [ "$p" = 7007 ] && [ "$BOS" = 0 ] && continue
        if v=$(inns timeout 5 rxdebug "$ADDR" "$p" -version 2>&1 | sed -n 's/^AFS version: *//p') && [ -n "$v" ]; then
            echo "  $p $n:$v"
        else echo "  $p $n: no answer"; rc=1; fi
    done
    return $rc
}

# --- check -----------------------------------------------------------------
OK=0; BAD=0
tno() { # passes when the command fails
    local d=$1 out; shift
    if out=$(timeout 60 "$@" 2>&1); then BAD=$((BAD + 1)); echo "FAIL  $d (was allowed)"
    else OK=$((OK + 1)); echo "ok    $d"; fi
}
check() {
    alive || { echo "down"; return 1; }
    local a p n=$((RANDOM + 2000)) u=u$RANDOM g=g$RANDOM v=v$RANDOM
    a=$(A)
    run() { inns timeout 40 "$@"; }
    c() { local d=$1 re=$2; shift 2
          local out; out=$(run "$@" 2>&1)
          if echo "$out" | grep -Eq "$re"; then OK=$((OK + 1)); echo "ok    $d"
          else BAD=$((BAD + 1)); echo "FAIL  $d: $(echo "$out" | tail -2 | tr '\n' ' ')"; fi; }
    for p in 7000 7002 7003 7005; do
        c "rxdebug -version, port $p" 'AFS version:.*OpenAFS' rxdebug "$ADDR" $p -version
        c "rxdebug -rxstats, port $p" 'packets read: data' rxdebug "$ADDR" $p -noconns -rxstats
    done
    [ "$BOS" = 1 ] && c "bos status" 'currently running normally' bos status "$ADDR" $a -cell $CELL
    c "udebug ptserver: sync site" 'I am sync site' udebug "$ADDR" 7002
    c "udebug vlserver: sync site" 'I am sync site' udebug "$ADDR" 7003
    c "pts createuser" "User $u has id" pts createuser "$u" $n $a -cell $CELL
    c "pts creategroup" "group $g has id" pts creategroup "$g" -owner system:administrators $a -cell $CELL
    c "pts adduser" '^$' bash -c "pts adduser $u $g $a -cell $CELL && echo"
    c "pts membership" "$u" pts membership "$g" $a -cell $CELL
    c "pts listentries" "$u" pts listentries $a -cell $CELL
    c "vos listaddrs" '.' vos listaddrs $a -cell $CELL -noresolve
    c "vos create" "Volume [0-9]+ created" vos create "$ADDR" a "$v" $a -cell $CELL -noresolve
    c "vos listvol" "$v" vos listvol "$ADDR" a $a -cell $CELL -noresolve
    c "vos listvldb" "$v" vos listvldb "$v" $a -cell $CELL -noresolve
    c "vos examine" "On-line" vos examine "$v" $a -cell $CELL -noresolve
    c "vos dump" 'Dumped volume' vos dump "$v" 0 -file "$DIR/run/$v.dump" $a -cell $CELL
    c "vos restore" 'Restored volume' vos restore "$ADDR" a "$v.r" -file "$DIR/run/$v.dump" $a -cell $CELL
    c "vos backup" 'Created backup' vos backup "$v" $a -cell $CELL
    c "vos remove" 'deleted' vos remove "$ADDR" a "$v" $a -cell $CELL -noresolve
    c "vos remove restored" 'deleted' vos remove "$ADDR" a "$v.r" $a -cell $CELL -noresolve
    rm -f "$DIR/run/$v.dump"
    c "xstat_fs_test" 'AFS_XSTATSCOLL_FULL_PERF_INFO' bash -c "xstat_fs_test -fsname $ADDR -collID 2 -onceonly -period 1 2>&1"
    c "pts delete" '^$' bash -c "pts delete $u $a -cell $CELL && pts delete $g $a -cell $CELL && echo"
    if [ "$MODE" = auth ]; then
        tno "pts createuser without a token is refused" run pts createuser nobody1 -noauth -cell $CELL
        tno "vos create without a token is refused" run vos create "$ADDR" a nope -noauth -cell $CELL -noresolve
        c "KDC gives a ticket (kinit)" "admin@$REALM" bash -c "kinit -k -t $DIR/krb5/users.keytab admin && klist"
        c "service ticket (kvno)" 'kvno = ' kvno "afs/$CELL@$REALM"
        # A user's token without a kernel: aklog needs the AFS system call, so
        # rxpeer takes the user's ticket to the server itself.
        if make -s -C "$HERE" OUT="$DIR/bin" > "$DIR/log/make.out" 2>&1; then
            local l x=$RANDOM vol
            for l in clear auth crypt; do
                c "ticket from the KDC, rxkad-$l: admin makes a user" '"errors":0' \
                    "$DIR/bin/rxpeer" client "$ADDR" 7002 ptsuser --name "k$l$x" --security rxkad-$l --krb5 "afs/$CELL"
                c "  pts delete" '^$' bash -c "pts delete k$l$x -localauth && echo"
            done
            vol=$(inns vos examine rx.data -noauth -noresolve 2>/dev/null | awk 'NR==1{print $2}')
            c "file server, rxkad-crypt: admin sets an ACL, called back meanwhile" '"errors":0' \
                "$DIR/bin/rxpeer" client "$ADDR" 7000 setacl --vol "$vol" --security rxkad-crypt --krb5 "afs/$CELL"
            for l in clear auth crypt; do
                c "file server, rxkad-$l: admin stores and fetches a file of 3 MB" '"errors":0,"last_error":0,"bad_content":0' \
                    "$DIR/bin/rxpeer" client "$ADDR" 7000 fsfile --vol "$vol" --bytes 3000000 --security rxkad-$l --krb5 "afs/$CELL"
            done
            c "vos dump of those files" 'Dumped volume' bash -c "vos dump rx.data 0 -localauth -cell $CELL > $DIR/run/rx.dump"
            c "  the file server refuses it without a ticket" '"last_error":13,' \
                "$DIR/bin/rxpeer" client "$ADDR" 7000 setacl --vol "$vol"
            c "kinit user1" "user1@$REALM" bash -c "kinit -k -t $DIR/krb5/users.keytab user1 && klist"
            c "  user1 may not make a user" '"last_error":267269' \
                "$DIR/bin/rxpeer" client "$ADDR" 7002 ptsuser --name "n$x" --security rxkad-crypt --krb5 "afs/$CELL"
            c "server key as credential (--confdir), rxkad-crypt" '"errors":0' \
                "$DIR/bin/rxpeer" client "$ADDR" 7002 ptsuser --name "c$x" --security rxkad-crypt --confdir /etc/openafs/server
            c "  pts delete" '^$' bash -c "pts delete c$x -localauth && echo"
        else
            BAD=$((BAD + 1)); echo "FAIL  rxpeer does not build, see $DIR/log/make.out"
        fi
    fi
    echo "passed $OK, failed $BAD"
    [ "$BAD" -eq 0 ]
}

case $VERB in
    up) up "$@" ;;
    down) down ;;
    status) status ;;
    check) check ;;
    exec) alive || die "cell is down"; inns "$@" ;;
esac
