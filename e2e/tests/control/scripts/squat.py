"""A server that waits until one of the sidecar's ports is free, takes it, and says what it gets there.

Arguments: the port, and the user to do it as (0: as it is).
"""

import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def say(**line):
    print(json.dumps(line) + "\n", end="", flush=True)


threading.Thread(target=HTTPServer(("127.0.0.1", 8000), Handler).serve_forever, daemon=True).start()
port, user = int(sys.argv[1]), int(sys.argv[2])
if user:
    os.setgid(user)
    os.setuid(user)
say(waits=port, user=os.getuid())
while True:
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("::", port))
        listener.listen()
        break
    except OSError:
        listener.close()
        time.sleep(0.001)
say(squats=port)


def one(connection, peer):
    with connection:
        say(peer=peer[0], got=connection.recv(4096).decode("utf-8", "replace"))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


while True:
    connection, peer = listener.accept()
    threading.Thread(target=one, args=(connection, peer), daemon=True).start()
