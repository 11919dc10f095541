"""Another team's injector: puts an init container of its own in front of all others, and a container beside the server.

Listens on 127.0.0.1:18443 with the certificate below /tls. Leaves a pod alone that it has changed already.
"""

import base64
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

IMAGE = sys.argv[1]
PYTHON = "/opt/venv/bin/python"


def changes(pod):
    spec = pod["spec"]
    if any(container["name"] == "second" for container in spec["containers"]):
        return []
    common = {"image": IMAGE, "imagePullPolicy": "IfNotPresent"}
    beside = {"name": "second", "command": [PYTHON, "-c", "import threading; threading.Event().wait()"], **common}
    first = {"name": "second-init", "command": [PYTHON, "-c", "print('first')"], **common}
    changed = [{"op": "add", "path": "/spec/containers/-", "value": beside}]
    if spec.get("initContainers"):
        changed.append({"op": "add", "path": "/spec/initContainers/0", "value": first})
    else:
        changed.append({"op": "add", "path": "/spec/initContainers", "value": [first]})
    return changed


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = {"uid": review["request"]["uid"], "allowed": True}
        if patch := changes(review["request"]["object"]):
            response["patchType"] = "JSONPatch"
            response["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
        review = {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}
        body = json.dumps(review).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server = ThreadingHTTPServer(("127.0.0.1", 18443), Handler)
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
