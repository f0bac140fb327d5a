"""What the engine answers about streams and audio rooms, and every route with what is sent there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.engine_answers import KEY, api_for, engine
from tests.http_stub import HttpStub, Reply, Seen, http_stub
from utd_fsm.engine_api import Credentials, EngineApi

ROOM = "lobby"
AT = "2026-11-23T10:00:00+00:00"
STAGE = {
    "stage": [{"identity": "carol", "name": "Carol", "role": "guest"}, {"identity": "dave"}],
    "hands": [{"identity": "erin", "name": None, "raised_at": AT}],
    "version": 7,
}
GRID = {
    "seat_count": 3,
    "seat_mode": "request",
    "mode_id": "party",
    "seats": [
        {"seat_index": 0, "occupant_identity": "host1", "locked": 0, "reserved_for": "host1", "name": "Host"},
        {"seat_index": 1, "occupant_identity": "alice", "locked": 0, "muted": 1, "attributes": {"avatar": "a.png"}},
        {"seat_index": 2, "occupant_identity": None, "locked": 1, "reserved_for": None},
    ],
    "requests": [{"id": 4, "identity": "bob", "created_at": AT}],
    "invitations": [{"id": 5, "identity": "carol", "inviter_identity": "host1", "seat_index": 2, "created_at": AT}],
    "all_muted": False,
    "version": 12,
}
BAN = {
    "id": 9,
    "identity": "bob",
    "name": "Bob",
    "attributes": None,
    "room_name": ROOM,
    "reason": "noise",
    "banned_at": AT,
    "expires_at": None,
}
BANS = {"data": [BAN], "pagination": {"page": 1, "per_page": 20, "total": 1, "total_pages": 1}}


@dataclass(frozen=True)
class Route:
    """One method, what it sends, and a whole answer to it."""

    ask: Callable[[EngineApi, Credentials], Any]
    sent: str
    body: dict[str, Any] | None
    answer: Any
    keyed: bool = False
    """Whether `ask` gives it an idempotency key."""


def _stage(name: str, method: str, path: str, *more: Any, **body: Any) -> Route:
    keyed = not more

    def ask(api: EngineApi, cred: Credentials) -> Any:
        verb = getattr(api.rooms, name)
        return verb(cred, ROOM, key=KEY) if keyed else verb(cred, ROOM, *more)

    return Route(ask, f"{method} /rooms/{ROOM}/stage{path}", {"identity": "alice", **body}, STAGE, keyed)


def _seats(name: str, sent: str, *more: Any, keyed: bool = False, told: Any = None, **body: Any) -> Route:
    def ask(api: EngineApi, cred: Credentials) -> Any:
        verb = getattr(api.rooms, name)
        return verb(cred, ROOM, *more, key=KEY) if keyed else verb(cred, ROOM, *more)

    method, path = sent.split()
    answer = {**(told or {}), "grid": GRID}
    return Route(ask, f"{method} /rooms/{ROOM}/{path}", {"identity": "alice", **body}, answer, keyed)


ROUTES: dict[str, Route] = {
    "stage": Route(
        lambda api, cred: api.rooms.stage(cred, ROOM, key=KEY), "GET /rooms/lobby/stage", None, STAGE, keyed=True
    ),
    "stage_request": _stage("stage_request", "POST", "/request"),
    "stage_lower": _stage("stage_lower", "DELETE", "/request"),
    "stage_leave": _stage("stage_leave", "POST", "/leave"),
    "stage_add": _stage("stage_add", "POST", "/add", "bob", target_identity="bob"),
    "stage_remove": _stage("stage_remove", "POST", "/remove", "bob", target_identity="bob"),
    "live_start": Route(
        lambda api, cred: api.rooms.live_start(cred, ROOM),
        "POST /rooms/lobby/live/start",
        {"identity": "alice"},
        {"state": "live", "version": 3},
    ),
    "live_end": Route(
        lambda api, cred: api.rooms.live_end(cred, ROOM),
        "POST /rooms/lobby/live/end",
        {"identity": "alice"},
        {"state": "ended", "version": 4},
    ),
    "seats": Route(
        lambda api, cred: api.rooms.seats(cred, ROOM, key=KEY), "GET /rooms/lobby/seats", None, GRID, keyed=True
    ),
    "setup_seats": Route(
        lambda api, cred: api.rooms.setup_seats(cred, ROOM, count=8, mode="request", mode_id="party"),
        "POST /rooms/lobby/seats/setup",
        {"identity": "alice", "seat_count": 8, "seat_mode": "request", "mode_id": "party"},
        {"grid": GRID},
    ),
    "take": _seats("take", "POST seats/3/take", 3, keyed=True, told={"seat_index": 3}),
    "leave": _seats("leave", "POST seats/leave", keyed=True),
    "move": _seats("move", "POST seats/move", 4, keyed=True, told={"from": 3, "to": 4}, target_seat=4),
    "kick": _seats("kick", "POST seats/3/kick", 3),
    "lock": _seats("lock", "POST seats/3/lock", 3),
    "unlock": _seats("unlock", "POST seats/3/unlock", 3),
    "mute": _seats("mute", "POST seats/3/mute", 3),
    "unmute": _seats("unmute", "POST seats/3/unmute", 3),
    "swap": _seats("swap", "POST seats/swap", 1, 2, a=1, b=2),
    "mute_all": _seats("mute_all", "PUT seats/mute-all", False, muted=False),
    "request": _seats("request", "POST speakers/request", keyed=True, told={"request_id": 4}),
    "cancel": _seats("cancel", "DELETE speakers/request", keyed=True),
    "requests": Route(
        lambda api, cred: api.rooms.requests(cred, ROOM),
        "GET /rooms/lobby/speakers/requests",
        None,
        {"requests": GRID["requests"]},
    ),
    "approve": _seats(
        "approve",
        "POST speakers/requests/4/approve",
        4,
        told={"request_id": 4, "identity": "bob", "seat_index": 2},
    ),
    "reject": _seats("reject", "POST speakers/requests/4/reject", 4, told={"request_id": 4}),
    "invite": _seats(
        "invite", "POST speakers/invite", "bob", 2, told={"invitation_id": 5}, target_identity="bob", seat_index=2
    ),
    "accept": _seats(
        "accept", "POST speakers/invitations/5/accept", 5, keyed=True, told={"invitation_id": 5, "seat_index": 2}
    ),
    "decline": _seats("decline", "POST speakers/invitations/5/decline", 5, keyed=True, told={"invitation_id": 5}),
    "remove_participant": Route(
        lambda api, cred: api.rooms.remove_participant(cred, ROOM, "bob"),
        "DELETE /rooms/lobby/participants/bob",
        {"identity": "alice"},
        {},
    ),
    "mute_participant": Route(
        lambda api, cred: api.rooms.mute_participant(cred, ROOM, "bob", audio=True, video=True, muted=True),
        "PUT /rooms/lobby/participants/bob/mute",
        {"identity": "alice", "audio": True, "video": True, "muted": True},
        {"muted": True},
    ),
    "set_role": Route(
        lambda api, cred: api.rooms.set_role(cred, ROOM, "bob", "admin"),
        "PUT /rooms/lobby/participants/bob/role",
        {"actor_identity": "alice", "role": "admin"},
        {"identity": "bob", "role": "admin", "previous_role": "audience"},
    ),
    "by_role": Route(
        lambda api, cred: api.rooms.by_role(cred, ROOM, "admin"),
        "GET /rooms/lobby/participants/by-role",
        None,
        {"participants": [{"identity": "bob"}, {"participant_identity": "carol", "role": "admin"}]},
    ),
    "ban": Route(
        lambda api, cred: api.rooms.ban(cred, "bob", room=ROOM, reason="noise", duration=60),
        "POST /rooms/ban",
        {"identity": "bob", "room_name": ROOM, "reason": "noise", "duration": 60},
        BAN,
    ),
    "unban": Route(
        lambda api, cred: api.rooms.unban(cred, "bob", room=ROOM),
        "DELETE /rooms/ban",
        {"identity": "bob", "room_name": ROOM},
        {},
    ),
    "bans": Route(lambda api, cred: api.rooms.bans(cred, room=ROOM), "GET /rooms/bans", None, BANS),
    "lock_comments": Route(
        lambda api, cred: api.rooms.lock_comments(cred, ROOM, True),
        "PUT /rooms/lobby/comments",
        {"identity": "alice", "locked": True},
        {"locked": True, "version": 8},
    ),
}


@contextmanager
def signed_in(answers: Callable[[Seen], Reply] | Reply) -> Iterator[tuple[EngineApi, Credentials, HttpStub]]:
    """An engine that answers so, and alice, signed in there."""
    with http_stub(engine(answers)) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice", name="Alice", device_id="phone")
        stub.seen.clear()
        yield api, cred, stub
