"""The addresses of a page: those that it needs are open, all others of the web framework are not there.

Among what is closed are descriptions of the interface, the proxy, and files that the server would fetch from the web.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = re.compile(
    r"/|/(config|theme\.css|robots\.txt|favicon\.ico|manifest\.json)/?|/(assets|static)/.+"
    r"|/gradio_api/(info|run/predict|queue/join|queue/data|upload|upload_progress|startup-events|cancel|reset|theme\.css|app_id)/?"
    r"|/gradio_api/heartbeat/\w+|/gradio_api/file=(?!\w+:).+"
)
CALLS = ("/gradio_api/queue/join", "/gradio_api/run/predict")
"""What calls a function of the page; the second one only those that do not wait, such as the choice of an example."""

MESSAGE_BYTES = 256_000
"""Longest call; it holds a question and the name of an uploaded file."""


class Doors:
    """ASGI middleware that answers 404 for what is not open, and reads calls before they are made."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif not OPEN.fullmatch(scope["path"]):
            await _refuse(send, 404, "There is nothing here.")
        elif scope["path"].rstrip("/") in CALLS:
            await self._read(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _read(self, scope: Message, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more and len(body) <= MESSAGE_BYTES:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if len(body) > MESSAGE_BYTES:
            await _refuse(send, 413, f"A call has at most {MESSAGE_BYTES} bytes.")
        elif not _uploaded_files_alone(body):
            await _refuse(send, 403, "Upload the image: addresses are not fetched.")
        else:
            await self._app(scope, _Replayed(body, receive), send)


class _Replayed:
    """What was read already, and what comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _uploaded_files_alone(body: bytes) -> bool:
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if re.match(r"\s*[a-z]{2,}:", str(item.get("path", "")), re.IGNORECASE):
                return False
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return True


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
