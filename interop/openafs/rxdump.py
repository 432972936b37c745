#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Prints an Rx packet capture, one line per Rx packet.

    rxdump.py FILE.pcap [--port N] [--hex]

Takes the plain pcap format (Ethernet or Linux cooked) with IPv4/UDP. Shows
what Wireshark's dissector leaves out: the packets inside a jumbogram, all of
an ACK with its trailer, abort codes, rxkad challenge and response fields.
"""
import struct
import sys

TYPES = {1: "DATA", 2: "ACK", 3: "BUSY", 4: "ABORT", 5: "ACKALL", 6: "CHALLENGE",
         7: "RESPONSE", 8: "DEBUG", 9: "PARAMS", 10: "PARAMS", 11: "PARAMS", 13: "VERSION"}
REASONS = {1: "requested", 2: "duplicate", 3: "out-of-sequence", 4: "exceeds-window",
           5: "no-space", 6: "ping", 7: "ping-response", 8: "delay", 9: "idle", 10: "mtu"}
CLIENT, REQACK, LAST, MORE, JUMBO = 1, 2, 4, 8, 0x20


def flagtext(kind, flags):
    names = [(CLIENT, "C"), (REQACK, "reqack"), (LAST, "LAST"), (MORE, "more")]
    names.append((JUMBO, "JUMBO" if kind == 1 else "slowstart"))
    text = ",".join(n for bit, n in names if flags & bit)
    rest = flags & ~0x2f
    return text + (",0x%02x" % rest if rest else "")


def packets(data):
    magic = struct.unpack("<I", data[:4])[0]
    end = "<" if magic in (0xa1b2c3d4, 0xa1b23c4d) else ">"
    frac = 1e-9 if 0xa1b23c4d in struct.unpack("<I", data[:4]) + struct.unpack(">I", data[:4]) else 1e-6
    link = struct.unpack(end + "I", data[20:24])[0] & 0xffff
    skip = {1: 14, 113: 16, 276: 20, 101: 0}[link]
    at = 24
    while at + 16 <= len(data):
        sec, sub, size, _ = struct.unpack(end + "IIII", data[at:at + 16])
        yield sec + sub * frac, data[at + 16 + skip:at + 16 + size]
        at += 16 + size


def ack(body):
    if len(body) < 18:
        return "short"
    space, skew, first, prev, serial, reason, count = struct.unpack("!HHIIIBB", body[:18])
    acks = body[18:18 + count]
    text = "%s first %d prev %d serial %d acks %d [%s]" % (
        REASONS.get(reason, reason), first, prev, serial, count,
        "".join("+" if a == 1 else "-" if a == 0 else "?" for a in acks))
    if space or skew:
        text += " space %d skew %d" % (space, skew)
    tail = body[18 + count + 3:]
    words = struct.unpack("!%dI" % (len(tail) // 4), tail[:len(tail) // 4 * 4])
    for name, word in zip(("maxmtu", "ifmtu", "rwind", "maxpkts"), words):
        text += " %s %d" % (name, word)
    return text


def line(kind, flags, seq, serial, sec, check, body, showhex):
    text = "%-9s %-12s seq %d serial %d sec %d spare %04x len %d" % (
        TYPES.get(kind, kind), flagtext(kind, flags), seq, serial, sec, check, len(body))
    if kind == 2:
        text = "%-9s %-12s serial %d %s" % ("ACK", flagtext(kind, flags), serial, ack(body))
    elif kind == 4 and len(body) >= 4:
        text += " code %d" % struct.unpack("!i", body[:4])
    elif kind == 6 and len(body) >= 16:
        text += " version %d nonce %08x minlevel %d" % struct.unpack("!IIi", body[:12])
    elif kind == 7 and len(body) >= 56:
        kvno, size = struct.unpack("!II", body[48:56])
        text += " version %d kvno %d ticket %d bytes" % (struct.unpack("!I", body[:4])[0], kvno, size)
    elif showhex:
        text += " " + body[:24].hex()
    return text


def main():
    args = [a for a in sys.argv[1:] if not a.startswith("--")]
    showhex = "--hex" in sys.argv
    port = None
    if "--port" in sys.argv:
        port = int(args.pop(args.index(sys.argv[sys.argv.index("--port") + 1])))
    data = open(args[0], "rb").read()
    start = None
    for number, (when, ip) in enumerate(packets(data), 1):
        start = when if start is None else start
        if len(ip) < 28 or ip[0] >> 4 != 4:
            continue
        head = (ip[0] & 15) * 4
        if ip[9] == 1:
            print("%4d %9.6f ICMP type %d code %d" % (number, when - start, ip[head], ip[head + 1]))
            continue
        if ip[9] != 17:
            continue
        src, dst, size = struct.unpack("!HHH", ip[head:head + 6])
        if port and port not in (src, dst):
            continue
        rx = ip[head + 8:head + size]
        if len(rx) < 28:
            continue
        epoch, cid, call, seq, serial, kind, flags, status, sec, check, service = struct.unpack(
            "!IIIIIBBBBHH", rx[:28])
        body = rx[28:]
        where = "%4d %9.6f %5d>%-5d cid %08x/%d call %-3d svc %-3d udp %-5d" % (
            number, when - start, src, dst, cid & ~3, cid & 3, call, service, len(rx))
        while kind == 1 and flags & JUMBO and len(body) > 1416:
            print(where, line(kind, flags, seq, serial, sec, check, body[:1412], showhex))
            flags, _, check = struct.unpack("!BBH", body[1412:1416])
            body = body[1416:]
            seq += 1
            serial += 1
            where = " " * (len(where) - 9) + "in jumbo "
        print(where, line(kind, flags, seq, serial, sec, check, body, showhex))


if __name__ == "__main__":
    main()
