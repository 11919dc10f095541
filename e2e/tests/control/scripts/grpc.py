"""The standard health check of gRPC, by hand: enough of HTTP/2 to answer it. Says each check, one JSON object per line.

Argument: the port. Answers NOT_SERVING while the file /tmp/unready is there.
"""

import json
import os
import socket
import struct
import sys
import threading

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1
# HPACK without a table: an indexed ":status: 200", then literals.
RESPONSE = b"\x88\x0f\x10\x10application/grpc"
TRAILERS = b"\x00\x0bgrpc-status\x010"


def exactly(connection, count):
    got = b""
    while len(got) < count:
        more = connection.recv(count - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def checked(stream, body):
    # A message: a byte, its length, then field 1, the name of the service.
    service = body[7:].decode() if len(body) > 7 else ""
    serving = not os.path.exists("/tmp/unready")
    print(json.dumps({"grpc": service, "serving": serving}) + "\n", end="", flush=True)
    message = bytes([8, 1 if serving else 2])
    answer = frame(HEADERS, END_HEADERS, stream, RESPONSE)
    answer += frame(DATA, 0, stream, b"\0" + struct.pack("!I", len(message)) + message)
    return answer + frame(HEADERS, END_STREAM | END_HEADERS, stream, TRAILERS)


def serve(connection):
    bodies = {}
    with connection:
        try:
            if exactly(connection, len(PREFACE)) != PREFACE:
                return
            connection.sendall(frame(SETTINGS, 0, 0))
            while True:
                head = exactly(connection, 9)
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
                payload = exactly(connection, length)
                if kind == SETTINGS and not flags & ACK:
                    connection.sendall(frame(SETTINGS, ACK, 0))
                elif kind == PING and not flags & ACK:
                    connection.sendall(frame(PING, ACK, 0, payload))
                elif kind == DATA:
                    bodies[stream] = bodies.get(stream, b"") + payload
                if kind in (DATA, HEADERS) and flags & END_STREAM:
                    connection.sendall(checked(stream, bodies.pop(stream, b"")))
        except (EOFError, OSError):
            pass


listener = socket.create_server(("", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
