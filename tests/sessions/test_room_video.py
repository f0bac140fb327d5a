"""Pictures between `UTDRoom`s with LiveKit's real client, on both media servers: camera and screen, who receives what
with ``adaptive_stream``, stills, and tracks that a moderator mutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.media_servers import MediaServerProcess
from tests.sessions.places import LONG, Place
from utd_fsm import UTDRoom
from utd_fsm.media import Image, TestPattern, Tone
from utd_fsm.models import UTDTrack

if TYPE_CHECKING:
    from livekit import rtc

    from utd_fsm.media import VideoFrame
    from utd_fsm.room import Pixels

pytestmark = [pytest.mark.media, pytest.mark.timeout(240)]

RED, GREEN, BLUE = (220, 20, 20), (20, 200, 20), (20, 20, 220)
LARGE = TestPattern(1280, 720, 15)


@pytest.fixture
def place(media_server: MediaServerProcess) -> Iterator[Place]:
    made = Place(media_server)
    yield made
    made.close()


def plain(colour: tuple[int, int, int], width: int = 320, height: int = 180) -> Pixels:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def see(room: UTDRoom, until: Callable[[VideoFrame], bool], identity: str = "ann", **options: Any) -> VideoFrame:
    """The first picture of this kind."""
    with room.watch(identity, timeout=LONG, **options) as pictures:
        limit = time.monotonic() + LONG
        for picture in pictures:
            if until(picture):
                return picture
            assert time.monotonic() < limit, f"only pictures of {picture.width} x {picture.height} came"
    raise AssertionError("the stream ended")


def coloured(colour: tuple[int, int, int]) -> Callable[[VideoFrame], bool]:
    def is_it(picture: VideoFrame) -> bool:
        middle = picture.pixels[picture.height // 2, picture.width // 2].astype(int)
        return bool(np.abs(middle - colour).max() < 45)

    return is_it


def tracks(room: UTDRoom, identity: str = "ann") -> dict[str, UTDTrack]:
    """Somebody's tracks by source, as this one lists them now."""
    return {str(t.source): t for one in room.remote_participants.value if one.identity == identity for t in one.tracks}


def listed(room: UTDRoom, *sources: str) -> None:
    """Wait until ann is listed with just these sources."""
    room.remote_participants.wait_for(lambda _: sorted(tracks(room)) == sorted(sources), timeout=LONG)


async def _received(room: rtc.Room) -> tuple[int, int]:
    received = [0, 0]
    for one in (await room.get_rtc_stats()).subscriber_stats:
        if one.HasField("inbound_rtp") and one.inbound_rtp.stream.kind == "video":
            received[0] += one.inbound_rtp.inbound.bytes_received
            received[1] += one.inbound_rtp.inbound.frames_received
    return received[0], received[1]


def received(room: UTDRoom) -> tuple[int, int]:
    """Bytes and frames of video that arrived so far, by LiveKit's own count."""
    count: tuple[int, int] = room.run(_received, timeout=LONG)
    return count


def dries_up(room: UTDRoom) -> None:
    """Return when a second passed in which not a byte of video came."""
    limit = time.monotonic() + LONG
    while (before := received(room)) is not None:
        time.sleep(1.0)
        if received(room) == before:
            return
        assert time.monotonic() < limit, "video that nobody watches goes on coming"


# ------------------------------------------------------------------------------------------------------------- screens


def test_a_screen_beside_the_camera_seen_by_several(place: Place) -> None:
    ann, bob, cat = place.join("ann"), place.join("bob"), place.join("cat", adaptive_stream=True)
    ann.set_camera(True, source=Image(plain(RED)))
    ann.set_screen(True, source=Image(plain(BLUE, 640, 360)))
    for viewer in (bob, cat):
        listed(viewer, "camera", "screen")
        assert see(viewer, coloured(RED)).identity == "ann"
        # A smaller layer may come first.
        screen = see(viewer, lambda picture: coloured(BLUE)(picture) and picture.width == 640, source="screen")
        assert (screen.identity, screen.height) == ("ann", 360)
    told = place.admin(lambda api, room: room.list_participants(api.ListParticipantsRequest(room=place.name)))
    server = next(one for one in told.participants if one.identity == "ann")
    # LiveKit's numbers: 1 is CAMERA, 3 is SCREEN_SHARE.
    assert sorted((track.source, track.width, track.height) for track in server.tracks) == [
        (1, 320, 180),
        (3, 640, 360),
    ]
    with bob.watch("ann", source="screen", timeout=LONG) as pictures:
        next(pictures)
        ann.set_screen(False)
        for viewer in (bob, cat):
            listed(viewer, "camera")
        ann.set_screen(True)  # what it showed before
        listed(bob, "camera", "screen")
        assert see(bob, coloured(BLUE), source="screen").identity == "ann"
        next(picture for picture in pictures if coloured(BLUE)(picture))  # the reading goes over to the new track
    ann.set_camera(False)
    bob.remote_participants.wait_for(lambda _: tracks(bob)["camera"].muted, timeout=LONG)
    assert not tracks(bob)["screen"].muted


def test_a_still_is_seen_by_who_joins_late_and_can_be_replaced(place: Place) -> None:
    ann, bob = place.join("ann"), place.join("bob")
    ann.set_camera(True, source=Image(plain(GREEN, 641, 361)))
    shown = see(bob, coloured(GREEN))
    assert (shown.width, shown.height) == (640, 360)
    late = place.join("late")
    assert see(late, coloured(GREEN)).identity == "ann"
    before = tracks(bob)["camera"].sid
    ann.set_camera(True, source=Image(plain(BLUE)))
    see(late, coloured(BLUE))
    assert tracks(bob)["camera"].sid == before, "another source is no other track"


# ----------------------------------------------------------------------------------------------------- adaptive streams


def test_nothing_is_received_of_what_nobody_watches(place: Place) -> None:
    ann, bob, cat = place.join("ann"), place.join("bob", adaptive_stream=True), place.join("cat")
    ann.set_camera(True, source=LARGE)
    ann.set_screen(True, source=Image(plain(BLUE, 640, 360)))
    for viewer in (bob, cat):
        listed(viewer, "camera", "screen")
    limit = time.monotonic() + LONG
    while received(cat)[1] < 45:  # without adaptive_stream it comes, watched or not
        assert time.monotonic() < limit
        time.sleep(0.2)
    dries_up(bob)
    assert received(bob)[1] < 15, "at most what came before the pause was asked for"
    with bob.watch("ann", timeout=LONG) as pictures:
        next(pictures)
        next(pictures)
        assert received(bob)[1] > 0
    dries_up(bob)  # the last watcher is gone
    see(bob, lambda picture: picture.width == 1280)  # and it comes back, also the largest layer after a pause
    see(bob, coloured(BLUE), source="screen")
    dries_up(bob)


@pytest.mark.parametrize("alone", [True, False])
def test_the_size_that_is_watched_chooses_the_layer(place: Place, alone: bool) -> None:
    """Whether others receive the larger layers or nobody does."""
    ann, bob = place.join("ann", dynacast=not alone), place.join("bob", adaptive_stream=True)
    if not alone:
        place.join("cat")
    ann.set_camera(True, source=LARGE)
    listed(bob, "camera")
    for size, width in (((160, 90), 320), (None, 1280), ((320, 180), 320), ((640, 360), 640), ((1, 1), 320)):
        with bob.watch("ann", size=size, timeout=LONG) as pictures:
            limit = time.monotonic() + LONG
            steady = 0
            for picture in pictures:  # and stays: a late request for another layer would show within this time
                steady = steady + 1 if picture.width == width else 0
                if steady == 20:
                    break
                assert time.monotonic() < limit, f"{size}: {picture.width} x {picture.height}"
        dries_up(bob)


def test_of_several_watchers_the_largest_size_wins(place: Place) -> None:
    ann, bob = place.join("ann"), place.join("bob", adaptive_stream=True)
    ann.set_camera(True, source=LARGE)
    listed(bob, "camera")
    with bob.watch("ann", size=(160, 90), timeout=LONG) as small:
        next(picture for picture in small if picture.width == 320)
        with bob.watch("ann", size=(640, 360), timeout=LONG) as middle:
            for stream in (small, middle):  # both see the one layer that is sent
                next(picture for picture in stream if picture.width == 640)
            with bob.watch("ann", timeout=LONG) as large:  # no size is the largest
                next(picture for picture in large if picture.width == 1280)
            next(picture for picture in middle if picture.width == 640)
        next(picture for picture in small if picture.width == 320)
    dries_up(bob)


def test_watchers_who_come_and_go_at_once_leave_it_as_the_last_one_wished(place: Place) -> None:
    ann, bob = place.join("ann"), place.join("bob", adaptive_stream=True)
    ann.set_camera(True, source=LARGE)
    listed(bob, "camera")
    for _ in range(5):
        for size in ((160, 90), None, (640, 360)):
            bob.watch("ann", size=size, timeout=LONG).close()
        with bob.watch("ann", size=(160, 90), timeout=LONG) as pictures:
            next(picture for picture in pictures if picture.width == 320)
        bob.watch("ann", timeout=LONG).close()
    dries_up(bob)


# --------------------------------------------------------------------------------------------------- a moderator's mute


@pytest.mark.parametrize("kind", ["microphone", "camera", "screen"])
def test_a_moderators_mute_is_seen_by_all_and_only_the_application_undoes_it(place: Place, kind: str) -> None:
    ann, bob = place.join("ann"), place.join("bob")

    def switch(on: bool) -> None:
        if kind == "microphone":
            ann.set_microphone(on, source=Tone(440) if on else None)
        elif kind == "camera":
            ann.set_camera(on, source=Image(plain(RED)) if on else None)
        else:
            ann.set_screen(on, source=Image(plain(RED)) if on else None)

    def works() -> None:
        if kind == "microphone":
            with bob.listen("ann", timeout=LONG) as frames:
                next(frame for frame in frames if int(np.abs(frame.samples).max()) > 2000)
        else:
            see(bob, coloured(RED), source=kind)

    switch(True)
    works()
    sid = tracks(bob)[kind].sid
    state = ann._core._sources[tracks(bob)[kind].source]
    for turn in range(2):
        place.mute("ann", sid)
        bob.remote_participants.wait_for(lambda _: tracks(bob)[kind].muted, timeout=LONG)
        limit = time.monotonic() + LONG
        while state.state != "muted":
            assert time.monotonic() < limit, state.state
            time.sleep(0.01)
        late = place.join(f"late-{turn}")
        listed(late, kind)
        assert tracks(late)[kind].muted
        switch(True)
        bob.remote_participants.wait_for(lambda _: not tracks(bob)[kind].muted, timeout=LONG)
        assert state.state == "on"
        works()
        assert tracks(bob)[kind].sid == sid, "muted and unmuted, not published anew"
