"""The payroll API: an ordinary HTTPS resource server with JWT access tokens. It knows nothing about Behalf or MCP.

GET  /salaries/{employee}   needs the scope payroll:read
PUT  /salaries/{employee}   needs the scope payroll:write, body {"amount": 1}

Issuer, audience (exactly "payroll", no other beside it), scope, expiry and signature are checked. Every answer, also a
refusal, says what was seen: who the token stands for, its scope and life, and the SHA-256 of the token, never the token.
GET /_seen on the second, plain port lists all requests since the start; GET /_healthz there is for probes.
"""

import hashlib
import json
import os
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

ISSUER = os.environ["PAYROLL_ISSUER"]
AUDIENCE = os.environ.get("PAYROLL_AUDIENCE", "payroll")
JWKS_URL = os.environ.get("PAYROLL_JWKS_URL", ISSUER + "/protocol/openid-connect/certs")
CA_FILE = os.environ.get("PAYROLL_CA_FILE")
HOST = os.environ.get("PAYROLL_HOST", "0.0.0.0")
PORT = int(os.environ.get("PAYROLL_PORT", "8443"))
SEEN_PORT = int(os.environ.get("PAYROLL_SEEN_PORT", "8081"))
CERTIFICATE = os.environ.get("PAYROLL_TLS_CERT")
KEY = os.environ.get("PAYROLL_TLS_KEY")

SCOPES = {"GET": "payroll:read", "PUT": "payroll:write"}
CLAIMS = ("sub", "preferred_username", "azp", "aud", "scope", "exp", "iat", "iss", "jti", "act")

keys = jwt.PyJWKClient(JWKS_URL, cache_keys=True, timeout=10,
                       ssl_context=ssl.create_default_context(cafile=CA_FILE) if JWKS_URL.startswith("https:") else None)
lock = threading.Lock()
seen: list[dict] = []
salaries = {"alice": 91000, "bob": 64000, "carol": 48000}


class Refused(Exception):
    def __init__(self, status: int, error: str, why: str):
        super().__init__(why)
        self.status, self.error, self.why = status, error, why


def check(token: str | None, method: str) -> dict:
    """The claims of a token that permits the method; raises Refused."""
    if token is None:
        raise Refused(401, "", "no bearer token")
    try:
        key = keys.get_signing_key_from_jwt(token).key
        claims = jwt.decode(token, key, algorithms=["RS256", "ES256", "PS256", "EdDSA"], audience=AUDIENCE, issuer=ISSUER,
                            options={"require": ["exp", "iat", "sub", "aud", "iss"]})
    except jwt.PyJWTError as error:
        raise Refused(401, "invalid_token", str(error)) from error
    if claims["aud"] not in (AUDIENCE, [AUDIENCE]):
        raise Refused(401, "invalid_token", f"the token is for others too: aud is {claims['aud']}")
    if SCOPES[method] not in claims.get("scope", "").split(" "):
        raise Refused(403, "insufficient_scope", f"needs the scope {SCOPES[method]}")
    return claims


def unchecked_claims(token: str) -> dict:
    """What a refused token says of itself, for the list of what was seen; nothing is decided by it."""
    try:
        return jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return {}


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer()

    def do_PUT(self):
        self.answer()

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        authorizations = self.headers.get_all("Authorization") or []
        scheme, _, value = authorizations[0].partition(" ") if len(authorizations) == 1 else ("", "", "")
        token = value.strip() if scheme.lower() == "bearer" and value.strip() else None
        saw = {"method": self.command, "path": self.path, "authorizations": len(authorizations),
               "headers": sorted(name.lower() for name in self.headers.keys())}
        challenge = None
        try:
            claims = check(token, self.command)
            status, content = self.serve(body)
        except Refused as refused:
            claims = unchecked_claims(token) if token else {}
            status, content = refused.status, {"error": refused.error or "unauthorized", "reason": refused.why}
            challenge = "Bearer" + (f' error="{refused.error}"' if refused.error else "")
            if refused.status == 403:
                challenge += f', scope="{SCOPES[self.command]}"'
        saw |= {"status": status, **{name: claims[name] for name in CLAIMS if name in claims}}
        if token:
            saw["token_sha256"] = hashlib.sha256(token.encode()).hexdigest()
        with lock:
            seen.append(saw)
        print(json.dumps(saw), flush=True)
        self.send(status, {**content, "saw": saw}, challenge)

    def serve(self, body: bytes) -> tuple[int, dict]:
        _, _, employee = self.path.partition("/salaries/")
        if employee not in salaries:
            return 404, {"error": "not_found"}
        if self.command == "PUT":
            try:
                salaries[employee] = int(json.loads(body)["amount"])
            except (ValueError, KeyError, TypeError):
                return 400, {"error": "bad_request"}
        return 200, {"employee": employee, "salary": salaries[employee]}

    def send(self, status: int, content, challenge: str | None = None):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Seen(Api):
    def do_GET(self):
        if self.path == "/_healthz":
            return self.send(200, {"status": "ok"})
        if self.path != "/_seen":
            return self.send(404, {"error": "not_found"})
        with lock:
            return self.send(200, seen)

    def do_PUT(self):
        self.send(405, {"error": "method_not_allowed"})


class TlsServer(ThreadingHTTPServer):
    """The handshake is made in the thread of the connection, so that a slow client holds up nobody."""

    daemon_threads = True
    request_queue_size = 128
    tls: ssl.SSLContext | None = None

    def finish_request(self, request, client_address):
        request.settimeout(30)
        if not self.tls:
            self.RequestHandlerClass(request, client_address, self)
            return
        with self.tls.wrap_socket(request, server_side=True) as encrypted:
            self.RequestHandlerClass(encrypted, client_address, self)

    def handle_error(self, request, client_address):
        print(f"connection of {client_address[0]} ended: {sys.exc_info()[1]}", file=sys.stderr, flush=True)


def main():
    api = TlsServer((HOST, PORT), Api)
    if CERTIFICATE:
        api.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        api.tls.load_cert_chain(CERTIFICATE, KEY)
    threading.Thread(target=TlsServer((HOST, SEEN_PORT), Seen).serve_forever, daemon=True).start()
    print(f"payroll on {HOST}:{PORT} ({'https' if CERTIFICATE else 'http'}), issuer {ISSUER}", file=sys.stderr, flush=True)
    api.serve_forever()


if __name__ == "__main__":
    main()
