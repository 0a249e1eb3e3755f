"""One call to an endpoint: what it brought, its body read strictly, and how it is refused."""

import json
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

from crossfade.policy import header
from crossfade.request import Authenticated

_BODY_CAP = 64 * 1024


class Refused(Exception):
    """An answer other than 200: status, RFC 6749 5.2 error code, and what to do."""

    def __init__(self, status: int, code: str, description: str) -> None:
        super().__init__(code)
        self.status, self.code, self.description = status, code, description


@dataclass(slots=True)
class Call:
    """One request to an endpoint."""

    scope: Scope
    receive: Receive
    request: Authenticated
    cookies: list[bytes] = field(default_factory=list)


async def read_form(call: Call) -> dict[str, str]:
    """Read a form or a JSON object of texts; each name at most once (RFC 6749 3.2).

    Raises Refused for anything else.
    """
    body = await _body(call.receive)
    kind = (header(call.request.headers, b"content-type") or b"").partition(b";")[0].strip().lower()
    try:
        if kind == b"application/json":
            found = json.loads(body.decode("utf-8"), object_pairs_hook=list) if body else []
            pairs = [(n, v if isinstance(v, str) else json.dumps(v)) for n, v in found]
        else:
            text = body.decode("utf-8")
            pairs = parse_qsl(
                text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=50
            )
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(
            400, "invalid_request", "The body is neither a form nor a JSON object."
        ) from error
    if len({name for name, _ in pairs}) != len(pairs):
        raise Refused(400, "invalid_request", "A parameter stands twice in the body.")
    return {name: value for name, value in pairs if value != ""}


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "invalid_request", "The request ended early.")
        body += message.get("body", b"")
        if len(body) > _BODY_CAP:
            raise Refused(413, "invalid_request", "The body is too large.")
        if not message.get("more_body", False):
            return bytes(body)
