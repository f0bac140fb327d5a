"""What a data message is: the engine's hint, chat, an application's own, or a forgery to drop. Pure.

Nothing here is the truth: a packet without a sender may be anybody's (LiveKit fact 20), so an engine message is at most
a hint to look.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from utd_fsm import validation, wire
from utd_fsm.errors import UTDInputError
from utd_fsm.models import UTDChatMessage
from utd_fsm.room import DataReceived, TextReceived

MAX_TEXT: Final = 16_000
"""Characters of one chat message (ours; a data message holds 60 KiB)."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A message of an engine type, from nobody who is known, or of a type that participants may send."""

    type: str
    content: Mapping[str, Any]
    identity: str | None


@dataclass(frozen=True, slots=True)
class Forged:
    """A known participant claims an engine type. Dropped."""

    type: str


@dataclass(frozen=True, slots=True)
class Own:
    """The application's own: passed through untouched."""


Routed: TypeAlias = Hint | Forged | Own | UTDChatMessage


def route(event: DataReceived, participants_may: frozenset[str] = frozenset()) -> Routed:
    """What this data message is.

    Args:
        event: as it came.
        participants_may: engine types that count from a participant too (``_live_ended`` is its host's).
    """
    if event.topic:  # neither the engine nor its clients give one
        return Own()
    message = wire.read_message(event.data)
    if message is None:
        return Own()
    kind = wire.engine_type(message)
    if kind is not None:
        if event.identity is not None and kind not in participants_may:
            return Forged(kind)
        return Hint(kind, message, event.identity)
    return wire.read_chat(message, event.identity) or Own()


def route_text(event: TextReceived) -> UTDChatMessage:
    """A text stream of the chat's topic: the same JSON, or plain text. LiveKit vouches for its sender (fact 38)."""
    message = wire.read_message(event.text.encode())
    chat = wire.read_chat(message, event.identity) if message is not None else None
    return chat or UTDChatMessage(text=event.text, identity=event.identity)


def chat_data(text: object, *, identity: str, name: str, user_data: object) -> bytes:
    """A chat message to send, as the Flutter SDK reads it.

    Raises:
        UTDInputError: no text, too long a text, or ``user_data`` that JSON cannot say.
    """
    allowed = f"allowed: a text of 1 to {MAX_TEXT} characters"
    if not isinstance(text, str) or not text:
        raise UTDInputError(f"text: {'empty' if text == '' else f'got {type(text).__name__}'}; {allowed}")
    if len(text) > MAX_TEXT:
        raise UTDInputError(f"text: {len(text)} characters; {allowed}")
    message = UTDChatMessage(
        text=text,
        identity=identity,
        claimed_identity=identity,
        name=name,
        sent_at=datetime.fromtimestamp(time.time(), UTC),
        message_id=uuid.uuid4().hex,
        user_data=user_data,
    )
    try:
        encoded = json.dumps(wire.chat_json(message), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UTDInputError(f"text or user_data: {error}; allowed: what JSON in UTF-8 can say") from None
    return validation.data(encoded, "text and user_data together")
