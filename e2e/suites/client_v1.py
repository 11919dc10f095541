"""A client of the first generation: the Python SDK 1.x with its own OAuth client, for one person.

    client_v1.py SERVER USER CA TOOL:JSON...

It knows the server's URL and its own client id, nothing else: the server's 401 tells where to log in, a 403
insufficient_scope makes it ask for more. Every line on stdout is a JSON object; tokens are never printed.
"""

import asyncio
import html.parser
import json
import logging
import ssl
import sys
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata

REDIRECT_URI = "http://127.0.0.1:8765/callback"


class Form(html.parser.HTMLParser):
    """The first form of a page: its action and hidden fields."""

    def __init__(self, page: str):
        super().__init__()
        self.action, self.fields = None, {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if tag == "form" and self.action is None:
            self.action = a.get("action")
        elif tag == "input" and a.get("type") == "hidden" and a.get("name"):
            self.fields[a["name"]] = a.get("value") or ""


class Person:
    """Someone with a browser. The provider's cookies are Secure, which a browser ignores on loopback and a jar does not."""

    def __init__(self, browser: httpx.AsyncClient, user: str):
        self.browser, self.user, self.cookies, self.asked, self.answer = browser, user, {}, [], {}

    async def request(self, method: str, url: str, **form) -> httpx.Response:
        cookies = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        answer = await self.browser.request(method, url, headers={"cookie": cookies} if cookies else {}, **form)
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.split(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    async def open(self, url: str) -> None:
        self.asked.append(parse_qs(urlsplit(url).query).get("scope", [""])[0])
        page = await self.request("GET", url)
        for _ in range(8):
            if page.is_redirect:
                url = urljoin(url, page.headers["location"])
                if url.startswith(REDIRECT_URI):
                    self.answer = {k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}
                    return
                page = await self.request("GET", url)
                continue
            form = Form(page.text)
            if not form.action:
                raise RuntimeError(f"no form: HTTP {page.status_code}")
            who = {"username": self.user, "password": f"{self.user}-pw"} if 'name="password"' in page.text else {"accept": "Yes"}
            url = urljoin(url, form.action)
            page = await self.request("POST", url, data={**form.fields, **who})
        raise RuntimeError("sent in circles")

    async def come_back(self) -> tuple[str, str | None]:
        if "code" not in self.answer:
            raise RuntimeError(f"the provider says {self.answer.get('error')}")
        return self.answer["code"], self.answer.get("state")


class Wallet:
    """The SDK's token storage."""

    def __init__(self):
        self.tokens = None
        self.client = OAuthClientInformationFull(client_id="agent-ui", redirect_uris=[REDIRECT_URI], token_endpoint_auth_method="none")

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


async def main(server: str, user: str, ca: str, *calls: str) -> None:
    trust = ssl.create_default_context(cafile=ca)
    statuses: list[int] = []

    async def note(response: httpx.Response) -> None:
        if str(response.request.url) == server and response.request.method == "POST":
            statuses.append(response.status_code)

    async with httpx.AsyncClient(verify=trust, timeout=30) as browser:
        person, wallet = Person(browser, user), Wallet()
        metadata = OAuthClientMetadata(client_name="client", redirect_uris=[REDIRECT_URI], token_endpoint_auth_method="none")
        auth = OAuthClientProvider(server, metadata, wallet, person.open, person.come_back)
        http = httpx.AsyncClient(auth=auth, verify=trust, timeout=httpx.Timeout(30, read=120), event_hooks={"response": [note]})
        async with http, streamable_http_client(server, http_client=http) as (read, write, _), ClientSession(read, write) as session:
            hello = await session.initialize()
            print(json.dumps({"event": "connected", "protocol": hello.protocolVersion, "statuses": statuses}), flush=True)
            tools = await session.list_tools()
            print(json.dumps({"event": "tools", "names": sorted(tool.name for tool in tools.tools)}), flush=True)
            for call in calls:
                statuses.clear()
                tool, _, arguments = call.partition(":")
                result = await session.call_tool(tool, json.loads(arguments or "{}"))
                outcome = "failed" if result.isError else "allowed"
                print(json.dumps({"event": "call", "tool": tool, "outcome": outcome, "statuses": statuses}), flush=True)
        print(json.dumps({"event": "login", "scopes_asked": person.asked}), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    asyncio.run(main(*sys.argv[1:]))
