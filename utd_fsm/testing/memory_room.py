"""`MemoryRoom` and `MemoryServer`: media rooms without a network, for tests of sessions and of applications. Floor 7.

It keeps the protocol of `utd_fsm.room.Room`, and one set of contract tests runs on it and on LiveKit. Nothing sleeps
but the pacing of sound; what a test wants to hold, it holds with a gate::

    async def test_a_listener_hears_the_host():
        server = MemoryServer(paced=False)
        events = []
        host = server.room_factory(events.append, RoomOptions())
        await host.connect(server.url, server.token("host", "show"))
        microphone = await host.publish_audio(UTDTrackSource.MICROPHONE)
        await microphone.capture(np.zeros((960, 1), dtype=np.int16))
        server.revoke("show", "host")                  # the engine's verbs are methods of the server
        await server.settled()                         # everything told so far has arrived
        assert PermissionChanged(...) in events

Everything happens on one event loop, in order, and never inside the step that caused it. `Raw` events carry snapshots
where LiveKit's carry its live objects. Loop thread only; may import everything of the floors below.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from utd_fsm.errors import UTDConnectionError, UTDInputError, UTDPermissionError, UTDStateError
from utd_fsm.models import UTDParticipant, UTDRoomEvent, UTDTrackSource
from utd_fsm.room import (
    MAX_DATA_BYTES,
    DataReceived,
    Disconnected,
    LeaveReason,
    LocalMetadataChanged,
    LocalTrackMuted,
    ParticipantsChanged,
    Permission,
    PermissionChanged,
    Raw,
    Reconnected,
    Reconnecting,
    RoomEvent,
    RoomMetadataChanged,
    RoomOptions,
    TextReceived,
    TrackAdded,
    TrackRemoved,
)
from utd_fsm.testing.memory_server import EVERYTHING, Hook, MemoryServer, RoomState, Seat, Snapshot
from utd_fsm.testing.memory_tracks import MemoryPublication, MemoryRemoteTrack, Track

__all__ = ["EVERYTHING", "Hook", "MemoryRoom", "MemoryServer"]

NOTHING_GRANTED = Permission(can_publish=False, can_subscribe=False, can_publish_data=False)


class MemoryRoom:
    """One try to be in a room of a `MemoryServer`; see `utd_fsm.room.Room` for the meaning of every member."""

    def __init__(
        self, server: MemoryServer, post: Callable[[RoomEvent], None], options: RoomOptions | None = None
    ) -> None:
        self._server = server
        self._post_to = post
        self._options = options if options is not None else RoomOptions()
        self._used = False
        self._leaving = False
        self._over = False
        self._place: tuple[RoomState, Seat] | None = None
        self._known = Snapshot(NOTHING_GRANTED, "", (), ())
        self._tracks: dict[str, MemoryRemoteTrack] = {}
        self._publications: list[MemoryPublication] = []
        self._waiters: set[asyncio.Task[Any]] = set()

    # -- what it knows

    @property
    def native(self) -> None:
        return None

    @property
    def connected(self) -> bool:
        return self._place is not None and not self._over

    @property
    def permission(self) -> Permission:
        return self._known.permission

    @property
    def metadata(self) -> str:
        return self._known.metadata

    @property
    def local(self) -> UTDParticipant | None:
        return self._find(self._known)

    @property
    def participants(self) -> tuple[UTDParticipant, ...]:
        return self._others(self._known)

    @property
    def remote_tracks(self) -> tuple[MemoryRemoteTrack, ...]:
        return tuple(self._tracks.values())

    def publications(self, source: UTDTrackSource) -> tuple[str, ...]:
        if not self.connected:
            return ()
        return tuple(own.sid for own in self._publications if own.source is source and own.sid)

    def _others(self, snapshot: Snapshot) -> tuple[UTDParticipant, ...]:
        me = self._place[1].identity if self._place is not None else None
        return tuple(one for one in snapshot.everyone if one.identity != me)

    def _find(self, snapshot: Snapshot) -> UTDParticipant | None:
        me = self._place[1].identity if self._place is not None else None
        return next((one for one in snapshot.everyone if one.identity == me), None)

    # -- joining and leaving

    async def connect(self, url: str, token: str, *, auto_subscribe: bool = True) -> None:
        if self._used:
            raise UTDStateError("this room object was used before; every join takes a new one", event="connect")
        self._used = True
        joining = asyncio.get_running_loop().create_task(self._join(url, token, auto_subscribe))
        self._waiters.add(joining)
        joining.add_done_callback(self._joined)
        try:
            await asyncio.shield(joining)
        except asyncio.CancelledError:
            self._leaving = True  # the join goes on, as LiveKit's does, and is undone (LiveKit fact 1)
            raise
        if self._leaving:
            raise UTDConnectionError("the room was left while it was being joined")

    async def _join(self, url: str, token: str, auto_subscribe: bool) -> None:
        await self._server.joining.wait()
        await asyncio.sleep(0)
        room, seat, snapshot = self._server.join(self, url, token, auto_subscribe=auto_subscribe)
        self._place = (room, seat)
        if self._leaving:
            self._leave_now()
            return
        # Known at once and not posted, as LiveKit emits nothing for what was there at the join (fact 6) ...
        self._known = Snapshot(snapshot.permission, snapshot.metadata, snapshot.everyone, ())
        # ... while those who were there are worth a look, and their tracks are told of.
        self._server._schedule(self._first_look, snapshot)

    def _joined(self, joining: asyncio.Task[None]) -> None:
        self._waiters.discard(joining)
        if not joining.cancelled():
            joining.exception()  # fetched, in case that nobody waits for it any more

    def _first_look(self, snapshot: Snapshot) -> None:
        if self._others(snapshot):
            self._post(ParticipantsChanged())
        self.hear(snapshot)

    async def disconnect(self) -> None:
        self._leaving = True
        if self.connected:
            self._leave_now()
        await asyncio.sleep(0)

    def _leave_now(self) -> None:
        assert self._place is not None
        room, seat = self._place
        seat.client = None
        self._server.leave(room, seat)
        self.over(LeaveReason.ASKED)

    # -- what the server tells (called by it, in order)

    def deliver(self, event: RoomEvent) -> None:
        """Post one event, past the hook; also for a test that held it back."""
        if not self._over:
            self._post_to(event)

    def _post(self, event: RoomEvent) -> None:
        if self._over:
            return
        hook = self._server.hook
        for told in (event,) if hook is None else hook(self, event):
            self.deliver(told)

    def message(self, event: RoomEvent) -> None:
        """A data message, a text, speakers, a first subscriber: as it is."""
        if isinstance(event, TextReceived) and event.topic not in self._options.text_topics:
            return
        if isinstance(event, DataReceived):
            self._raw("data_received", event)
        self._post(event)

    def _raw(self, name: str, *args: Any) -> None:
        self._post(Raw(UTDRoomEvent(name, args)))

    def hear(self, snapshot: Snapshot) -> None:
        """Compare the room as it now is with what was known, and post what differs."""
        if self._over or self._place is None:
            return
        before, self._known = self._known, snapshot
        for sid in [sid for sid in self._tracks if sid not in dict(snapshot.tracks)]:
            self._drop_track(sid)
        muted = {track.sid: track.muted for one in snapshot.everyone for track in one.tracks}
        for remote in self._tracks.values():
            remote.muted = muted.get(remote.sid, remote.muted)
        self._hear_of_others(self._others(before), self._others(snapshot))
        for sid, track in snapshot.tracks:
            if sid not in self._tracks and track.sid == sid:
                self._add_track(track)
        self._hear_of_self(self._find(before), self._find(snapshot))
        if snapshot.metadata != before.metadata:
            self._raw("room_metadata_changed", before.metadata, snapshot.metadata)
            self._post(RoomMetadataChanged(snapshot.metadata))
        if snapshot.permission != before.permission:
            self._raw("participant_permissions_changed", self._find(snapshot), snapshot.permission)
            self._post(PermissionChanged(snapshot.permission))

    def _hear_of_others(self, before: tuple[UTDParticipant, ...], now: tuple[UTDParticipant, ...]) -> None:
        if before == now:
            return
        known, present = {one.sid for one in before}, {one.sid for one in now}
        for one in before:
            if one.sid not in present:
                self._raw("participant_disconnected", one)
        for one in now:
            if one.sid not in known:
                self._raw("participant_connected", one)
        self._post(ParticipantsChanged())

    def _hear_of_self(self, before: UTDParticipant | None, now: UTDParticipant | None) -> None:
        if before is None or now is None:
            return
        if before.metadata != now.metadata:
            self._raw("participant_metadata_changed", now, before.metadata, now.metadata)
            self._post(LocalMetadataChanged(now.metadata))

    def saw_muted(self, sid: str, muted: bool) -> None:
        """A moderator muted or unmuted a track of ours."""
        for own in self._publications:
            if own.sid == sid and not own.closed and own.saw_muted(muted):
                self._raw("track_muted" if muted else "track_unmuted", self.local, sid)
                self._post(LocalTrackMuted(own.source, muted))

    def _add_track(self, track: Track) -> None:
        assert self._place is not None
        added = MemoryRemoteTrack(track, adaptive=self._options.adaptive_stream)
        self._tracks[added.sid] = added
        self._raw("track_subscribed", added)
        self._post(TrackAdded(added))
        self._server.subscribed(self._place[0], track)

    def _drop_track(self, sid: str) -> None:
        track = self._tracks.pop(sid)
        track.end()
        self._raw("track_unsubscribed", track)
        self._post(TrackRemoved(sid))

    def link_broke(self) -> None:
        """The link to the server is down."""
        self._raw("reconnecting")
        self._post(Reconnecting())

    def link_mended(self, snapshot: Snapshot, full: bool) -> None:
        """It is up again, after a full join (then everybody seems to leave and come back) or not."""
        if full and self._place is not None:
            me = self._find(snapshot)
            self.hear(Snapshot(self.permission, self.metadata, (me,) if me is not None else (), ()))
        self._raw("reconnected")
        self._post(Reconnected())
        self.hear(snapshot)
        me = self._find(snapshot)
        for track in me.tracks if me is not None else ():
            self.saw_muted(track.sid, track.muted)
        self._post(ParticipantsChanged())

    def over(self, reason: LeaveReason) -> None:
        """The room is left or lost: everything in it ends, and that is posted once."""
        if self._over:
            return
        for sid in list(self._tracks):
            self._drop_track(sid)
        for publication in self._publications:
            publication.close()
        self._raw("disconnected", reason)
        self._post(Disconnected(reason))
        self._over = True

    # -- publishing

    async def publish_audio(
        self, source: UTDTrackSource, *, sample_rate: int = 48000, channels: int = 1
    ) -> MemoryPublication:
        track = Track("", source, "audio", self._me(f"publish {source}").identity, sample_rate=sample_rate)
        return await self._publish(track, channels)

    async def publish_video(
        self, source: UTDTrackSource, *, width: int, height: int, fps: float = 15, simulcast: bool = True
    ) -> MemoryPublication:
        identity = self._me(f"publish {source}").identity
        return await self._publish(Track("", source, "video", identity, width, height, simulcast), 0)

    def _me(self, what: str) -> Seat:
        if not self.connected or self._place is None:
            raise UTDConnectionError(f"{what}: not in the room")
        return self._place[1]

    async def _publish(self, track: Track, channels: int) -> MemoryPublication:
        what = f"publish {track.source}"
        if not self.permission.allows(track.source):
            raise UTDPermissionError(f"the server has not granted publishing {track.source}; wait for the grant first")
        await self._server.publishing.wait()
        await asyncio.sleep(0)
        seat = self._me(f"{what}: the room was left or lost meanwhile")
        assert self._place is not None
        room = self._place[0]
        if not seat.permission.allows(track.source):
            raise UTDPermissionError(f"{what}: the grant was taken away meanwhile")
        publication = MemoryPublication(
            track,
            channels=channels,
            paced=self._server.paced,
            reachable=lambda: seat.link_up,
            on_mute=lambda _: self._server.changed(room),
        )
        self._publications.append(publication)
        self._server.publish(room, seat, track)
        self._raw("local_track_published", track.sid)
        return publication

    async def unpublish(self, source: UTDTrackSource) -> None:
        for own in [own for own in self._publications if own.source is source]:
            own.close()
            self._publications.remove(own)
            if self._place is not None and self.connected:
                self._server.unpublish(*self._place, own.track)
                self._raw("local_track_unpublished", own.sid)
        await asyncio.sleep(0)

    # -- messages

    async def send_data(
        self, data: bytes, *, reliable: bool = True, to: Sequence[str] = (), topic: str | None = None
    ) -> None:
        if len(data) > MAX_DATA_BYTES:
            raise UTDInputError(f"a data message holds at most {MAX_DATA_BYTES} bytes; this one has {len(data)}")
        me = self._me("send data")
        sender = me.identity if me.announced else None
        self._send(me, DataReceived(bytes(data), sender, topic or None, reliable), to)
        await asyncio.sleep(0)

    async def send_text(self, text: str, *, topic: str, to: Sequence[str] = ()) -> None:
        me = self._me("send text")
        self._send(me, TextReceived(text, me.identity, topic), to)
        await asyncio.sleep(0)

    def _send(self, me: Seat, event: DataReceived | TextReceived, to: Sequence[str]) -> None:
        assert self._place is not None
        if not me.permission.can_publish_data or not me.link_up:
            return  # dropped without a word (LiveKit fact 29)
        for seat in self._place[0].seats.values():
            if seat is not me and (not to or seat.identity in to):
                self._server.message(seat, event)
