"""An agent: a real MCP client (the Python SDK with its own OAuth client) that works for one person.

It knows the server's URL and its own client id, nothing else. The server's 401 tells where to log in (RFC 9728), the
person logs in through the provider's login form (authorization code + PKCE), and a 403 insufficient_scope makes it ask
the person for more. Every line on stdout is a JSON object; tokens are never printed.

    agent.py --server http://127.0.0.1:8000/mcp --user alice --calls 'directory.search:{"query":"bob"}' 'salary.get:{"employee":"bob"}'

The password comes from --password-file, $AGENT_PASSWORD, or is <user>-pw, as in the demo's realm.
"""

import argparse
import asyncio
import hashlib
import html.parser
import json
import logging
import os
import ssl
import sys
from urllib.parse import parse_qs, parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata
from mcp.shared.exceptions import MCPError

REDIRECT_URI = "http://127.0.0.1:8765/callback"
ERAS = {"auto": "auto", "legacy": "legacy", "modern": "2026-07-28"}


class LoginFailed(Exception):
    """The provider did not send the person back with a code."""


class FirstForm(html.parser.HTMLParser):
    """The first form of a page that has a password field or a consent button: its action and hidden fields."""

    def __init__(self, page: str):
        super().__init__()
        self.action, self.fields = None, {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if tag == "form" and self.action is None:
            self.action = a.get("action")
        elif tag == "input" and self.action and a.get("type") == "hidden" and a.get("name"):
            self.fields[a["name"]] = a.get("value") or ""


class Person:
    """Someone with a browser: opens the login page, fills in the form, is sent back to the agent with a code.

    Nothing listens on the redirect address: the Location header that a browser would follow is read instead. Keycloak
    marks its cookies Secure even on http loopback; a browser sends them there, a cookie jar would not, so they are
    kept by hand. They stay between logins, so a step-up needs no second password where the provider kept the session of
    the first login (Keycloak does not when offline_access was asked, as the SDK does by itself).
    """

    def __init__(self, browser: httpx2.AsyncClient, user: str, password: str, scope: str | None):
        self.browser, self.user, self.password, self.scope = browser, user, password, scope
        self.cookies: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.passwords_typed = 0
        self.answer: dict[str, list[str]] = {}

    async def request(self, method: str, url: str, **form) -> httpx2.Response:
        host = urlsplit(url).netloc
        held = self.cookies.setdefault(host, {})
        headers = {"cookie": "; ".join(f"{k}={v}" for k, v in held.items())} if held else {}
        answer = await self.browser.request(method, url, headers=headers, follow_redirects=False, **form)
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.split(";")[0].partition("=")
            if "max-age=0" in line.lower():
                held.pop(name, None)
            else:
                held[name] = value
        return answer

    async def open(self, url: str) -> None:
        """The redirect handler of the SDK."""
        if self.scope:
            parts = urlsplit(url)
            query = dict(parse_qsl(parts.query))
            query["scope"], self.scope = self.scope, None
            url = urlunsplit(parts._replace(query=urlencode(query)))
        self.asked.append(parse_qs(urlsplit(url).query).get("scope", [""])[0])
        page, typed = await self.request("GET", url), 0
        for _ in range(8):
            if page.is_redirect:
                url = urljoin(url, page.headers["location"])
                if url.startswith(REDIRECT_URI):
                    self.answer = parse_qs(urlsplit(url).query)
                    return
                page = await self.request("GET", url)
                continue
            form = FirstForm(page.text)
            if page.status_code != 200 or not form.action or typed:
                raise LoginFailed(f"{self.user} could not log in: HTTP {page.status_code}")
            if 'name="password"' in page.text:
                fields, typed = {**form.fields, "username": self.user, "password": self.password}, 1
                self.passwords_typed += 1
            else:
                fields = {**form.fields, "accept": "Yes"}
            url = urljoin(url, form.action)
            page = await self.request("POST", url, data=fields)
        raise LoginFailed(f"{self.user} was sent in circles")

    async def come_back(self) -> AuthorizationCodeResult:
        """The callback handler of the SDK."""
        one = {name: values[0] for name, values in self.answer.items()}
        if "code" not in one:
            raise LoginFailed(f"the provider says {one.get('error')}: {one.get('error_description')}")
        return AuthorizationCodeResult(code=one["code"], state=one.get("state"), iss=one.get("iss"))


class Wallet:
    """The SDK's token storage; remembers the digest of every token it ever held."""

    def __init__(self, client_id: str):
        self.tokens = None
        self.client = OAuthClientInformationFull(client_id=client_id, redirect_uris=[REDIRECT_URI], token_endpoint_auth_method="none")
        self.digests: dict[str, str] = {}

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens
        for kind in ("access_token", "refresh_token", "id_token"):
            if value := getattr(tokens, kind, None):
                self.digests[hashlib.sha256(value.encode()).hexdigest()] = kind

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info

    def scopes(self) -> list[str]:
        return sorted((self.tokens.scope or "").split()) if self.tokens else []


class WithoutStepUp(OAuthClientProvider):
    """The SDK's OAuth client for someone who never agrees to more than the first login: a 403 is final."""

    async def _auth_flow(self, request):
        flow = super()._auth_flow(request)
        outgoing = await anext(flow)
        while True:
            response = yield outgoing
            if outgoing is request and response.status_code == 403:
                await flow.aclose()
                return
            try:
                outgoing = await flow.asend(response)
            except StopAsyncIteration:
                return


def challenge_of(response: httpx2.Response) -> dict | None:
    value = response.headers.get("www-authenticate")
    if not value:
        return None
    scheme, _, rest = value.partition(" ")
    fields = {k.strip(): v for k, v in (part.split("=", 1) for part in rest.replace('", ', '"\n').replace('",', '"\n').split("\n") if "=" in part)}
    return {"scheme": scheme, **{k: v.strip('"') for k, v in fields.items()}}


class Agent:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.wallet = Wallet(options.client_id)
        self.answers: list[dict] = []

    def say(self, **line) -> None:
        print(json.dumps({"user": self.options.user, **line}), flush=True)

    async def note(self, response: httpx2.Response) -> None:
        """Notes how the MCP server answered each request, before the SDK makes something of it."""
        if str(response.request.url) != self.options.server or response.request.method != "POST":
            return
        line: dict = {"status": response.status_code}
        if response.status_code >= 400:
            await response.aread()
            line["challenge"] = challenge_of(response)
            try:
                line["body"] = response.json()
            except ValueError:
                line["body"] = response.text[:500]
        self.answers.append(line)

    async def run(self) -> int:
        o, status = self.options, 0
        trust = ssl.create_default_context()
        if o.ca:
            trust.load_verify_locations(o.ca)
        async with httpx2.AsyncClient(verify=trust, timeout=30) as browser:
            person = Person(browser, o.user, password_of(o), o.scope)
            provider = (OAuthClientProvider if o.step_up else WithoutStepUp)(
                server_url=o.server,
                client_metadata=OAuthClientMetadata(client_name="agent", redirect_uris=[REDIRECT_URI], token_endpoint_auth_method="none"),
                storage=self.wallet, redirect_handler=person.open, callback_handler=person.come_back)
            http = httpx2.AsyncClient(auth=provider, verify=trust, timeout=httpx2.Timeout(30, read=120), event_hooks={"response": [self.note]})
            try:
                async with http, Client(streamable_http_client(o.server, http_client=http), mode=ERAS[o.era]) as client:
                    self.say(event="connected", protocol=client.protocol_version, http=self.answers, scopes=self.wallet.scopes())
                    await self.list_tools(client)
                    for _ in range(o.repeat):
                        for call in o.calls:
                            await self.call(client, call)
                    if o.calls:
                        await self.list_tools(client)
            except* (MCPError, httpx2.HTTPError, LoginFailed, OSError) as group:
                self.say(event="connection", outcome="failed", reason="; ".join(reasons(group)), http=self.answers, scopes=self.wallet.scopes())
                status = 1
            finally:
                self.say(event="login", scopes_asked=person.asked, passwords_typed=person.passwords_typed, scopes=self.wallet.scopes())
                if o.hashes:
                    self.say(event="tokens", sha256=self.wallet.digests)
        return status

    async def list_tools(self, client: Client) -> None:
        self.answers.clear()
        try:
            names = sorted(tool.name for tool in (await client.list_tools(cache_mode="bypass")).tools)
            self.say(event="tools", names=names, http=self.answers, scopes=self.wallet.scopes())
        except MCPError as error:
            self.say(event="tools", names=[], error={"code": error.code, "message": error.message}, http=self.answers, scopes=self.wallet.scopes())

    async def call(self, client: Client, call: str) -> None:
        tool, _, arguments = call.partition(":")
        self.answers.clear()
        line: dict = {"event": "call", "tool": tool}
        try:
            result = await client.call_tool(tool, json.loads(arguments or "{}"))
            line["outcome"] = "failed" if result.is_error else "allowed"
            line["result"] = result.structured_content if result.structured_content is not None else [getattr(c, "text", None) for c in result.content]
        except MCPError as error:
            denied = any(a["status"] in (401, 403) for a in self.answers[-1:])
            line["outcome"] = "denied" if denied else "failed"
            line["error"] = {"code": error.code, "message": error.message, "data": error.data}
        self.say(**line, http=self.answers, scopes=self.wallet.scopes())


def reasons(group: BaseException) -> list[str]:
    if isinstance(group, BaseExceptionGroup):
        return [text for inner in group.exceptions for text in reasons(inner)]
    return [f"{type(group).__name__}: {group}"]


def password_of(options: argparse.Namespace) -> str:
    if options.password_file:
        with open(options.password_file, encoding="utf-8") as file:
            return file.read().strip()
    return os.environ.get("AGENT_PASSWORD") or f"{options.user}-pw"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--server", required=True, help="URL of the MCP server")
    p.add_argument("--user", required=True)
    p.add_argument("--password-file")
    p.add_argument("--client-id", default="agent-ui")
    p.add_argument("--ca", help="PEM file of a CA to trust beside the system's")
    p.add_argument("--calls", nargs="*", default=[], metavar="TOOL:JSON")
    p.add_argument("--repeat", type=int, default=1, help="make the calls this many times")
    p.add_argument("--scope", help="ask for these scopes at the first login instead of what the server's 401 names")
    p.add_argument("--step-up", action=argparse.BooleanOptionalAction, default=True, help="ask the person for more scopes on a 403")
    p.add_argument("--era", choices=ERAS, default="auto", help="legacy: initialize handshake; modern: revision 2026-07-28")
    p.add_argument("--hashes", action="store_true", help="print the SHA-256 of every token held, never a token")
    p.add_argument("--verbose", action="store_true", help="the SDK's own log on stderr")
    options = p.parse_args()
    # The SDK's log at its usual level prints tracebacks of logins that were refused; the JSON lines say it in one.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO if options.verbose else logging.CRITICAL)
    return asyncio.run(Agent(options).run())


if __name__ == "__main__":
    sys.exit(main())
