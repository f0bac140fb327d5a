"""The checks of every public argument, before anything is sent or any state changes.

Each takes a value of any type and returns it in the form the rest of the package uses, or raises `UTDInputError`, which
says what was wrong and what is allowed. Pure; any thread.
"""

from __future__ import annotations

import ipaddress
import json
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

from .errors import UTDInputError
from .models import NOTHING, ReadOnlyDict, UTDCall, UTDRole, UTDSeatMode, UTDStreamType, UTDWebhook
from .room_models import UTDInvitation, UTDSpeakerRequest
from .room_wire import MAX_SEATS
from .wire import MAX_IDENTITY, MAX_NAME, MAX_ROOM_NAME, TYPE_ALIASES

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")

MAX_DATA: Final = 60 * 1024
"""Bytes of one data message: LiveKit carries no more in one reliable packet."""
MAX_METADATA: Final = 16 * 1024
"""Bytes of a call's metadata as JSON (ours)."""
MAX_RECIPIENTS: Final = 1000
MAX_SECONDS: Final = 1e9
"""The longest wait that every operating system's clocks take; longer is ``None``."""
MAX_KEY: Final = 200
MAX_REASON: Final = 500
MAX_MODE_ID: Final = 100
MAX_BAN: Final = 10 * 365 * 86400
"""Seconds of a ban that ends, ten years; longer is for good (ours)."""
MAX_ID: Final = 2**53 - 1
"""The largest whole number that every JSON reader keeps as it is."""

# Control characters, line and paragraph separators, and halves of surrogate pairs (no UTF-8 for those).
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CALL_ID = re.compile(r"call_[0-9a-f]{24}")
_APP_ID = re.compile(r"[0-9]{10}")
_APP_KEY = re.compile(r"[0-9a-fA-F]{32}|pk_live_[0-9A-Za-z_-]{8,120}")
_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY}}}")
_DOTS = frozenset({".", ".."})


def _refuse(what: str, wrong: str, allowed: str) -> NoReturn:
    raise UTDInputError(f"{what}: {wrong}; allowed: {allowed}")


def _kind(value: object) -> str:
    return f"got {type(value).__name__}"


def text(value: object, what: str, *, longest: int, allowed: str) -> str:
    """A string of 1 to `longest` characters, printable, not blank, without blanks at its ends."""
    if not isinstance(value, str):
        _refuse(what, _kind(value), allowed)
    if not value.strip():
        _refuse(what, "empty" if not value else "only blanks", allowed)
    if (found := _UNPRINTABLE.search(value)) is not None:
        _refuse(what, f"character U+{ord(found.group()):04X} at position {found.start()}", allowed)
    if value != value.strip():
        _refuse(what, "blanks at its beginning or end", allowed)
    if len(value) > longest:
        _refuse(what, f"{len(value)} characters", allowed)
    return value


def _segment(value: object, what: str, longest: int) -> str:
    """A text that also becomes one part of a URL's path, where ``.`` and ``..`` would mean another route."""
    allowed = f"1 to {longest} characters, no control characters, no blanks at the ends, not '.' or '..'"
    checked = text(value, what, longest=longest, allowed=allowed)
    if checked in _DOTS:
        _refuse(what, f"'{checked}'", allowed)
    return checked


def identity(value: object, what: str = "identity") -> str:
    """A participant's identity: 1 to 255 printable characters."""
    return _segment(value, what, MAX_IDENTITY)


def room_name(value: object, what: str = "room_name") -> str:
    """A room's name: 1 to 255 printable characters."""
    return _segment(value, what, MAX_ROOM_NAME)


def optional_name(value: object, what: str = "name") -> str | None:
    """A display name of at most 255 characters; None and "" both mean that there is none."""
    if value is None or value == "":
        return None
    return text(value, what, longest=MAX_NAME, allowed=f"None, or up to {MAX_NAME} characters, no control characters")


def device_id(value: object, what: str = "device_id") -> str:
    """A device's id: 1 to 100 printable characters."""
    return text(value, what, longest=100, allowed="1 to 100 characters, no control characters")


def metadata(value: object, what: str = "metadata") -> Mapping[str, Any]:
    """What goes with a call: a dict that JSON can say, at most 16 KiB of it. A read-only copy, empty for None."""
    allowed = f"None, or a dict with string keys that JSON can say (no NaN), at most {MAX_METADATA} bytes as JSON"
    if value is None:
        return NOTHING
    if not isinstance(value, Mapping):
        _refuse(what, _kind(value), allowed)
    _string_keys(value, what, allowed, 0)
    try:
        encoded = json.dumps(dict(value), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        _refuse(what, str(error)[:100] or type(error).__name__, allowed)
    if len(encoded) > MAX_METADATA:
        _refuse(what, f"{len(encoded)} bytes", allowed)
    return ReadOnlyDict(json.loads(encoded))


def _string_keys(value: object, what: str, allowed: str, depth: int) -> None:
    # JSON would silently turn {1: …} into {"1": …}, and the callee would look in vain.
    if depth > 32:
        _refuse(what, "nested deeper than 32 levels", allowed)
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                _refuse(what, f"a key of type {type(key).__name__}", allowed)
            _string_keys(item, what, allowed, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _string_keys(item, what, allowed, depth + 1)


def number(value: object, what: str, *, least: float, most: float, unit: str = "") -> float:
    """A finite number from `least` to `most`."""
    allowed = f"a number from {least:g} to {most:g}{' ' + unit if unit else ''}"
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        _refuse(what, _kind(value), allowed)
    checked = _finite(value)
    if checked is None or not least <= checked <= most:
        _refuse(what, str(value)[:40], allowed)
    return checked


def _finite(value: numbers.Real) -> float | None:
    try:
        checked = float(value)
    except OverflowError:
        return None
    return checked if math.isfinite(checked) else None


def integer(value: object, what: str, *, least: int, most: int) -> int:
    """A whole number from `least` to `most`."""
    allowed = f"a whole number from {least} to {most}"
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        _refuse(what, _kind(value), allowed)
    if not least <= int(value) <= most:
        _refuse(what, str(value)[:40], allowed)
    return int(value)


def optional_integer(value: object, what: str, *, least: int, most: int) -> int | None:
    """None, or a whole number from `least` to `most`."""
    return None if value is None else integer(value, what, least=least, most=most)


def timeout(value: object, what: str = "timeout") -> float | None:
    """Seconds to wait, 0 or more; None for no limit, which infinity and more than 31 years mean as well."""
    allowed = "a number of seconds, 0 or more, or None for no limit"
    if value is None:
        return None
    # A bool is a number to Python, but `timeout=True` is a slip and would wait one second.
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        _refuse(what, _kind(value), allowed)
    number: Any = value
    if not number >= 0:  # nor is NaN
        _refuse(what, str(value)[:40], allowed)
    return None if number > MAX_SECONDS else float(number)


def seconds(value: object, what: str = "seconds") -> float | None:
    """A length of time: more than 0 seconds, or None for "until it ends"."""
    checked = timeout(value, what)
    if checked == 0:
        _refuse(what, "0", "more than 0 seconds, or None")
    return checked


def boolean(value: object, what: str = "value") -> bool:
    """True or False, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        _refuse(what, _kind(value), "True or False")
    return value


def enum(kind: type[E], value: object, what: str) -> E:
    """A member of `kind`, or its wire value as a plain string."""
    allowed = ", ".join(repr(member.value) for member in kind)
    if not isinstance(value, str):
        _refuse(what, _kind(value), allowed)
    try:
        return kind(value)
    except ValueError:
        pass
    _refuse(what, repr(str(value)[:40]), allowed)


def stream_type(value: object, what: str = "type") -> UTDStreamType:
    """A `UTDStreamType` or its wire value; the engine's older ``voice`` and ``video`` too."""
    if isinstance(value, str) and value in TYPE_ALIASES:
        return TYPE_ALIASES[value]
    return enum(UTDStreamType, value, what)


def call_type(value: object, what: str = "type") -> UTDStreamType:
    """A stream type that is a 1:1 call."""
    checked = stream_type(value, what)
    if not checked.is_call:
        _refuse(what, repr(checked.value), "'audio_call' or 'video_call'")
    return checked


def optional(check: Callable[[object, str], T], value: object, what: str) -> T | None:
    """None, or what `check` takes."""
    return None if value is None else check(value, what)


def role(value: object, what: str = "role") -> UTDRole:
    """A `UTDRole` or its wire value."""
    return enum(UTDRole, value, what)


def seat_mode(value: object, what: str = "seat_mode") -> UTDSeatMode:
    """A `UTDSeatMode` or its wire value."""
    return enum(UTDSeatMode, value, what)


def seat_index(value: object, what: str = "index") -> int:
    """A seat's index: 0 (the host's) to 99."""
    return integer(value, what, least=0, most=MAX_SEATS - 1)


def seat_count(value: object, what: str = "seat_count") -> int:
    """How many seats a room has: 1 to 100."""
    return integer(value, what, least=1, most=MAX_SEATS)


def mode_id(value: object, what: str = "mode_id") -> int | str | None:
    """The application's own name for an arrangement of seats: None, a whole number, or up to 100 characters."""
    allowed = f"None, a whole number from 0, or 1 to {MAX_MODE_ID} characters, no control characters"
    if value is None:
        return None
    if isinstance(value, str):
        return text(value, what, longest=MAX_MODE_ID, allowed=allowed)
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        _refuse(what, _kind(value), allowed)
    return integer(value, what, least=0, most=MAX_ID)


def request_id(value: object, what: str = "request_id") -> int:
    """A speaker request's id: a whole number from 1, also given as the `UTDSpeakerRequest`."""
    return _id(value, what, UTDSpeakerRequest)


def invitation_id(value: object, what: str = "invitation_id") -> int:
    """An invitation's id: a whole number from 1, also given as the `UTDInvitation`."""
    return _id(value, what, UTDInvitation)


def _id(value: object, what: str, kind: type[UTDSpeakerRequest | UTDInvitation]) -> int:
    if isinstance(value, kind):
        value = value.id
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        _refuse(what, _kind(value), f"a whole number from 1, or a {kind.__name__}")
    return integer(value, what, least=1, most=MAX_ID)


def reason(value: object, what: str = "reason") -> str | None:
    """Why somebody is banned, up to 500 characters; None and "" both mean that none is given."""
    if value is None or value == "":
        return None
    allowed = f"None, or up to {MAX_REASON} characters, no control characters"
    return text(value, what, longest=MAX_REASON, allowed=allowed)


def ban_duration(value: object, what: str = "duration") -> int | None:
    """How long a ban lasts: 1 second to ten years, fractions rounded up; None for good."""
    return None if value is None else math.ceil(number(value, what, least=1, most=MAX_BAN, unit="seconds"))


def data(value: object, what: str = "data") -> bytes:
    """The content of a data message: bytes, at most 60 KiB."""
    allowed = f"bytes, bytearray or memoryview of at most {MAX_DATA} bytes"
    if isinstance(value, str):
        _refuse(what, "got str (encode it first: text.encode())", allowed)
    if not isinstance(value, (bytes, bytearray, memoryview)):
        _refuse(what, _kind(value), allowed)
    size = value.nbytes if isinstance(value, memoryview) else len(value)
    if size > MAX_DATA:
        _refuse(what, f"{size} bytes", allowed)
    return bytes(value)


def to(value: object, what: str = "to") -> tuple[str, ...]:
    """Who a message is for: a list of identities. None and an empty list both mean everybody."""
    allowed = f"None for everybody, or a list of up to {MAX_RECIPIENTS} identities"
    if value is None:
        return ()
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        _refuse(what, _kind(value), allowed)
    checked = []
    for index, item in enumerate(value):
        if index >= MAX_RECIPIENTS:
            _refuse(what, f"more than {MAX_RECIPIENTS}", allowed)
        checked.append(identity(item, f"{what}[{index}]"))
    return tuple(dict.fromkeys(checked))


def call_id(value: object, what: str = "call_id") -> str:
    """A call's id, also given as a `UTDCall` or as the `UTDWebhook` that told of it."""
    allowed = "'call_' and 24 hex digits, a UTDCall, or a UTDWebhook about a call"
    if isinstance(value, UTDCall):
        value = value.call_id
    elif isinstance(value, UTDWebhook):
        if "call_id" not in value.call:
            _refuse(what, f"a webhook about something else ({value.event[:40]})", allowed)
        value = value.call["call_id"]
    if not isinstance(value, str):
        _refuse(what, _kind(value), allowed)
    if _CALL_ID.fullmatch(value) is None:
        _refuse(what, repr(value[:40]), allowed)
    return value


def app_id(value: object, what: str = "app_id") -> str:
    """An App ID: ten digits, as a string."""
    allowed = "10 digits, as a string"
    if not isinstance(value, str):
        _refuse(what, _kind(value), allowed)
    if _APP_ID.fullmatch(value) is None:
        _refuse(what, f"{len(value)} characters that are not 10 digits", allowed)
    return value


def app_key(value: object, what: str = "app_key") -> str:
    """An App Key. What was given is not repeated in the error."""
    allowed = "32 hex digits, or pk_live_…"
    if not isinstance(value, str):
        _refuse(what, _kind(value), allowed)
    if _APP_KEY.fullmatch(value) is None:
        _refuse(what, f"{len(value)} characters that are not an App Key", allowed)
    return value


def idempotency_key(value: object, what: str = "idempotency_key") -> str:
    """A key under which a repeated request is recognised: 1 to 200 visible ASCII characters (it is a header)."""
    allowed = f"1 to {MAX_KEY} visible ASCII characters"
    if not isinstance(value, str):
        _refuse(what, _kind(value), allowed)
    if _KEY.fullmatch(value) is None:
        _refuse(what, repr(value[:40]) if value else "empty", allowed)
    return value


def is_loopback(host: str | None) -> bool:
    """Whether a URL's host is this machine: ``localhost``, 127.0.0.0/8 or ``::1``. No name is looked up."""
    if not host:
        return False
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback and not getattr(address, "scope_id", None)


def base_url(value: object, what: str = "base_url") -> str:
    """The engine's root, such as ``https://engine.udt-stream.com`` or ``http://127.0.0.1:8090``.

    Returned without a slash at its end. The client adds ``/api/v1``. Plain http is refused except on this machine
    (wire contract, TLS).
    """
    allowed = (
        "a root URL such as https://engine.example.com (http only for localhost, 127.0.0.0/8 and ::1), "
        "without user, path, query or fragment; /api/v1 is added by the client"
    )
    return _url(value, what, allowed, secure="https", plain="http", root=True)


def socket_url(value: object, what: str = "ws_url") -> str:
    """A WebSocket's URL, path and query allowed; plain ws is refused except on this machine (wire contract, TLS)."""
    allowed = "a wss:// URL (ws:// only for localhost, 127.0.0.0/8 and ::1), without user or fragment"
    return _url(value, what, allowed, secure="wss", plain="ws", root=False)


def _url(value: object, what: str, allowed: str, *, secure: str, plain: str, root: bool) -> str:
    # The value itself is never repeated: it may hold a password or a token.
    if not isinstance(value, str):
        _refuse(what, _kind(value), allowed)
    if not value or _UNPRINTABLE.search(value) or any(c.isspace() for c in value) or "\\" in value:
        _refuse(what, "empty, or with blanks, backslashes or control characters", allowed)
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        _refuse(what, "not a URL", allowed)
    if parts.scheme not in (secure, plain):
        _refuse(what, f"scheme {parts.scheme[:20]!r}" if parts.scheme else "no scheme", allowed)
    if not host or port == 0:
        _refuse(what, "no host" if not host else "port 0", allowed)
    if "@" in parts.netloc:
        _refuse(what, "a user or password in it", allowed)
    if "#" in value:
        _refuse(what, "a fragment", allowed)
    if root and (parts.path not in ("", "/") or "?" in value):
        _refuse(what, "a path or query behind the host", allowed)
    if parts.scheme == plain and not is_loopback(host):
        _refuse(what, f"{plain} to another machine would send the credentials in the clear", allowed)
    return value.rstrip("/") if root else value
