"""The lookup endpoint: the one hot path of the server, straight on ASGI."""

import time
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from ekko.schemas.codec import encode
from ekko.schemas.declarations import check_incarnation
from ekko.schemas.errors import BadInput
from ekko.schemas.hashing import UInt64s
from ekko.schemas.replicas import ReplicaState
from ekko.storage.serving.served import MAX_LOOKUP_KEYS, Served
from ekko.storage.serving.wire import decode_keys, encode_lookup

_INLINE_KEYS = 8_192
"""Up to this many keys take under a millisecond and are answered on the event loop; a thread would cost more."""

_MAX_DIGITS = 18
"""Of a number in a query string: it fits into 64 bits, and Python refuses to read 5,000 digits."""

_SHOWN = 40


class _Encoded(NamedTuple):
    state: ReplicaState
    data: bytes


class _Query(NamedTuple):
    """What a lookup's query string asks for."""

    as_of: int | None = None
    generation: int | None = None
    incarnation: int | None = None


class LookupObserver(Protocol):
    """Told of every answered lookup."""

    def looked_up(self, model: str, keys: int, seconds: float) -> None:
        """Count one lookup."""


class Lookups:
    """ASGI endpoint `POST /v1/models/{model}/tables/{table}/lookup[?as_of=K|?generation=G][&incarnation=I]`.

    `incarnation` is the model's as the client knows it: one that was deleted and declared anew is not read as the old.
    Frames are those of `storage.serving.wire`.
    """

    def __init__(self, served: Served, observer: LookupObserver) -> None:
        self._served = served
        self._observer = observer
        self._encoded: dict[str, _Encoded] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; EkkoErrors are turned into JSON by the application around it."""
        begun = time.perf_counter()
        body = await read_body(receive, 8 * MAX_LOOKUP_KEYS)
        names = scope["path_params"]
        query = _parsed(scope["query_string"])
        keys = decode_keys(body)
        asked = names["model"], names["table"], keys, query
        if len(keys) <= _INLINE_KEYS and query.as_of is None:
            reply = self._answer(*asked)
        else:
            reply = await run_in_threadpool(self._answer, *asked)
        length = str(len(reply)).encode()
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply})
        self._observer.looked_up(names["model"], len(keys), time.perf_counter() - begun)

    def _answer(self, model: str, table: str, keys: UInt64s, query: _Query) -> bytes:
        check_incarnation(self._served.model(model), query.incarnation)
        lookup = self._served.lookup(model, table, keys, query.as_of, query.generation)
        known = self._encoded.get(model)
        # A state is immutable and replaced by every apply, so identity tells whether its bytes are still right.
        if known is None or known.state is not lookup.state:
            known = self._encoded[model] = _Encoded(lookup.state, encode(lookup.state))
        return encode_lookup(lookup, known.data)


async def read_body(receive: Receive, limit: int) -> bytes:
    """A request's body.

    Raises:
        BadInput: longer than `limit` bytes, or the client went away.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadInput("the client went away before its request was whole")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise BadInput(f"request body is longer than {limit} bytes", hint="split it into several requests")
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _parsed(query: bytes) -> _Query:
    if not query:
        return _Query()
    values = parse_qs(query.decode("ascii", "replace"), keep_blank_values=True)
    return _Query(**{name: parse_state(values[name][-1], name) for name in _Query._fields if name in values})


def parse_state(text: str, name: str = "as_of") -> int:
    """A model state in a query string, under `name`; raises BadInput."""
    if not text.isascii() or not text.isdigit():
        raise BadInput(f"{name}={_shown(text)} is no model state", hint="a model state is a whole number, 0 or more")
    if len(text) > _MAX_DIGITS:
        raise BadInput(f"{name}={_shown(text)} is no model state", hint=f"write it in at most {_MAX_DIGITS} digits")
    return int(text)


def parse_shards(text: str | None) -> tuple[int, ...] | None:
    """Shards in a query string, as in "0,2"; None for all that are held. Raises BadInput."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) <= _MAX_DIGITS for part in parts):
        raise BadInput(f"shards={_shown(text)} is no list of shards", hint="write whole numbers with commas, as in 0,2")
    return tuple(sorted({int(part) for part in parts}))


def _shown(text: str) -> str:
    """As it was given, quoted; cut if it is long."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
