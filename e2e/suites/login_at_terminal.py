"""Runs a client that prints the address of a login page to its terminal, and logs a person in there whenever it does.

    login_at_terminal.py USER CA CALLBACK COMMAND...

The client listens on CALLBACK itself: the person's browser is sent there, and the person agrees to whatever it asks. What the client says is printed, then, on a line
of its own, a JSON object with the scopes of each login; the client's exit status is handed on.
"""

import asyncio
import json
import os
import pathlib
import pty
import re
import ssl
import sys
import threading
from urllib.parse import urlencode

import httpx2

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples/agent"))
import agent  # noqa: E402

ESCAPES = re.compile(rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-9;?]*[A-Za-z]")
LOGIN = re.compile(rb"https://[^\s\x1b\x07]+/protocol/openid-connect/auth\?[^\s\x1b\x07\"'<>]+")


async def log_in(url: str, user: str, ca: str, callback: str) -> str:
    agent.REDIRECT_URI = callback
    async with httpx2.AsyncClient(verify=ssl.create_default_context(cafile=ca), timeout=30) as browser:
        person = agent.Person(browser, user, f"{user}-pw", None)
        await person.open(url)
        answer = {name: values[0] for name, values in person.answer.items()}
        await browser.get(f"{callback}?{urlencode(answer)}")
        return person.asked[0]


def main(user: str, ca: str, callback: str, *command: str) -> int:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    # A client that waits for something else is not waited for.
    stop = threading.Timer(45, lambda: os.kill(pid, 15))
    stop.start()
    said, seen, asked, agreed = b"", set(), [], 0
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        said += piece
        # One address may stand there twice, as a link and as its text; only a line that has ended holds it whole.
        for found in LOGIN.finditer(said):
            url = found.group().decode()
            if found.end() < len(said) and url not in seen:
                seen.add(url)
                asked.append(asyncio.run(log_in(url, user, ca, callback)))
        # A person who is asked whether to ask for more says yes.
        while said.count(b"[y/N]") > agreed:
            agreed += 1
            os.write(terminal, b"y\n")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    stop.cancel()
    print(ESCAPES.sub(b"", said).decode(errors="replace"))
    print(json.dumps({"scopes_asked": asked}))
    return status if status >= 0 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
