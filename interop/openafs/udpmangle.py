#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""A UDP relay that loses, repeats, delays and reorders datagrams.

    udpmangle.py --listen ADDR:PORT --to ADDR:PORT [--drop P] [--dup P]
                 [--reorder P] [--delay MS] [--jitter MS] [--corrupt P]
                 [--mtu BYTES] [--no-cksum] [--corrupt-sealed P]
                 [--seed N] [--dir both|up|down] [--verbose]

Port 0 takes a free one; the line `ready` names it.
Stands between an Rx client and an Rx server where the kernel has no netem.
P are percentages per datagram. --no-cksum makes of the client's DATA packets
those of a client that knows of no header checksums. --corrupt flips a bit
anywhere in a datagram; --corrupt-sealed one in what rxkad's checks cover:
the checksum of a DATA packet's header, or the first 8 bytes of its body, or
anywhere in a CHALLENGE's or RESPONSE's. Each client address gets a socket of its own
towards the server, so several clients may use one relay. Runs until killed;
prints totals as one JSON line when it gets SIGTERM or SIGINT. With the same
seed and the same order of datagrams it does the same things.
"""
import argparse
import heapq
import json
import random
import selectors
import signal
import socket
import sys
import time


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--listen", type=address, required=True)
    ap.add_argument("--to", type=address, required=True)
    for name in ("drop", "dup", "reorder", "corrupt", "corrupt-sealed", "delay", "jitter"):
        ap.add_argument("--" + name, type=float, default=0)
    ap.add_argument("--mtu", type=int, default=0, help="drop larger datagrams")
    ap.add_argument("--no-cksum", action="store_true", help="clear the header checksum of what goes up")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--dir", choices=("both", "up", "down"), default="both")
    ap.add_argument("--verbose", action="store_true")
    a = ap.parse_args()

    rng = random.Random(a.seed)
    front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    front.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)  # loses only what it is told to
    front.bind(a.listen)
    front.setblocking(False)
    sel = selectors.DefaultSelector()
    sel.register(front, selectors.EVENT_READ, None)
    backs = {}
    queue = []          # (due, order, socket, data, address or None)
    order = 0
    count = dict(up=0, down=0, dropped=0, duplicated=0, reordered=0, corrupted=0, oversize=0,
                 largest_up=0, largest_down=0)
    running = True

    def stop(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(json.dumps({"event": "ready", "listen": list(front.getsockname())}), flush=True)

    def hit(percent):
        return percent > 0 and rng.random() * 100 < percent

    def put(way, sock, data, to):
        nonlocal order
        count[way] += 1
        count["largest_" + way] = max(count["largest_" + way], len(data))
        note = []
        copies = 1
        if a.no_cksum and way == "up" and len(data) >= 28 and data[20] == 1:
            data = data[:24] + bytes(2) + data[26:]
        wait = a.delay / 1000
        if a.dir in ("both", way):
            if a.mtu and len(data) > a.mtu:
                count["oversize"] += 1
                note.append("oversize")
                copies = 0
            elif hit(a.drop):
                count["dropped"] += 1
                note.append("dropped")
                copies = 0
            elif hit(a.dup):
                count["duplicated"] += 1
                note.append("duplicated")
                copies = 2
            if copies and hit(a.reorder):
                count["reordered"] += 1
                note.append("held")
                wait += 0.003 + a.delay / 1000
            if copies and hit(a.corrupt):
                count["corrupted"] += 1
                note.append("corrupted")
                i = rng.randrange(len(data))
                data = data[:i] + bytes([data[i] ^ (1 << rng.randrange(8))]) + data[i + 1:]
            if copies and hit(a.corrupt_sealed) and len(data) > 28 and data[20] in (1, 6, 7):
                count["corrupted"] += 1
                note.append("corrupted")
                places = [24, 25, *range(28, min(36, len(data)))] if data[20] == 1 else range(28, len(data))
                i = rng.choice(places)
                data = data[:i] + bytes([data[i] ^ (1 << rng.randrange(8))]) + data[i + 1:]
            if a.jitter:
                wait += rng.random() * a.jitter / 1000
        if a.verbose and note:
            print(json.dumps({"way": way, "bytes": len(data), "what": note,
                              "serial": int.from_bytes(data[16:20], "big") if len(data) >= 28 else None}), flush=True)
        for i in range(copies):
            order += 1
            heapq.heappush(queue, (time.monotonic() + wait + i * 0.0005, order, sock, data, to))

    while running:
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, _, sock, data, to = heapq.heappop(queue)
            try:
                if to is None:
                    sock.send(data)
                else:
                    sock.sendto(data, to)
            except OSError:
                pass
        timeout = min(0.2, max(0, queue[0][0] - time.monotonic())) if queue else 0.2
        for key, _ in sel.select(timeout):
            sock = key.fileobj
            try:
                if key.data is None:
                    data, peer = sock.recvfrom(65536)
                    back = backs.get(peer)
                    if back is None:
                        back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                        back.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
                        back.connect(a.to)
                        back.setblocking(False)
                        backs[peer] = back
                        sel.register(back, selectors.EVENT_READ, peer)
                    put("up", back, data, None)
                else:
                    put("down", front, sock.recv(65536), key.data)
            except OSError:
                pass
    print(json.dumps({"event": "totals", **count}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
