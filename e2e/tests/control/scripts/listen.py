"""A server that listens where it likes, and says everything that reaches it, one JSON object per line.

Arguments: ports of HTTP servers, then ports on which any TCP connection and any datagram is taken; separated by commas.
Every port is opened for IPv4 and IPv6. GET /ready answers 503 while the file /tmp/unready is there.
"""

import http.server
import json
import os
import socket
import sys
import threading

LOCK = threading.Lock()


def say(**line):
    with LOCK:
        print(json.dumps(line) + "\n", end="", flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        status = 503 if self.path == "/ready" and os.path.exists("/tmp/unready") else 200
        headers = [[name, value] for name, value in self.headers.items()]
        peer = self.client_address[0]
        say(http=self.server.server_port, method=self.command, path=self.path, peer=peer, headers=headers, status=status)
        self.send_response(status)
        self.send_header("Content-Length", "3")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"ok\n")

    do_GET = do_HEAD = do_POST = answer

    def log_message(self, *_):
        pass


class Http(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def bound(kind, port):
    made = socket.socket(socket.AF_INET6, kind)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("::", port))
    return made


def connections(listener, port):
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=one, args=(connection, peer, port), daemon=True).start()


def one(connection, peer, port):
    with connection:
        say(tcp=port, peer=peer[0], text=None)
        text = connection.recv(4096).decode("utf-8", "replace")
        say(tcp=port, peer=peer[0], text=text)
        connection.sendall(b"here\n")


def datagrams(receiver, port):
    while True:
        data, peer = receiver.recvfrom(4096)
        say(udp=port, peer=peer[0], text=data.decode("utf-8", "replace"))
        receiver.sendto(b"here\n", peer)


def start(target, *arguments):
    threading.Thread(target=target, args=arguments, daemon=True).start()


for number in (int(port) for port in sys.argv[2].split(",") if port):
    listener = bound(socket.SOCK_STREAM, number)
    listener.listen()
    start(connections, listener, number)
    start(datagrams, bound(socket.SOCK_DGRAM, number), number)
for number in (int(port) for port in sys.argv[1].split(",") if port):
    start(Http(("::", number), Handler).serve_forever)
say(listening=sys.argv[1:])
threading.Event().wait()
