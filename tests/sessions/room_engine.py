"""The engine's own rules of streams and audio rooms in this process, for sessions on rooms in memory.

`RoomEngine` runs the shipped rules (`utd_fsm.local.engine.rooms`) on SQLite in memory, and is the one writer of the
metadata and permissions of a `MemoryServer`. Deterministic, and hostile on demand: metadata held back, told late, twice
or in another order, messages forged, an engine or a media server out of reach, an engine that keeps less than ours
does. Who asks it is `room_world.Person`, with gates and losses of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, cast

from utd_fsm import room_wire as rw
from utd_fsm.engine_requests import Ask
from utd_fsm.http_pool import Answer as HttpAnswer
from utd_fsm.local.engine import idempotency
from utd_fsm.local.engine.idempotency import Answer
from utd_fsm.local.engine.refusal import Refused
from utd_fsm.local.engine.rooms import (
    Changed,
    RoomRecord,
    Rooms,
    entitled,
    is_muted,
    metadata,
    participant_metadata,
    seats_of,
    stage_of,
)
from utd_fsm.local.engine.store import Occupant, Store
from utd_fsm.models import NOTHING, UTDRole, UTDSeatMode, UTDStreamType, UTDTokenResponse, UTDTrackSource
from utd_fsm.refusals import refusal
from utd_fsm.room import LeaveReason, Permission, RoomEvent, RoomOptions
from utd_fsm.testing import MemoryServer
from utd_fsm.testing.memory_room import MemoryRoom

APP = "1234567890"
SOUND = frozenset({UTDTrackSource.MICROPHONE})


class WatchedServer(MemoryServer):
    """Tells the engine who comes and goes, as webhooks do."""

    engine: RoomEngine

    def join(self, client: MemoryRoom, url: str, token: str, *, auto_subscribe: bool) -> Any:
        place = super().join(client, url, token, auto_subscribe=auto_subscribe)
        asyncio.get_running_loop().call_soon(self.engine.came, place[0].name, place[1].identity, place[1].sid)
        return place

    def leave(self, room: Any, seat: Any) -> None:
        super().leave(room, seat)
        asyncio.get_running_loop().call_soon(self.engine.went, room.name, seat.identity, seat.sid)

    def _leave(self, room: Any, seat: Any, reason: LeaveReason) -> None:
        super()._leave(room, seat, reason)
        asyncio.get_running_loop().call_soon(self.engine.went, room.name, seat.identity, seat.sid)

    def _rejoin(self, seat: Any) -> None:
        super()._rejoin(seat)
        name = next(room.name for room in self.rooms.values() if room.seats.get(seat.identity) is seat)
        asyncio.get_running_loop().call_soon(self.engine.came, name, seat.identity, seat.sid)


class RoomEngine:
    """One engine. Belongs to the loop it was made on.

    Attributes:
        telling: whether the media server hears of each change at once. Otherwise a test says what it hears, and when
            (`tell`); every version of the metadata is kept in `written`.
        granting: whether permissions are pushed at once; otherwise by `grant_all`.
        hinting: whether data messages are sent.
        unreachable: whether no request arrives.
        keeps_hands, keeps_live, carries_stage, short: what an engine that is not ours may not keep, not carry in
            room metadata, or not answer.
        versions: whether snapshots carry versions.
        knows_live: whether ``live/start`` and ``live/end`` exist.
    """

    def __init__(self, *, paced: bool = False) -> None:
        self.media = WatchedServer(paced=paced)
        self.media.engine = self
        self.store = Store(":memory:")
        self.rooms = Rooms(self.store)
        self.written: dict[str, list[str]] = defaultdict(list)
        self.muted_tracks: list[tuple[str, str]] = []
        self.looks = 0
        """Reads that arrived: ``GET stage`` and ``GET seats``."""
        self.telling = self.granting = self.hinting = True
        self.unreachable = False
        self.keeps_hands = self.keeps_live = self.carries_stage = self.versions = self.knows_live = True
        self.short = False
        self._closed = False

    def close(self) -> None:
        self._closed = True
        self.store.close()

    def truth(self, room: str = "room") -> RoomRecord:
        """What the engine knows: the oracle."""
        return self.rooms.get(room)

    # ---------------------------------------------------------------------------------------------- one transaction

    def apply(self, ask: Ask) -> Any:
        """One request: what the client reads of its answer, or the error that it raises."""
        assert ask.credentials is not None
        who = ask.credentials.identity
        changed: list[Changed] = []
        try:
            with self.store.transaction():
                answer = self._read(who, ask) if ask.method == "GET" else self._once(who, ask, changed)
        except Refused as refused:
            answer = Answer(refused.status, refused.body())
        for one in changed:
            self.told(one)
        if answer.status >= 400:
            raise refusal(HttpAnswer(answer.status, {}, json.dumps(answer.body).encode()), ask.route)
        return json.loads(json.dumps(self._as_kept(ask, dict(answer.body))))

    def _once(self, who: str, ask: Ask, changed: list[Changed]) -> Answer:
        key = idempotency.parse(ask.key)
        print_ = idempotency.fingerprint(f"{ask.route} {ask.room} {ask.id} {ask.index}", dict(ask.body or {}))
        known = None if key is None else idempotency.recall(self.store, who, key, print_)
        if known is not None:
            return known
        try:
            self.rooms.check_ban(who, ask.room)
            done = self._verb(who, ask)
            answer = Answer(200, done[0])
            changed.extend(done[1])
        except Refused as refused:
            answer = Answer(refused.status, refused.body())
        if key is not None:
            idempotency.remember(self.store, who, key, print_, answer, at=time.time())
        return answer

    def _verb(self, who: str, ask: Ask) -> tuple[Mapping[str, Any], list[Changed]]:
        room, body = ask.room or "", dict(ask.body or {})
        if ask.template == rw.BAN:
            if ask.method == "DELETE":
                return rw.ban_json(self.rooms.unban(who, body["identity"], body.get("room_name"))), []
            asked = (body["identity"], body.get("room_name"), body.get("reason"), body.get("duration"))
            everywhere, row = self.rooms.ban(who, *asked)
            return rw.ban_json(row), everywhere
        if ask.template == rw.PARTICIPANT_MUTE:
            assert ask.id is not None
            self.rooms.may_mute(room, who, ask.id)
            self._mute(room, ask.id, audio=body["audio"], video=body["video"])
            return {}, []
        if ask.template in (rw.LIVE_START, rw.LIVE_END) and not self.knows_live:
            raise Refused(404, "no such route", "not_found")
        done = _VERBS[ask.method, ask.template](self.rooms, room, who, ask, body)
        return done.answer, [done]

    def _read(self, who: str, ask: Ask) -> Answer:
        key = idempotency.parse(ask.key)
        if key is not None:
            idempotency.seal(self.store, who, key, at=time.time())
        self.rooms.check_ban(who, ask.room)
        if ask.template == rw.BANS:
            page, size = ask.query["page"], ask.query["per_page"]
            rows, total = self.rooms.bans(who, ask.query.get("room_name"), page, size)
            pages = {"page": page, "per_page": size, "total": total, "total_pages": -(-total // size)}
            return Answer(200, {"data": [rw.ban_json(row) for row in rows], "pagination": pages})
        assert ask.room is not None
        if ask.template == rw.PARTICIPANTS_BY_ROLE:
            there = self.rooms.by_role(ask.room, UTDRole(ask.query["role"]))
            return Answer(200, {"participants": [{"identity": one} for one in there]})
        self.looks += 1
        if ask.template == rw.STAGE:
            return Answer(200, rw.stage_json(stage_of(self.rooms.get(ask.room, UTDStreamType.LIVE_STREAM))))
        grid = seats_of(self.rooms.get(ask.room, UTDStreamType.AUDIO_ROOM))
        if ask.template == rw.SPEAKERS_REQUESTS:
            return Answer(200, {"requests": [rw.request_json(one) for one in grid.requests]})
        return Answer(200, rw.seats_json(grid, realtime=False))

    def by_itself(self, event: Callable[[], Changed]) -> None:
        """The engine's own doing: a timer, a webhook."""
        with self.store.transaction():
            changed = event()
        self.told(changed)

    # ----------------------------------------------------------------------------- what the media server is told

    def told(self, changed: Changed) -> None:
        """After the commit."""
        room = changed.room
        if changed.changed:
            self.written[room.name].append(self.shown(room))
            if self.telling:
                self.tell(room.name)
            if self.granting:
                self.grant_all(room.name)
        if self.hinting and room.name in self.media.rooms:
            for note in changed.notes:
                self.media.send_data(room.name, rw.message_json(note.kind, note.content), to=note.to or ())
        for identity in changed.removed:
            if identity in self._there(room.name):
                self.media.remove(room.name, identity)

    def shown(self, room: RoomRecord) -> str:
        """The room's metadata, as far as this engine keeps and carries them."""
        content = json.loads(metadata(room))
        if not self.keeps_live:
            content.pop(rw.META_LIVE, None)
        if not self.carries_stage:
            content.pop(rw.META_STAGE, None)
        for part in content.values():
            self._shape(part)
        return json.dumps(content)

    def _shape(self, part: dict[str, Any]) -> None:
        if not self.keeps_hands:
            part.pop("hands", None)
        if not self.versions:
            part.pop("version", None)

    def _as_kept(self, ask: Ask, body: dict[str, Any]) -> dict[str, Any]:
        if self.short and ask.method != "GET":
            return {}
        for part in (body, body.get(rw.GRID)):
            if isinstance(part, dict):
                self._shape(part)
        return body

    def tell(self, room: str = "room", index: int = -1) -> None:
        """Write one of the versions of the room's metadata: the newest, or one that was written before."""
        if room in self.media.rooms and self.written[room]:
            self.media.set_room_metadata(room, self.written[room][index])

    def grant_all(self, room: str = "room") -> None:
        """Put permissions and participant metadata right."""
        record = self.rooms.find(room)
        for identity in self._there(room) if record is not None else ():
            assert record is not None
            self.media.set_metadata(room, identity, participant_metadata(record, identity, APP))
            self.media.set_permission(room, identity, self.permission(record, identity))
            if is_muted(record, identity):
                self._mute(room, identity, audio=True, video=False)

    def put_right(self, room: str = "room") -> None:
        """What the engine does now and then, and when a media server has come back: everything, from the books."""
        if room in self.media.rooms:
            self.written[room].append(self.shown(self.truth(room)))
            self.tell(room)
            self.grant_all(room)

    def _there(self, room: str) -> list[str]:
        return list(self.media.rooms[room].seats) if room in self.media.rooms else []

    def _mute(self, room: str, identity: str, *, audio: bool, video: bool) -> None:
        wanted = [UTDTrackSource.MICROPHONE] * audio + [UTDTrackSource.CAMERA, UTDTrackSource.SCREEN] * video
        seat = self.media.rooms[room].seats.get(identity) if room in self.media.rooms else None
        for track in tuple(seat.tracks.values()) if seat is not None else ():
            if track.source in wanted and not track.muted:
                self.muted_tracks.append((identity, track.source.value))
                self.media.mute(room, identity, track.source)

    @staticmethod
    def permission(record: RoomRecord, identity: str) -> Permission:
        """What somebody may publish, by the books."""
        if not entitled(record, identity):
            return Permission(can_publish=False, can_subscribe=True, can_publish_data=True)
        sources = SOUND if record.type is UTDStreamType.AUDIO_ROOM else frozenset(UTDTrackSource)
        return Permission(can_publish=True, can_subscribe=True, can_publish_data=True, sources=sources)

    # ------------------------------------------------------------------------------------------------ its webhooks

    def came(self, room: str, identity: str, sid: str) -> None:
        """participant_joined: the books about who is there, and everything put right for it."""
        record = None if self._closed else self.rooms.find(room)
        if record is None:
            return
        with self.store.transaction():
            self.store.set_occupant(Occupant(room, identity, sid, time.time(), None))
        if self.granting:
            self.grant_all(room)
        if identity == record.owner and record.type is UTDStreamType.LIVE_STREAM:
            self.by_itself(lambda: self.rooms.host_back(room))

    def went(self, room: str, identity: str, sid: str) -> None:
        """participant_left. Whether somebody is gone for good is for the test to say (`gone`)."""
        if self._closed:
            return
        record, known = self.rooms.find(room), self.store.occupants(room).get(identity)
        if record is None or known is None or known.sid != sid:
            return
        with self.store.transaction():
            self.store.drop_occupant(room, identity)
        if identity == record.owner and record.type is UTDStreamType.LIVE_STREAM:
            self.by_itself(lambda: self.rooms.host_away(room))

    def gone(self, identity: str, room: str = "room") -> None:
        """The grace of somebody who vanished is over."""
        self.by_itself(lambda: self.rooms.gone(room, identity))

    def live_over(self, room: str = "room") -> None:
        """The grace of the host is over."""
        self.by_itself(lambda: self.rooms.live_over(room))

    # ----------------------------------------------------------------------------------------------------- the way in

    def way_in(
        self,
        identity: str,
        room: str,
        type: UTDStreamType,
        *,
        as_host: bool,
        name: str | None,
        attributes: Mapping[str, Any],
        **seats: Any,
    ) -> UTDTokenResponse:
        """``POST /token``. The room that the first token makes has its metadata from its first moment."""
        try:
            with self.store.transaction():
                changed = self.rooms.enter(
                    room,
                    type,
                    identity,
                    claims_host=as_host,
                    owner_id=identity if as_host else None,
                    display=name,
                    attributes=attributes,
                    **seats,
                )
        except Refused as refused:
            answer = HttpAnswer(refused.status, {}, json.dumps(refused.body()).encode())
            raise refusal(answer, "POST /token") from None
        self.told(changed)
        record = changed.room
        self.media.create_room(room, metadata=self.shown(record))
        token = self.media.token(
            identity,
            room,
            self.permission(record, identity),
            name=name or "",
            metadata=participant_metadata(record, identity, APP),
        )
        return UTDTokenResponse(token=token, url=self.media.url, room_name=room)

    # ---------------------------------------------------------------------------------------------------- the hostile

    def forge(
        self, kind: str, content: Mapping[str, Any] = NOTHING, *, room: str = "room", to: tuple[str, ...] = ()
    ) -> None:
        """A message of an engine type without a sender: the engine's, or of somebody who is not announced yet."""
        self.media.send_data(room, rw.message_json(kind, content), to=to)

    async def intruder(self, identity: str = "mallory", room: str = "room") -> MemoryRoom:
        """Somebody in the room with a client of its own, to send whatever it likes."""
        ticket = self.way_in(identity, room, self.truth(room).type, as_host=False, name=None, attributes={})
        heard: list[RoomEvent] = []
        client = cast("MemoryRoom", self.media.room_factory(heard.append, RoomOptions()))
        await client.connect(ticket.url, ticket.token)
        return client


def _index(ask: Ask) -> int:
    assert ask.index is not None
    return ask.index


def _number(ask: Ask) -> int:
    assert ask.id is not None
    return int(ask.id)


_Verb = Callable[[Rooms, str, str, Ask, dict[str, Any]], Changed]

_VERBS: dict[tuple[str, str], _Verb] = {
    ("POST", rw.STAGE_REQUEST): lambda rooms, room, who, ask, body: rooms.ask(room, who),
    ("DELETE", rw.STAGE_REQUEST): lambda rooms, room, who, ask, body: rooms.lower(room, who),
    ("POST", rw.STAGE_LEAVE): lambda rooms, room, who, ask, body: rooms.step_down(room, who),
    ("POST", rw.STAGE_ADD): lambda rooms, room, who, ask, body: rooms.add(room, who, body["target_identity"]),
    ("POST", rw.STAGE_REMOVE): lambda rooms, room, who, ask, body: rooms.remove(room, who, body["target_identity"]),
    ("POST", rw.LIVE_START): lambda rooms, room, who, ask, body: rooms.start_live(room, who),
    ("POST", rw.LIVE_END): lambda rooms, room, who, ask, body: rooms.end_live(room, who),
    ("POST", rw.SEATS_SETUP): lambda rooms, room, who, ask, body: rooms.setup(
        room,
        who,
        body.get("seat_count"),
        UTDSeatMode(body["seat_mode"]) if body.get("seat_mode") else None,
        body.get("mode_id"),
    ),
    ("POST", rw.SEAT_TAKE): lambda rooms, room, who, ask, body: rooms.take(room, who, _index(ask)),
    ("POST", rw.SEATS_LEAVE): lambda rooms, room, who, ask, body: rooms.leave(room, who),
    ("POST", rw.SEATS_MOVE): lambda rooms, room, who, ask, body: rooms.move(room, who, body["target_seat"]),
    ("POST", rw.SEAT_KICK): lambda rooms, room, who, ask, body: rooms.kick(room, who, _index(ask)),
    ("POST", rw.SEAT_LOCK): lambda rooms, room, who, ask, body: rooms.lock(room, who, _index(ask)),
    ("POST", rw.SEAT_UNLOCK): lambda rooms, room, who, ask, body: rooms.unlock(room, who, _index(ask)),
    ("POST", rw.SEAT_MUTE): lambda rooms, room, who, ask, body: rooms.mute(room, who, _index(ask)),
    ("POST", rw.SEAT_UNMUTE): lambda rooms, room, who, ask, body: rooms.unmute(room, who, _index(ask)),
    ("POST", rw.SEATS_SWAP): lambda rooms, room, who, ask, body: rooms.swap(room, who, body["a"], body["b"]),
    ("PUT", rw.SEATS_MUTE_ALL): lambda rooms, room, who, ask, body: rooms.mute_all(room, who, body["muted"]),
    ("POST", rw.SPEAKERS_REQUEST): lambda rooms, room, who, ask, body: rooms.request(room, who),
    ("DELETE", rw.SPEAKERS_REQUEST): lambda rooms, room, who, ask, body: rooms.cancel(room, who),
    ("POST", rw.SPEAKER_APPROVE): lambda rooms, room, who, ask, body: rooms.approve(room, who, _number(ask)),
    ("POST", rw.SPEAKER_REJECT): lambda rooms, room, who, ask, body: rooms.reject(room, who, _number(ask)),
    ("POST", rw.SPEAKER_INVITE): lambda rooms, room, who, ask, body: rooms.invite(
        room, who, body["target_identity"], body.get("seat_index")
    ),
    ("POST", rw.INVITATION_ACCEPT): lambda rooms, room, who, ask, body: rooms.accept(room, who, _number(ask)),
    ("POST", rw.INVITATION_DECLINE): lambda rooms, room, who, ask, body: rooms.decline(room, who, _number(ask)),
    ("DELETE", rw.PARTICIPANT): lambda rooms, room, who, ask, body: rooms.kick_out(room, who, ask.id or ""),
    ("PUT", rw.PARTICIPANT_ROLE): lambda rooms, room, who, ask, body: rooms.set_role(
        room, who, ask.id or "", UTDRole(body["role"])
    ),
    ("PUT", rw.COMMENTS): lambda rooms, room, who, ask, body: rooms.lock_comments(room, who, body["locked"]),
}
