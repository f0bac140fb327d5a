"""Requests about oneself, in order: ``Idempotency-Key: <uuid of the client's machine>:<n>`` (machines.md, law 5).

The engine keeps the highest n of each uuid. A repeat of it gets the first answer, a lower one is refused with
``superseded``, and a look that carries a number seals whatever was sent before it: what has not been applied by then
never will be. Keys belong to an identity, so that nobody gets another's answer by its key.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from utd_fsm import wire

from .refusal import Refused
from .store import Store

KEEP: Final = 7 * 86_400.0
"""Seconds a key is remembered; nothing that old is still under way."""

_KEY: Final = re.compile(r"([0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}):(0|[1-9][0-9]{0,14})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Key:
    """One parsed key."""

    uuid: str
    n: int

    def __str__(self) -> str:
        return f"{self.uuid}:{self.n}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was, or is, answered."""

    status: int
    body: Mapping[str, Any]
    repeated: bool = False


def parse(text: str | None) -> Key | None:
    """A key from its header or query; None if there is none.

    Raises: Refused: 422, malformed.
    """
    if text is None:
        return None
    match = _KEY.fullmatch(text.strip())
    if match is None:
        raise Refused(422, f"{wire.IDEMPOTENCY_KEY}: must be <uuid>:<n> with n from 0", "validation")
    return Key(match[1].replace("-", "").lower(), int(match[2]))


def fingerprint(route: str, body: Mapping[str, Any]) -> str:
    """What makes two requests the same request."""
    text = json.dumps([route, body], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def recall(store: Store, identity: str, key: Key, print_: str) -> Answer | None:
    """The first answer to this very request, or None if it is new. Call inside the transaction.

    Raises: Refused: 409 ``superseded``; 422 if the number was used for a different request.
    """
    row = store.key(identity, key.uuid)
    if row is None or key.n > row["n"]:
        return None
    if key.n < row["n"] or row["fingerprint"] is None:
        raise Refused(
            409, "a newer request or look of the same client has been seen; this one was not applied", wire.SUPERSEDED
        )
    if row["fingerprint"] != print_:
        raise Refused(422, f"{wire.IDEMPOTENCY_KEY}: was used for a different request", "key_reused")
    return Answer(row["status"], json.loads(row["answer"]), repeated=True)


def remember(store: Store, identity: str, key: Key, print_: str, answer: Answer, *, at: float) -> None:
    """Keep the first answer, yes or no. Call inside the transaction that applied the request."""
    store.set_key(
        identity, key.uuid, key.n, at=at, fingerprint=print_, status=answer.status, answer=json.dumps(answer.body)
    )


def seal(store: Store, identity: str, key: Key, *, at: float) -> None:
    """A look with a number: whatever has a lower or the same number and isn't applied is refused from now on."""
    row = store.key(identity, key.uuid)
    if row is None or key.n > row["n"]:
        store.set_key(identity, key.uuid, key.n, at=at, fingerprint=None, status=None, answer=None)
