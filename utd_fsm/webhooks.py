"""What the engine tells the application's backend: verified, read, and passed to `signals.webhook_received`.

Pure but for that signal: the web framework receives the request, this module gets its raw body and headers.

The signature covers the body and nothing else (wire contract, webhooks). So the event's name is taken from the body,
and a request that was recorded can be sent again by anybody who saw it: act on ``call["call_id"]`` idempotently.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Final

from . import signals, wire
from .errors import UTDInputError, UTDPermissionError
from .models import UTDWebhook
from .scrub import foreign

__all__ = ["deliver", "parse", "sign"]

MAX_BODY: Final = 1 << 20
MAX_ATTEMPT: Final = 6

Headers = Mapping[str, object] | Iterable[tuple[object, object]]


def parse(body: bytes, headers: Headers, secret: str | bytes) -> UTDWebhook:
    """Verify and read one webhook. Any thread.

    Args:
        body: the raw body, byte for byte as it came; not the parsed JSON, and not a text made of it.
        headers: those of the request, in whatever spelling: Django's ``request.headers`` or ``request.META``, Flask's,
            Starlette's, a WSGI environment, a plain dict. Both families are read, ``X-UTD-Stream-…`` and the older
            ``X-UTD-Voice-…``.
        secret: the callback secret of the application.

    Raises:
        UTDPermissionError: no signature, or one that was not made with this secret: answer 403.
        UTDProtocolError: signed, and not a webhook: answer 400.
        UTDInputError: an argument is of the wrong type, or the secret is empty (anybody could sign with that).
    """
    if not isinstance(body, bytes):
        raise UTDInputError(f"body: got {type(body).__name__}; allowed: the raw bytes of the request (request.body)")
    if len(body) > MAX_BODY:
        raise UTDInputError(f"body: {len(body)} bytes; allowed: at most {MAX_BODY}")
    found = _headers(headers)
    if not hmac.compare_digest(sign(body, secret).encode(), _first(found, wire.WEBHOOK_SIGNATURE).lower().encode()):
        raise UTDPermissionError(
            "the webhook's signature is missing or was not made with this secret: compare the callback secret with the "
            "engine's, and pass the raw body as it came",
            403,
        )
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        wire.malformed("webhook", "body", "not JSON")
    attempt = _first(found, wire.WEBHOOK_ATTEMPT) or "1"
    if not (attempt.isascii() and attempt.isdigit() and len(attempt) < 4 and 1 <= int(attempt) <= MAX_ATTEMPT):
        wire.malformed("webhook", wire.WEBHOOK_ATTEMPT[0], f"{foreign(attempt, 20)!r} is not 1 to {MAX_ATTEMPT}")
    webhook = wire.read_webhook(data, "", int(attempt))
    named = _first(found, wire.WEBHOOK_EVENT)
    if not webhook.event or (named and named != webhook.event):
        # The header is not signed: one that says something else was changed on the way.
        wire.malformed("webhook", "event", "missing in the body, or not what the header says")
    return webhook


def deliver(body: bytes, headers: Headers, secret: str | bytes) -> UTDWebhook:
    """`parse`, then call the receivers of `signals.webhook_received` here and now, in this thread.

    An error of a receiver comes out of this call: let it become a 500, and the engine tries again. The sender of the
    signal is the event's name, so ``webhook_received.connect(fn, sender="call_initiated")`` gets those only.

    Raises:
        What `parse` raises, and whatever a receiver raises.
    """
    webhook = parse(body, headers, secret)
    signals.webhook_received.send(webhook.event, webhook=webhook)
    return webhook


def sign(body: bytes, secret: object) -> str:
    """The signature header's value for a body, for tests and for engines of one's own.

    Raises:
        UTDInputError: the secret is empty, or neither text nor bytes.
    """
    if not isinstance(secret, (str, bytes)) or not secret:
        raise UTDInputError("secret: empty, or neither str nor bytes; allowed: the callback secret of the application")
    key = secret if isinstance(secret, bytes) else secret.encode("utf-8", "surrogatepass")
    return wire.SIGNATURE_PREFIX + hmac.new(key, body, hashlib.sha256).hexdigest()


def _headers(headers: Headers) -> dict[str, str]:
    try:
        pairs: list[tuple[object, object]] = list(headers.items() if isinstance(headers, Mapping) else headers)
        found: dict[str, str] = {}
        for name, value in pairs:
            if isinstance(name, (str, bytes)) and isinstance(value, (str, bytes)):
                spelled = _text(name).lower().replace("_", "-").removeprefix("http-")
                found.setdefault(spelled, _text(value).strip())
    except (TypeError, ValueError):
        raise UTDInputError(
            f"headers: got {type(headers).__name__}; allowed: a mapping, or pairs of name and value"
        ) from None
    return found


def _text(value: str | bytes) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return text.encode("utf-8", "replace").decode()


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((headers[name.lower()] for name in names if name.lower() in headers), "")
