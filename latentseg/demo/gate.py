"""What stands before Gradio: it answers pages of this machine alone, and neither it nor the page asks anybody else."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = frozenset({"127.0.0.1", "localhost"})
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
)
"""Gradio's page evaluates its templates, so scripts of its own are free; all that would be fetched elsewhere is not."""
FETCHES = ("file=http:", "file=https:", "/proxy=")
"""In a path: Gradio would fetch a page of another machine and hand it on."""


class Gate:
    """An ASGI middleware that refuses foreign hosts and origins, and detours to other machines.

    A host name that is none of this machine's comes from a page that has its name point here (DNS rebinding), a foreign
    origin from a page elsewhere that sends its reader's browser here.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or hand on, and add the policy for the browser."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        foreign = urlsplit(f"//{host}").hostname not in HOSTS or (origin and urlsplit(origin).netloc != host)
        if foreign or any(part in scope["path"].lower() for part in FETCHES):
            await PlainTextResponse("This page serves this machine alone.", 403)(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(
                    {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
                )
            await send(message)

        await self.app(scope, receive, send_with_policy)
