"""Tries targets such as tcp|10.0.0.1|9000, all at once, with a text that the listener would say. Prints those that answer."""

import socket
import sys
import threading

SECONDS = 3


def one(target):
    protocol, address, port = target.split("|")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(family, kind) as connection:
        connection.settimeout(SECONDS)
        try:
            connection.connect((address, int(port)))
            connection.sendall(f"{sys.argv[1]} {target}\n".encode())
            if connection.recv(16):
                print(f"{target}\n", end="", flush=True)
        except OSError:
            pass


threads = [threading.Thread(target=one, args=(target,)) for target in sys.argv[2:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
