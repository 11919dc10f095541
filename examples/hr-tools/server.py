"""HR tools: an ordinary FastMCP server. It knows nothing about Behalf.

It asks the payroll API for salaries and, as such servers do, passes on the Authorization header of the call it is
answering. It prints every header of every request it gets, one JSON object per line, so that anyone can see what
reaches it.
"""

import json
import os
import ssl
import sys

import httpx2
from fastmcp import FastMCP
from fastmcp.server.dependencies import get_http_headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

PAYROLL_URL = os.environ.get("PAYROLL_URL", "https://payroll.payroll.svc.cluster.local:8443").rstrip("/")
STATELESS = os.environ.get("HR_STATELESS", "true").lower() == "true"
HOST = os.environ.get("HR_HOST", "0.0.0.0")
PORT = int(os.environ.get("HR_PORT", "8000"))

PEOPLE = {
    "alice": {"name": "Alice Archer", "title": "Head of HR", "team": "hr"},
    "bob": {"name": "Bob Baker", "title": "Engineer", "team": "platform"},
    "carol": {"name": "Carol Cole", "title": "Contractor", "team": "platform"},
}
LEAVE = [{"employee": "bob", "from": "2026-12-21", "to": "2026-12-31"}]

mcp = FastMCP("hr-tools")
payroll = httpx2.AsyncClient(verify=ssl.create_default_context(), timeout=15)


async def ask_payroll(method: str, employee: str, body: dict | None = None) -> dict:
    """One call to the payroll API with the caller's Authorization header; its status and answer, whatever they are."""
    caller = get_http_headers(include={"authorization"})
    headers = {"authorization": caller["authorization"]} if "authorization" in caller else {}
    answer = await payroll.request(method, f"{PAYROLL_URL}/salaries/{employee}", headers=headers, json=body)
    try:
        content = answer.json()
    except ValueError:
        content = answer.text
    return {"status": answer.status_code, "payroll": content}


@mcp.tool(name="directory.search")
async def directory_search(query: str) -> dict:
    """People whose name, title or team contains the query."""
    found = {k: v for k, v in PEOPLE.items() if query.lower() in " ".join([k, *v.values()]).lower()}
    return {"people": found}


@mcp.tool(name="leave.list")
async def leave_list(employee: str = "") -> dict:
    """Who is away, and when."""
    return {"leave": [entry for entry in LEAVE if employee in ("", entry["employee"])]}


@mcp.tool(name="salary.get")
async def salary_get(employee: str) -> dict:
    """The salary of one employee, from the payroll API."""
    return await ask_payroll("GET", employee)


@mcp.tool(name="salary.update")
async def salary_update(employee: str, amount: int) -> dict:
    """Sets the salary of one employee in the payroll API."""
    return await ask_payroll("PUT", employee, {"amount": amount})


@mcp.custom_route("/healthz", methods=["GET"])
async def healthz(_request) -> PlainTextResponse:
    return PlainTextResponse("ok")


class PrintHeaders:
    """Prints what each request carries, before anything looks at it."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
            line = {"method": scope["method"], "path": scope["path"], "client": scope["client"], "headers": headers}
            print(json.dumps(line), flush=True)
        await self.app(scope, receive, send)


if __name__ == "__main__":
    print(f"hr-tools on {HOST}:{PORT}/mcp, stateless={STATELESS}, payroll at {PAYROLL_URL}", file=sys.stderr, flush=True)
    mcp.run(transport="http", host=HOST, port=PORT, path="/mcp", stateless_http=STATELESS,
            middleware=[Middleware(PrintHeaders)], show_banner=False, log_level="warning")
