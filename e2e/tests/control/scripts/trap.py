"""A trap on one port of every address that is this host's: says what it gets, and ends when its input does."""

import socket
import sys
import threading

PORT = int(sys.argv[1])


def take(connection):
    with connection:
        connection.settimeout(10)
        try:
            print(f"GOT {connection.recv(4096)}\n", end="", flush=True)
            connection.sendall(b"trapped\n")
        except OSError:
            pass


def listen():
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", PORT))
    listener.listen()
    print("LISTENS", flush=True)
    while True:
        connection, peer = listener.accept()
        print(f"CONNECTION {peer[0]}\n", end="", flush=True)
        threading.Thread(target=take, args=(connection,), daemon=True).start()


threading.Thread(target=listen, daemon=True).start()
sys.stdin.read()
