"""Every field name of the engine's wire, in one place: JSON to models, models to JSON.

Readers are tolerant: unknown keys are ignored, a missing optional key is None, both spellings of a field are accepted.
A required key that is missing, or a value of the wrong type, raises `UTDProtocolError` naming route and field; nothing
is guessed. Field names marked *ours* are this project's decision where no public source was found: one line here
changes each.

Pure: no I/O. Imports `models` and `errors` only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

from .errors import UTDProtocolError
from .models import (
    ReadOnlyDict,
    UTDCall,
    UTDCallPage,
    UTDCallStatus,
    UTDCallTicket,
    UTDChatMessage,
    UTDSessionInfo,
    UTDStreamType,
    UTDTokenResponse,
    UTDWebhook,
)

T = TypeVar("T")

PREFIX = "/api/v1"
TOKEN_HOST = "https://udt-stream.com"  # noqa: S105 - the host spells udt
ENGINE_HOST = "https://engine.udt-stream.com"

# --- headers
APP_ID = "X-App-Id"
APP_KEY = "X-App-Key"  # ours
APP_SECRET = "X-App-Secret"  # noqa: S105 - the header's name; backends only, never sent by the client
IDEMPOTENCY_KEY = "Idempotency-Key"  # ours
RETRY_AFTER = "Retry-After"
LOCATION = "Location"
WEBHOOK_EVENT = ("X-UTD-Stream-Event", "X-UTD-Voice-Event")
WEBHOOK_SIGNATURE = ("X-UTD-Stream-Signature", "X-UTD-Voice-Signature")
WEBHOOK_ATTEMPT = ("X-UTD-Stream-Attempt", "X-UTD-Voice-Attempt")
SIGNATURE_PREFIX = "sha256="

# --- routes, below the prefix; {id} is URL-encoded by the sender
HEALTH = "/health"
TOKEN = "/token"  # noqa: S105
AUTH_SESSION = "/auth/session"
CALLS = "/calls"
CALL = "/calls/{id}"
CALL_RINGING = "/calls/{id}/ringing"
CALL_ACCEPT = "/calls/{id}/accept"
CALL_REJECT = "/calls/{id}/reject"
CALL_BUSY = "/calls/{id}/busy"
CALL_END = "/calls/{id}/end"
CALL_TOKEN = "/calls/{id}/token"  # noqa: S105 - ours
SOCKET = "/socket"  # ours; clients take ``ws_url`` from the session's answer, never from here
MEDIA_WEBHOOK = "/media/webhook"  # ours; where LiveKit tells the local engine

# --- codes
SUPERSEDED = "superseded"  # 409: an idempotency key lower than one already seen (ours)
CALLEE_BUSY = "callee_busy"  # 409 to a create (ours; without a code every 409 to a create means busy)
CALLER_BUSY = "caller_busy"  # 409 to a create: the caller itself holds a call (ours)
ILLEGAL_TRANSITION = "illegal_transition"  # 409: the record does not declare this verb in its state (ours)
ANSWERED_ELSEWHERE = "answered_elsewhere"  # 409: another device of the callee has answered (ours)
NOT_ANSWERED = "not_answered"  # 409: the callee asked for what only the answering device may have (ours)
RATE_LIMITED = "rate_limited"  # 429 (ours)

# --- spellings
TYPE_ALIASES = {"voice": UTDStreamType.AUDIO_CALL, "video": UTDStreamType.VIDEO_CALL}
IDENTITY_ALIASES = ("identity", "occupant_identity", "participant_identity", "user_id")

# --- lengths the engine takes; longer values are refused (identities) or cut (device facts)
MAX_IDENTITY = 255
MAX_NAME = 255
MAX_ROOM_NAME = 255
DEVICE_FACTS = {"device_model": 100, "os": 50, "os_version": 20, "app_version": 20}

# --- the engine socket (ours)
SOCKET_AUTH = "auth"
SOCKET_READY = "ready"
SOCKET_CALL = "call"
SOCKET_PRESENCE = "presence"
SOCKET_PING = "ping"  # either side may ask in a frame too, besides the protocol's own pings
SOCKET_PONG = "pong"
SOCKET_CALLS = "calls"  # in ``ready``: the records of the user's open calls
SOCKET_MAX_BYTES = 1 << 20

CALL_WEBHOOKS = {
    UTDCallStatus.INITIATING: "call_initiated",
    UTDCallStatus.RINGING: "call_ringing",
    UTDCallStatus.ACTIVE: "call_accepted",
    UTDCallStatus.REJECTED: "call_rejected",
    UTDCallStatus.BUSY: "call_busy",
    UTDCallStatus.ENDED: "call_ended",
    UTDCallStatus.MISSED: "call_missed",
}


def malformed(route: str, field: str, why: str) -> NoReturn:
    """Raise the one error for an answer that is not what the contract says."""
    raise UTDProtocolError(
        f"malformed answer of the engine: {route}: {field}: {why}; nothing was changed by it", route=route, field=field
    )


class Reader:
    """Reads one JSON object, naming route and field in whatever it refuses."""

    __slots__ = ("data", "route", "where")  # one for each seat of a hundred, in every grid

    def __init__(self, data: object, route: str, where: str = "") -> None:
        # nearly always a dict, and asking an ABC takes as long as all the rest here
        if type(data) is not dict and not isinstance(data, Mapping):
            malformed(route, where or "body", f"expected an object, got {type(data).__name__}")
        self.data: Mapping[str, Any] = data
        self.route = route
        self.where = where

    def _field(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def _get(self, names: tuple[str, ...], kinds: type[T] | tuple[type[T], ...]) -> T | None:
        for name in names:
            value = self.data.get(name)
            if value is None:
                continue
            # bool is an int in Python and not in JSON
            if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
                malformed(self.route, self._field(name), f"wrong type {type(value).__name__}")
            return value
        return None

    def text(self, *names: str) -> str:
        """A required, non-empty string."""
        value = self._get(names, str)
        if not value:
            malformed(self.route, self._field(names[0]), "missing or empty")
        return value

    def token(self, *names: str) -> str:
        """A required token, of characters that can stand in a header: whoever refuses others there repeats them."""
        value = self.text(*names)
        if not (value.isascii() and value.isprintable()) or " " in value:
            malformed(self.route, self._field(names[0]), "characters that no token has")
        return value

    def text_or_none(self, *names: str) -> str | None:
        return self._get(names, str)

    def integer(self, *names: str) -> int | None:
        return self._get(names, int)

    def number(self, *names: str) -> float | None:
        """Seconds or the like: finite and not negative."""
        value = self._get(names, (int, float))
        if value is None:
            return None
        if not 0 <= value < 1e15:  # refuses NaN and the infinities too
            malformed(self.route, self._field(names[0]), "not a finite, non-negative number")
        return float(value)

    def flag(self, *names: str) -> bool | None:
        """A boolean; 0 and 1 are accepted, as REST spells some of them."""
        for name in names:
            value = self.data.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or value in (0, 1):
                return bool(value)
            malformed(self.route, self._field(name), "not a boolean")
        return None

    def object(self, *names: str) -> Mapping[str, Any]:
        value = self._get(names, dict)
        return ReadOnlyDict(value) if value else ReadOnlyDict()

    def moment(self, *names: str) -> datetime | None:
        """A time: ISO 8601, or seconds since 1970. Without a zone it is UTC."""
        for name in names:
            value = self.data.get(name)
            if value is None:
                continue
            try:
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    return datetime.fromtimestamp(value, UTC)
                if isinstance(value, str):
                    when = datetime.fromisoformat(value)
                    return when if when.tzinfo else when.replace(tzinfo=UTC)
            except (ValueError, OverflowError, OSError):
                pass
            malformed(self.route, self._field(name), "not a time (ISO 8601 or seconds since 1970)")
        return None


def stream_type(value: str, route: str, field: str = "type") -> UTDStreamType:
    """``audio_call``, ``video_call``, … and the older ``voice`` and ``video``."""
    try:
        return TYPE_ALIASES.get(value) or UTDStreamType(value)
    except ValueError:
        malformed(route, field, f"unknown type {value[:40]!r}")


def call_status(value: str, route: str, field: str = "status") -> UTDCallStatus:
    """One of the seven statuses."""
    try:
        return UTDCallStatus(value)
    except ValueError:
        malformed(route, field, f"unknown status {value[:40]!r}")


def read_call(data: object, route: str, where: str = "") -> UTDCall:
    """A whole call record (``GET /calls/:id``, a list's row, a socket frame)."""
    r = Reader(data, route, where)
    return UTDCall(
        call_id=r.text("call_id"),
        type=stream_type(r.text("type"), route),
        status=call_status(r.text("status"), route),
        caller_identity=r.text("caller_identity"),
        callee_identity=r.text("callee_identity"),
        caller_name=r.text_or_none("caller_name"),
        callee_name=r.text_or_none("callee_name"),
        metadata=r.object("metadata"),
        room_name=r.text_or_none("room_name"),
        initiated_at=r.moment("initiated_at", "created_at"),
        ringing_at=r.moment("ringing_at"),
        answered_at=r.moment("answered_at"),
        ended_at=r.moment("ended_at"),
        end_reason=r.text_or_none("end_reason"),
        duration=r.number("duration_seconds", "duration"),
        ring_duration=r.number("ring_duration_seconds"),
        answered_by=r.text_or_none("answered_by"),  # ours
        version=r.integer("version"),  # ours
    )


def call_json(call: UTDCall) -> dict[str, Any]:
    """The record as the engine writes it; the inverse of `read_call`."""

    def moment(value: datetime | None) -> str | None:
        return value.astimezone(UTC).isoformat() if value else None

    return {
        "call_id": call.call_id,
        "type": call.type.value,
        "status": call.status.value,
        "caller_identity": call.caller_identity,
        "caller_name": call.caller_name,
        "callee_identity": call.callee_identity,
        "callee_name": call.callee_name,
        "metadata": dict(call.metadata),
        "room_name": call.room_name,
        "initiated_at": moment(call.initiated_at),
        "ringing_at": moment(call.ringing_at),
        "answered_at": moment(call.answered_at),
        "ended_at": moment(call.ended_at),
        "end_reason": call.end_reason,
        "duration_seconds": call.duration,
        "ring_duration_seconds": call.ring_duration,
        "answered_by": call.answered_by,
        "version": call.version,
    }


def is_whole(data: Mapping[str, Any]) -> bool:
    """Whether an answer about a call holds the whole record (ours), or only what the contract promises."""
    return "caller_identity" in data and "callee_identity" in data


def read_step(data: object, route: str) -> UTDCall | None:
    """The answer to ringing, reject, busy or end: the whole record where the engine sends it (ours), else None.

    A short answer must still name a call and a known status; the caller then reads the record with a GET.
    """
    r = Reader(data, route)
    r.text("call_id")
    call_status(r.text("status"), route)
    return read_call(data, route) if is_whole(r.data) else None


def read_ticket(data: object, route: str, *, record: UTDCall | None = None) -> UTDCallTicket:
    """The answer to create, accept and rejoin: a way into the room and, where it is sent (ours), the record.

    ``record`` fills in what a short answer leaves out: what the caller sent, or what a GET told before.
    """
    r = Reader(data, route)
    token, url = r.text("token"), r.text("url")
    if is_whole(r.data):
        return UTDCallTicket(call=read_call(data, route), url=url, token=token)
    if record is None:
        malformed(route, "caller_identity", "missing")
    status = r.text_or_none("status")
    return UTDCallTicket(
        call=UTDCall(
            call_id=r.text_or_none("call_id") or record.call_id,
            type=record.type,
            status=call_status(status, route) if status else record.status,
            caller_identity=record.caller_identity,
            callee_identity=record.callee_identity,
            caller_name=record.caller_name,
            callee_name=record.callee_name,
            metadata=record.metadata,
            room_name=r.text_or_none("room_name") or record.room_name,
            initiated_at=record.initiated_at,
            ringing_at=record.ringing_at,
            answered_at=r.moment("answered_at") or record.answered_at,
            answered_by=r.text_or_none("answered_by") or record.answered_by,
            version=r.integer("version"),
        ),
        url=url,
        token=token,
    )


def read_call_page(data: object, route: str) -> UTDCallPage:
    """``{data, pagination:{page,per_page,total,total_pages}}``."""
    r = Reader(data, route)
    rows = r.data.get("data")
    if not isinstance(rows, list):
        malformed(route, "data", "expected a list")
    p = Reader(r.data.get("pagination") or {}, route, "pagination")
    return UTDCallPage(
        calls=tuple(read_call(row, route, f"data[{i}]") for i, row in enumerate(rows)),
        page=p.integer("page") or 1,
        per_page=p.integer("per_page") or max(len(rows), 1),
        total=p.integer("total") or len(rows),
        total_pages=p.integer("total_pages") or 1,
    )


def read_token(data: object, route: str = f"POST {TOKEN}") -> UTDTokenResponse:
    """An empty token or url is malformed."""
    r = Reader(data, route)
    return UTDTokenResponse(
        token=r.text("token"),
        url=r.text("url"),
        room_name=r.text("room_name"),
        user_token=r.token("user_token") if r.text_or_none("user_token") else None,
        ws_url=r.text_or_none("ws_url"),
    )


def read_session(data: object, route: str = f"POST {AUTH_SESSION}") -> UTDSessionInfo:
    r = Reader(data, route)
    return UTDSessionInfo(
        user_token=r.token("user_token"),
        ws_url=r.text_or_none("ws_url"),
        signaling_enabled=r.flag("signaling_enabled"),
        messaging_enabled=r.flag("messaging_enabled"),
        limits=r.object("limits"),
    )


def read_frame(data: object, route: str = "socket") -> tuple[str, str | None, Mapping[str, Any], int | None]:
    """One socket frame: event, channel, data, seq. Data that is no object is read as ``{}`` (wire contract)."""
    r = Reader(data, route)
    payload = r.data.get("data")
    content = payload if isinstance(payload, Mapping) else {}
    return r.text("event"), r.text_or_none("channel"), content, r.integer("seq")


def frame_json(
    event: str, data: Mapping[str, Any], *, channel: str | None = None, seq: int | None = None
) -> dict[str, Any]:
    """The inverse of `read_frame`."""
    frame: dict[str, Any] = {"event": event, "data": dict(data)}
    if channel is not None:
        frame["channel"] = channel
    if seq is not None:
        frame["seq"] = seq
    return frame


def read_refusal(data: object) -> tuple[str, str | None, str | None]:
    """What an error answer says: message, code and, where given (ours), the state it was refused in.

    Reads ``message``, ``error``, ``detail`` or a bare string.
    """
    if isinstance(data, str):
        return data.strip()[:500], None, None
    if not isinstance(data, Mapping):
        return "", None, None
    text = ""
    for key in ("message", "error", "detail"):
        value = data.get(key)
        if isinstance(value, str) and value.strip():
            text = value.strip()[:500]
            break
        if isinstance(value, Mapping) and isinstance(value.get("message"), str):
            text = value["message"].strip()[:500]
            break
        if isinstance(value, list) and value:  # FastAPI's list of faults
            text = "; ".join(str(row.get("msg", row) if isinstance(row, Mapping) else row) for row in value)[:500]
            break
    code, state = data.get("code"), data.get("status")
    return text, code if isinstance(code, str) else None, state if isinstance(state, str) else None


def refusal_details(data: object) -> Mapping[str, Any]:
    """What else an error answer says, beside message and code: texts, numbers, booleans and None, as they are."""
    if not isinstance(data, Mapping):
        return ReadOnlyDict()
    known = ("message", "error", "detail", "code")
    return ReadOnlyDict(
        {
            name: value
            for name, value in data.items()
            if name not in known and (value is None or isinstance(value, (str, int, float)))
        }
    )


def refusal_json(message: str, *, code: str | None = None, status: str | None = None) -> dict[str, Any]:
    """The inverse of `read_refusal`."""
    body: dict[str, Any] = {"message": message}
    if code:
        body["code"] = code
    if status:
        body["status"] = status
    return body


def read_webhook(data: object, event: str, attempt: int) -> UTDWebhook:
    """The body of a webhook whose signature has been verified."""
    r = Reader(data, "webhook")
    name = r.text_or_none("event") or event
    return UTDWebhook(
        event=name,
        attempt=attempt,
        room=r.object("room"),
        participant=r.object("participant"),
        track=r.object("track"),
        call=r.object("call"),
        raw=ReadOnlyDict(r.data),
    )


def read_message(data: bytes) -> Mapping[str, Any] | None:
    """A data message as the engine and its clients write them: a JSON object; None where it is anything else."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def engine_type(message: Mapping[str, Any]) -> str | None:
    """The type an engine message has (``_banned``, ``_stage_update``, …); None for an application's own."""
    value = message.get("type")
    return value if isinstance(value, str) and value.startswith("_") else None


def read_chat(message: Mapping[str, Any], identity: str | None) -> UTDChatMessage | None:
    """A chat message; None where it is none, or has no text. What is odd in it is left out: anybody can send it."""
    content = message.get("roomChat")
    if not isinstance(content, Mapping) or not isinstance(content.get("text"), str):
        return None

    def text(name: str) -> str | None:
        value = content.get(name)
        return value if isinstance(value, str) and value else None

    stamp = content.get("timestamp")
    try:
        number = stamp if isinstance(stamp, (int, float)) and not isinstance(stamp, bool) else None
        sent_at = datetime.fromtimestamp(number / 1000, UTC) if number is not None else None
    except (ValueError, OverflowError, OSError):
        sent_at = None
    return UTDChatMessage(
        text=content["text"],
        identity=identity,
        claimed_identity=text("senderUserId"),
        name=text("senderName"),
        sent_at=sent_at,
        message_id=text("messageID"),
        user_data=content.get("userData"),
    )


def chat_json(message: UTDChatMessage) -> dict[str, Any]:
    """The inverse of `read_chat`."""
    content: dict[str, Any] = {
        "message": "chatMessage",
        "senderUserId": message.claimed_identity or "",
        "senderName": message.name or "",
        "text": message.text,
        "timestamp": round(message.sent_at.timestamp() * 1000) if message.sent_at else 0,
        "messageID": message.message_id or "",
    }
    if message.user_data is not None:
        content["userData"] = message.user_data
    return {"roomChat": content}
