"""Turns what LiveKit's client emits into the room's own events. Floor 4; belongs to `livekit_room`.

A handler here copies and posts, and nothing escapes it: LiveKit swallows most exceptions of handlers, and after a
`TypeError` skips the handlers that remain (fact 3). Loop thread only. ``livekit`` is imported inside functions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from utd_fsm.livekit_tracks import SOURCES, LiveKitPublication, LiveKitRemoteTrack, Spawn
from utd_fsm.models import ReadOnlyDict, UTDParticipant, UTDRoomEvent, UTDTrack, UTDTrackSource
from utd_fsm.room import (
    DataReceived,
    Disconnected,
    LeaveReason,
    LocalMetadataChanged,
    LocalTrackMuted,
    LocalTrackSubscribed,
    ParticipantsChanged,
    Permission,
    PermissionChanged,
    Raw,
    Reconnected,
    Reconnecting,
    RoomEvent,
    RoomMetadataChanged,
    RoomOptions,
    SpeakersChanged,
    TextReceived,
    TrackAdded,
    TrackRemoved,
)

if TYPE_CHECKING:
    from livekit import rtc

log = logging.getLogger("utd_fsm.room")

TEXT_LIMIT = 15.0
"""Seconds in which a text stream, once opened, must be complete; an abandoned one is dropped."""

ORDER_LIMIT = 2.0
"""Seconds that a complete text waits for an earlier one of the same sender that is not."""

# The numbers of livekit's DisconnectReason. 0 is what the client says when it gave up on a dead link (fact 7).
_REASONS: dict[int, LeaveReason] = {
    0: LeaveReason.LOST,
    1: LeaveReason.ASKED,
    2: LeaveReason.DUPLICATE_IDENTITY,
    3: LeaveReason.SERVER_SHUTDOWN,
    4: LeaveReason.REMOVED,
    5: LeaveReason.ROOM_DELETED,
    6: LeaveReason.STATE_MISMATCH,
    7: LeaveReason.JOIN_FAILURE,
    8: LeaveReason.LOST,  # MIGRATION
    9: LeaveReason.LOST,  # SIGNAL_CLOSE
    10: LeaveReason.ROOM_DELETED,  # ROOM_CLOSED
    14: LeaveReason.LOST,  # CONNECTION_TIMEOUT
    15: LeaveReason.LOST,  # MEDIA_FAILURE
}

_ABOUT_OTHERS = frozenset(
    {
        "participant_connected",
        "participant_disconnected",
        "participant_active",
        "participant_name_changed",
        "participant_attributes_changed",
        "participant_metadata_changed",
        "participant_permissions_changed",
        "track_published",
        "track_unpublished",
        "track_muted",
        "track_unmuted",
    }
)


def leave_reason(number: int) -> LeaveReason:
    """LiveKit's disconnect reason in our words."""
    return _REASONS.get(int(number), LeaveReason.UNKNOWN)


def read_permission(message: Any) -> Permission:
    """A copy of a permission, which LiveKit hands out as a live mutable message (fact 4)."""
    return Permission(
        can_publish=bool(message.can_publish),
        can_subscribe=bool(message.can_subscribe),
        can_publish_data=bool(message.can_publish_data),
        sources=frozenset(SOURCES.get(number, UTDTrackSource.UNKNOWN) for number in message.can_publish_sources),
    )


def read_participant(participant: rtc.Participant) -> UTDParticipant:
    """A copy of a participant as it is now."""
    tracks = tuple(
        UTDTrack(
            sid=publication.sid,
            source=SOURCES.get(publication.source, UTDTrackSource.UNKNOWN),
            kind="audio" if publication.kind == 1 else "video",
            muted=bool(publication.muted),
            width=publication.width,
            height=publication.height,
        )
        for publication in participant.track_publications.values()
    )
    return UTDParticipant(
        identity=participant.identity,
        name=participant.name,
        sid=participant.sid,
        metadata=participant.metadata,
        attributes=ReadOnlyDict(participant.attributes),
        can_publish=bool(participant.permissions.can_publish),
        tracks=tracks,
    )


class LiveKitEvents:
    """Everything one room heard: it registers the handlers and owns what they change."""

    def __init__(
        self,
        native: rtc.Room,
        post: Callable[[RoomEvent], None],
        options: RoomOptions,
        spawn: Spawn,
        publications: list[LiveKitPublication],
    ) -> None:
        self.tracks: dict[str, LiveKitRemoteTrack] = {}
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.not_mending = asyncio.Event()
        """Clear while LiveKit mends the link."""
        self.not_mending.set()
        self._native = native
        self._post_to = post
        self._options = options
        self._spawn = spawn
        self._publications = publications
        self._joined = False
        self._permission: Permission | None = None
        self._texts: dict[str, asyncio.Task[Any]] = {}
        # One place for all events: a handler for each of 36 costs a tenth of what an idle room does.
        self._emit_native: Callable[..., None] = native.emit
        native.emit = self._emit  # type: ignore[method-assign, assignment]
        for topic in options.text_topics:
            native.register_text_stream_handler(topic, self._on_text)
        self._early: set[str] = set()
        self._listen = native._on_room_event
        native._on_room_event = self._before_livekit  # type: ignore[method-assign]

    def _before_livekit(self, event: Any) -> None:
        """Keep what LiveKit's wrapper would lose: a subscriber that is quicker than the answer to our publishing.

        The wrapper looks the track up in its list, which that answer fills, and fails with a KeyError (measured).
        """
        if event.WhichOneof("message") == "local_track_subscribed":
            sid = event.local_track_subscribed.track_sid
            if sid not in self._native.local_participant.track_publications:
                self._early.add(sid)
                return
        self._listen(event)

    def published(self, publication: LiveKitPublication) -> None:
        """Our publishing was answered: tell of a subscriber that was quicker."""
        if publication.sid in self._early:
            self._early.discard(publication.sid)
            self._post(LocalTrackSubscribed(publication.source))

    def _emit(self, name: str, *args: Any) -> None:
        """LiveKit announces an event: ours first, then whoever registered on the room itself."""
        try:
            self.joined()
            self._post(Raw(UTDRoomEvent(name, args)))
            typed: Callable[..., None] | None = getattr(self, f"_on_{name}", None)
            if typed is not None:
                typed(*args)
            if name in _ABOUT_OTHERS:
                self._post(ParticipantsChanged())
        except Exception:
            log.exception("handling LiveKit's %s failed", name)
        self._emit_native(name, *args)

    def _post(self, event: RoomEvent) -> None:
        if not self.gone.done():
            self._post_to(event)

    # -- joined and left

    def joined(self) -> None:
        """Take stock of what was there at the join, which LiveKit emits no events for (fact 6). Idempotent."""
        if self._joined:
            return
        self._joined = True
        self._permission = read_permission(self._native.local_participant.permissions)
        if self._native.remote_participants:
            self._post(ParticipantsChanged())
        for participant in self._native.remote_participants.values():
            for publication in participant.track_publications.values():
                if publication.track is not None:
                    self._on_track_subscribed(publication.track, publication, participant)

    def over(self, reason: LeaveReason) -> None:
        """The room is left or lost: everything in it ends, and that is posted once."""
        if self.gone.done():
            return
        for sid in list(self.tracks):
            self._drop_track(sid)
        for publication in self._publications:
            publication.close()
        if self._joined:
            self._post(Disconnected(reason))
        self.gone.set_result(None)
        self.not_mending.set()

    def _on_disconnected(self, reason: int) -> None:
        self.over(leave_reason(reason))

    def _on_reconnecting(self) -> None:
        self.not_mending.clear()
        self._post(Reconnecting())

    def _on_reconnected(self) -> None:
        self.not_mending.set()
        for publication in self._publications:
            publication.link_mended()
        self._post(Reconnected())
        # The participant's info is replaced without an event in a full reconnect (fact 28: read again).
        self._look_at_permission()
        self._post(ParticipantsChanged())

    # -- permission and metadata

    def _look_at_permission(self) -> None:
        permission = read_permission(self._native.local_participant.permissions)
        if permission != self._permission:
            self._permission = permission
            self._post(PermissionChanged(permission))

    def _is_local(self, participant: rtc.Participant | None) -> bool:
        return participant is not None and participant is self._native.local_participant

    def _on_participant_permissions_changed(self, participant: rtc.Participant, permissions: Any) -> None:
        if self._is_local(participant):
            self._permission = read_permission(permissions)
            self._post(PermissionChanged(self._permission))

    def _on_participant_metadata_changed(self, participant: rtc.Participant, before: str, metadata: str) -> None:
        if self._is_local(participant):
            self._post(LocalMetadataChanged(metadata))

    def _on_room_metadata_changed(self, before: str, metadata: str) -> None:
        self._post(RoomMetadataChanged(metadata))

    # -- remote tracks

    def _on_track_subscribed(
        self,
        track: rtc.RemoteAudioTrack | rtc.RemoteVideoTrack,
        publication: rtc.RemoteTrackPublication,
        participant: rtc.RemoteParticipant,
    ) -> None:
        present = self.tracks.get(publication.sid)
        if present is not None:
            if present.native is track:
                return
            self._drop_track(publication.sid)  # subscribed anew under the same name
        added = LiveKitRemoteTrack(
            track, publication, participant.identity, self._spawn, adaptive=self._options.adaptive_stream
        )
        self.tracks[added.sid] = added
        self._post(TrackAdded(added))

    def _on_track_unsubscribed(
        self, track: Any, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        self._drop_track(publication.sid)

    def _on_track_unpublished(
        self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        self._drop_track(publication.sid)

    def _on_participant_disconnected(self, participant: rtc.RemoteParticipant) -> None:
        # LiveKit emits no track_unsubscribed for somebody it no longer lists.
        for track in list(self.tracks.values()):
            if track.identity == participant.identity:
                self._drop_track(track.sid)

    def _drop_track(self, sid: str) -> None:
        track = self.tracks.pop(sid, None)
        if track is not None:
            track.end()
            self._post(TrackRemoved(sid))

    # -- own tracks

    def _own(self, sid: str) -> LiveKitPublication | None:
        return next((own for own in self._publications if own.sid == sid and not own.closed), None)

    def _saw_muted(self, participant: rtc.Participant | None, publication: rtc.TrackPublication, muted: bool) -> None:
        if not self._is_local(participant):
            return
        own = self._own(publication.sid)
        if own is not None and own.saw_muted(muted):
            self._post(LocalTrackMuted(own.source, muted))

    def _on_track_muted(self, participant: rtc.Participant, publication: rtc.TrackPublication) -> None:
        self._saw_muted(participant, publication, True)

    def _on_track_unmuted(self, participant: rtc.Participant, publication: rtc.TrackPublication) -> None:
        self._saw_muted(participant, publication, False)

    def _on_local_track_subscribed(self, track: Any) -> None:
        own = next((own for own in self._publications if own.track is track), None)
        if own is not None and not own.closed:
            self._post(LocalTrackSubscribed(own.source))

    # -- messages and speakers

    def _on_data_received(self, packet: rtc.DataPacket) -> None:
        from livekit import rtc

        sender = packet.participant
        self._post(
            DataReceived(
                data=bytes(packet.data),
                identity=sender.identity if sender is not None else None,
                topic=packet.topic or None,
                reliable=packet.kind == rtc.DataPacketKind.KIND_RELIABLE,
            )
        )

    def _on_active_speakers_changed(self, speakers: list[rtc.Participant]) -> None:
        # LiveKit's Python client tells who is heard, the loudest first, and not how loud.
        self._post(SpeakersChanged(tuple((speaker.identity, 1.0) for speaker in speakers)))

    def _on_text(self, reader: rtc.TextStreamReader, identity: str) -> None:
        before = self._texts.get(identity)
        task = self._texts[identity] = self._spawn(self._read_text(reader, identity, before))

        def forget(done: asyncio.Task[Any]) -> None:
            if self._texts.get(identity) is done:
                del self._texts[identity]

        task.add_done_callback(forget)

    async def _read_text(self, reader: rtc.TextStreamReader, identity: str, before: asyncio.Task[Any] | None) -> None:
        """Post a text when it is complete, and after those of the same sender that were begun before it."""
        try:
            async with asyncio.timeout(TEXT_LIMIT):
                text = await reader.read_all()
        except (TimeoutError, ConnectionError) as error:  # never finished, aborted by its sender, or the room is gone
            log.info("a text stream of %s was given up: %s", identity, type(error).__name__)
            return
        finally:
            reader.close()
        if before is not None:  # the native reader completes a short one before a long one (measured)
            await asyncio.wait({before}, timeout=ORDER_LIMIT)
        self._post(TextReceived(text, identity, reader.info.topic))


class Background:
    """Tasks that outlive their callers, held so that they are not lost, with their errors fetched."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start it and hold on to it until it is done."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a background step of the room ended with %s", type(error).__name__)
