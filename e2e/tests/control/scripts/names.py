"""A nameserver on port 5353 that answers one name from the file /tmp/answers and asks another server for all others.

Arguments: the name, and the address of the other server. /tmp/answers holds addresses; answers may not be kept.
"""

import ipaddress
import socket
import struct
import sys
import threading

NAME, UPSTREAM = sys.argv[1].rstrip(".").lower(), sys.argv[2]
A, AAAA = 1, 28


def question(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
    return ".".join(labels).lower(), kind, query[12 : at + 5]


def addresses(kind):
    try:
        with open("/tmp/answers", encoding="ascii") as answers:
            found = [ipaddress.ip_address(word) for word in answers.read().split()]
    except OSError:
        return []
    return [address for address in found if address.version == (4 if kind == A else 6)]


def own(query, kind, asked_for):
    found = addresses(kind) if kind in (A, AAAA) else []
    head = query[:2] + struct.pack("!HHHHH", 0x8580, 1, len(found), 0, 0)
    print(" ".join(str(it) for it in (asked_for, kind, *found)) + "\n", end="", flush=True)
    records = (struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(a.packed)) + a.packed for a in found)
    return head + question(query)[2] + b"".join(records)


def answer(query, peer):
    name, kind, _ = question(query)
    if name == NAME:
        server.sendto(own(query, kind, name), peer)
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:
        upstream.settimeout(3)
        upstream.connect((UPSTREAM, 53))
        upstream.send(query)
        server.sendto(upstream.recv(65535), peer)


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 5353))
while True:
    query, peer = server.recvfrom(65535)
    threading.Thread(target=answer, args=(query, peer), daemon=True).start()
