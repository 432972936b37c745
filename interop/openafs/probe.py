#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Asks a real vlserver and ptserver the questions of PROBES.md.

    probe.py vl HOST[:7003] [--hex]
    probe.py pts HOST[:7002] [--hex]

A tiny Rx client of its own, without windows and security, that shares no code
with anything else: what it gets back is what PROBES.md expects. One line
per probe; exit 1 if a server gave another answer. `--hex` prints request and
reply in full.
"""
import os
import socket
import struct
import sys
import time

DATA, ACK, BUSY, ABORT = 1, 2, 3, 4
CLIENT, REQACK, LAST, JUMBO = 1, 2, 4, 0x20
HEADER = struct.Struct("!IIIIIBBBBHH")


class Aborted(Exception):
    pass


class Connection:
    """One channel of one connection; each call resends until it has an end."""

    def __init__(self, address, service):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect(address)
        self.epoch = int.from_bytes(os.urandom(4), "big") | 0x80000000
        self.cid = int.from_bytes(os.urandom(4), "big") & 0x3ffffffc
        self.service = service
        self.call = self.serial = 0

    def send(self, kind, flags, seq, body):
        self.serial += 1
        self.sock.send(HEADER.pack(self.epoch, self.cid, self.call, seq, self.serial, kind,
                                   flags | CLIENT, 0, 0, 0, self.service) + body)

    def ack(self, first, have, serial, reason):
        """`first`: next packet wanted; `have`: packets held behind it."""
        top = max(have, default=first - 1)
        held = bytes(1 if n in have else 0 for n in range(first, top + 1))
        self.send(ACK, 0, 0, struct.pack("!HHIIIBB", 0, 0, first, first - 1, serial, reason, len(held))
                  + held + bytes(3) + struct.pack("!4I", 1444, 1444, 32, 1))

    def request(self, body):
        """Sends a request (a few packets, all at once); returns the reply."""
        self.call += 1
        got, last, began = {}, None, time.monotonic()
        while time.monotonic() < began + 10:
            if not got:
                for at in range(0, len(body), 1412):
                    self.send(DATA, LAST if at + 1412 >= len(body) else 0, at // 1412 + 1, body[at:at + 1412])
            resend = time.monotonic() + 1
            while time.monotonic() < resend:
                self.sock.settimeout(max(0.001, resend - time.monotonic()))
                try:
                    packet = self.sock.recv(65536)
                except socket.timeout:
                    break
                (epoch, cid, call, seq, serial, kind, flags, _, _, _, _) = HEADER.unpack(packet[:28])
                if (epoch, cid, call) != (self.epoch, self.cid, self.call) or flags & CLIENT:
                    continue
                if kind == ABORT:
                    raise Aborted(struct.unpack("!i", packet[28:32])[0])
                if kind == ACK and packet[28 + 16] == 6:    # a ping
                    first = next(n for n in range(1, 9999) if n not in got)
                    self.ack(first, {n for n in got if n > first}, serial, 7)
                if kind != DATA:
                    continue
                assert not flags & JUMBO, "a jumbogram, though our ACKs allow none"
                got[seq] = packet[28:]
                if flags & LAST:
                    last = seq
                first = next(n for n in range(1, 9999) if n not in got)
                self.ack(first, {n for n in got if n > first}, serial, 1 if flags & REQACK else 8)
                if last and first > last:
                    return b"".join(got[n] for n in range(1, last + 1))
        raise TimeoutError("no reply")


def u32(*words):
    return struct.pack("!%dI" % len(words), *(w & 0xffffffff for w in words))


def string(text):
    """An XDR string: length, bytes, padding to four."""
    raw = text.encode()
    return u32(len(raw)) + raw + bytes(-len(raw) % 4)


def chars(text, size):
    """A fixed array of char: a word for each."""
    raw = text.encode().ljust(size, b"\0")
    return b"".join(u32(c) for c in raw)


def words(reply, at, count=1):
    return struct.unpack_from("!%dI" % count, reply, at * 4)


def name(reply, at, size):
    return bytes(w & 0xff for w in words(reply, at, size)).split(b"\0")[0].decode()


failed = 0


def probe(conn, what, body, check, code=None):
    """`check` looks at the reply and returns what to print; `code`: the abort to expect."""
    global failed
    try:
        reply = conn.request(body)
        said = "%d bytes, " % len(reply) + (check(reply) if code is None else "a reply, not abort %d" % code)
        good = code is None
    except Aborted as e:
        reply, good = b"", e.args[0] == code
        said = "abort %d" % e.args[0]
    except (AssertionError, OSError, StopIteration, struct.error) as e:
        reply, good, said = b"", False, "%s: %s" % (type(e).__name__, e)
    failed += not good
    print("%-5s %-36s %4d bytes -> %s" % ("ok" if good else "FAIL", what, len(body), said))
    if "--hex" in sys.argv:
        print("      request", body.hex())
        print("      reply  ", reply.hex())


def expect(value, wanted):
    assert value == wanted, "%r instead of %r" % (value, wanted)
    return value


def vl(conn):
    root = None

    def entry(size, total, ids):
        def check(r):
            nonlocal root
            expect(len(r), total)
            expect(name(r, 0, 65), "root.cell")
            count, rw = words(r, size)[0], words(r, ids)[0]
            expect(count, 1)
            assert root in (None, rw), "volume %d, before it was %d" % (rw, root)
            root = rw
            return "root.cell, %d server, RW volume %d" % (count, rw)
        return check

    probe(conn, "VL_ProbeServer", u32(514), lambda r: str(expect(len(r), 0)))
    probe(conn, "VL_GetEntryByNameO", u32(504) + string("root.cell"), entry(66, 384, 91))
    probe(conn, "VL_GetEntryByNameN", u32(519) + string("root.cell"), entry(65, 476, 105))
    probe(conn, "VL_GetEntryByNameU", u32(527) + string("root.cell"), entry(65, 1048, 248))
    if root:
        probe(conn, "VL_GetEntryByID", u32(503, root, -1), entry(66, 384, 91))
    probe(conn, "VL_GetEntryByNameO, no such volume", u32(504) + string("no.such.volume"), None, 363524)
    index, seen = 0, []
    for _ in range(100):
        def check(r):
            nonlocal index
            count, index = words(r, 0, 2)
            seen.append(name(r, 2, 65) if index else "")
            return "count %d, next index %d, %s" % (count, index, seen[-1] or "(end)")
        probe(conn, "VL_ListEntry, index %d" % index, u32(510, index), check)
        if not index:
            break

    def everything(r):
        count, length = words(r, 0, 2)
        expect(len(r), 8 + 476 * count)
        expect((count, length), (len(seen) - 1, count))
        found = [name(r, 2 + 119 * i, 65) for i in range(count)]
        expect(sorted(found), sorted(seen[:-1]))
        return " ".join(found)
    probe(conn, "VL_ListAttributesN", u32(522, 0, 0, 0, 0, 0, 0), everything)
    probe(conn, "unknown operation", u32(599), None, -455)
    probe(conn, "name without its length", u32(504), None, -453)


def pts(conn):
    names = ["system:administrators", "system:anyuser", "anonymous", "no-such-user"]
    ids = [-204, -101, 32766, 32766]

    def toid(r):
        expect(r, u32(len(ids), *ids))
        return str(ids)

    def toname(r):
        expect(r, u32(2) + chars("system:administrators", 64) + chars("anonymous", 64))
        return "system:administrators, anonymous"

    probe(conn, "PR_NameToID", u32(504, len(names)) + b"".join(chars(n, 64) for n in names), toid)
    probe(conn, "PR_NameToID, request of two packets", u32(504, 8) + chars("system:anyuser", 64) * 8,
          lambda r: str(expect(r, u32(8, *[-101] * 8)) and "8 times -101"))
    probe(conn, "PR_IDToName", u32(505, 2, -204, 32766), toname)
    probe(conn, "PR_IDToName, reply of four packets", u32(505, 20, *[-101] * 20),
          lambda r: str(expect(r, u32(20) + chars("system:anyuser", 64) * 20) and "20 names"))
    probe(conn, "unknown operation", u32(599), None, -455)
    probe(conn, "list without its length", u32(504), None, -453)


def main():
    args = [a for a in sys.argv[1:] if a != "--hex"]
    if len(args) != 2 or args[0] not in ("vl", "pts"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    host, _, port = args[1].partition(":")
    kind = args[0]
    conn = Connection((host, int(port or (7003 if kind == "vl" else 7002))), 52 if kind == "vl" else 73)
    (vl if kind == "vl" else pts)(conn)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
