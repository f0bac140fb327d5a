"""What the engine makes of LiveKit's webhooks: signed ones made by hand, on a media server in which nobody is.

A party that vanished ends its call, and only then, and only when its time to come back is over. "Nothing happens" is
checked against the clock of another call: when that one has been cut, this one's time was over, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import requests
from livekit import api

from utd_fsm import wire
from utd_fsm.testing import LocalEngine, local_engine

from .support import Backend, Site, User, somebody, until

GRACE = 0.5
LONG = 3600


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    """A party may be away for half a second; nobody must have joined."""
    with local_engine(party_grace=GRACE, join_grace=LONG, reconcile_every=LONG) as one:
        yield one


@pytest.fixture
def site(engine: LocalEngine) -> Site:
    return Site(engine.process)


class Media:
    """LiveKit's voice, made by hand."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine

    def tell(
        self, event: str, room: str, identity: str = "", sid: str = "", *, joined_at: float = 0, event_id: str = "",
        **more: Any,
    ) -> requests.Response:  # fmt: skip
        content = {
            "event": event,
            "id": event_id or f"EV_{uuid.uuid4().hex}",
            "createdAt": str(int(time.time())),
            "room": {"name": room, "sid": "RM_x", "numParticipants": 1},
            **more,
        }
        if identity:
            content["participant"] = {
                "identity": identity,
                "sid": sid,
                "name": "N",
                "joinedAtMs": str(int((joined_at or time.time()) * 1000)),
                "permission": {
                    "canSubscribe": True, "canPublish": True, "canPublishData": True,
                    "canPublishSources": ["MICROPHONE"],
                },
            }  # fmt: skip
        return self.send(json.dumps(content))

    def send(self, body: str, *, signed: str | None = None, secret: str | None = None) -> requests.Response:
        digest = base64.b64encode(hashlib.sha256((body if signed is None else signed).encode()).digest()).decode()
        token = api.AccessToken(self.engine.livekit_key, secret or self.engine.livekit_secret).with_sha256(digest)
        return requests.post(
            self.engine.base_url + wire.PREFIX + wire.MEDIA_WEBHOOK,
            data=body,
            headers={"Authorization": token.to_jwt(), "Content-Type": "application/webhook+json"},
            timeout=30,
        )


@pytest.fixture
def media(engine: LocalEngine) -> Media:
    return Media(engine)


def is_over(user: User, call_id: str) -> bool:
    return user.status(call_id) == "ended"


def wait_until_over(user: User, call_id: str) -> dict[str, Any]:
    until(lambda: is_over(user, call_id))
    return user.read(call_id)


def let_the_grace_pass(site: Site, media: Media) -> None:
    """Until a call whose party dropped just now has been cut."""
    alice, bob = site.pair()
    call_id = alice.call(bob)
    media.tell("participant_joined", call_id, alice.identity, "PA_clock")
    media.tell("participant_left", call_id, alice.identity, "PA_clock")
    wait_until_over(alice, call_id)


@pytest.fixture
def joined(site: Site, media: Media) -> tuple[User, str, str]:
    """A caller whose first connection is in its call's room."""
    alice, bob = site.pair()
    call_id = alice.call(bob)
    sid = f"PA_{somebody()}"
    assert media.tell("participant_joined", call_id, alice.identity, sid, joined_at=1000).status_code == 200
    return alice, call_id, sid


Joined = tuple[User, str, str]


def test_only_livekit_is_believed(site: Site, media: Media, joined: Joined) -> None:
    alice, call_id, sid = joined
    body = json.dumps({
        "event": "participant_left", "id": "EV_1", "room": {"name": call_id},
        "participant": {"identity": alice.identity, "sid": sid},
    })  # fmt: skip
    assert media.send(body, secret="x" * 40).status_code == 401
    assert media.send(body, signed=body + " ").status_code == 401
    assert media.send("no json").status_code == 401
    url = media.engine.base_url + wire.PREFIX + wire.MEDIA_WEBHOOK
    for authorization in ("", "nonsense", alice.bearer):
        answer = requests.post(url, data=body, headers={"Authorization": authorization}, timeout=30)
        assert answer.status_code == 401
    unsigned = api.AccessToken(media.engine.livekit_key, media.engine.livekit_secret).to_jwt()
    assert requests.post(url, data=body, headers={"Authorization": unsigned}, timeout=30).status_code == 401
    let_the_grace_pass(site, media)
    assert alice.status(call_id) == "initiating"


def test_a_party_that_vanished_ends_the_call_after_its_grace(media: Media, joined: Joined) -> None:
    alice, call_id, sid = joined
    dropped = time.time()
    media.tell("participant_left", call_id, alice.identity, sid)
    record = wire.read_call(wait_until_over(alice, call_id), "read")
    assert record.ended_at is not None
    assert record.ended_at.timestamp() >= dropped + GRACE  # a leave is no hang-up
    assert record.end_reason == "connection_lost"


def test_the_leave_of_an_older_connection_is_nothing(site: Site, media: Media, joined: Joined) -> None:
    alice, call_id, sid = joined
    media.tell("participant_joined", call_id, alice.identity, "PA_second", joined_at=1001)
    media.tell("participant_left", call_id, alice.identity, sid)
    let_the_grace_pass(site, media)
    assert alice.status(call_id) == "initiating"


def test_who_comes_back_in_time_goes_on() -> None:
    # long enough for a crowded machine to come back in
    with local_engine(party_grace=5, join_grace=LONG, reconcile_every=LONG) as engine:
        site, media = Site(engine.process), Media(engine)
        alice, bob = site.pair()
        call_id = alice.call(bob)
        media.tell("participant_joined", call_id, alice.identity, "PA_first", joined_at=1000)
        media.tell("participant_left", call_id, alice.identity, "PA_first")
        media.tell("participant_joined", call_id, alice.identity, "PA_second", joined_at=1001)
        let_the_grace_pass(site, media)
        assert alice.status(call_id) == "initiating"
        media.tell("participant_left", call_id, alice.identity, "PA_second")
        assert wait_until_over(alice, call_id)["end_reason"] == "connection_lost"


def test_news_in_the_wrong_order(site: Site, media: Media, joined: Joined) -> None:
    alice, call_id, _ = joined
    # the join of the second connection is heard before the late join, and the leave, of another older one
    media.tell("participant_joined", call_id, alice.identity, "PA_new", joined_at=3000)
    media.tell("participant_joined", call_id, alice.identity, "PA_old", joined_at=2000)
    media.tell("participant_left", call_id, alice.identity, "PA_old")
    let_the_grace_pass(site, media)
    assert alice.status(call_id) == "initiating"
    # a leave that comes before its own join still counts once the join is heard
    media.tell("participant_left", call_id, alice.identity, "PA_newest")
    media.tell("participant_joined", call_id, alice.identity, "PA_newest", joined_at=4000)
    assert wait_until_over(alice, call_id)["end_reason"] == "connection_lost"


def test_strangers_and_other_rooms_end_nothing(site: Site, media: Media, joined: Joined) -> None:
    alice, call_id, sid = joined
    media.tell("participant_left", call_id, "a-stranger", sid)
    media.tell("participant_left", "some-stream", alice.identity, sid)
    media.tell("participant_joined", "call_" + "0" * 24, alice.identity, sid)
    media.tell("room_started", "call_" + "0" * 24)
    media.tell("room_finished", call_id)
    media.tell("an_event_of_tomorrow", call_id, alice.identity, sid)
    let_the_grace_pass(site, media)
    assert alice.status(call_id) == "initiating"


def in_the_books(engine: LocalEngine, call_id: str, *, dropped: bool = False) -> int:
    """How many parties the engine has written down: it answers LiveKit before it works."""
    with closing(sqlite3.connect(engine.settings.db)) as db:
        rows = db.execute("SELECT dropped_at FROM parties WHERE call_id = ?", (call_id,)).fetchall()
    return sum(row[0] is not None or not dropped for row in rows)


def test_the_grace_goes_on_after_a_kill(engine: LocalEngine, media: Media, joined: Joined) -> None:
    alice, call_id, sid = joined
    until(lambda: in_the_books(engine, call_id) == 1)
    media.tell("participant_left", call_id, alice.identity, sid)
    engine.restart(hard=True)
    assert wait_until_over(alice, call_id)["end_reason"] == "connection_lost"


def test_who_was_in_the_room_before_a_kill_and_is_not_after_it_has_dropped(engine: LocalEngine, joined: Joined) -> None:
    alice, call_id, _ = joined
    until(lambda: in_the_books(engine, call_id) == 1)
    engine.restart(hard=True)  # the books say joined, the room says nobody: the leave was missed
    assert wait_until_over(alice, call_id)["end_reason"] == "connection_lost"


def test_who_never_joins_after_the_answer_ends_the_call() -> None:
    with local_engine(join_grace=GRACE, party_grace=LONG, reconcile_every=LONG) as engine:
        site = Site(engine.process)
        alice, bob = site.pair()
        call_id = alice.call(bob)
        bob.do(wire.CALL_ACCEPT, call_id)
        answered = time.time()
        assert wait_until_over(alice, call_id)["end_reason"] == "connection_lost"
        assert time.time() - answered >= GRACE * 0.9


def test_a_media_server_that_cannot_be_asked_ends_no_call() -> None:
    with local_engine(join_grace=GRACE, party_grace=GRACE, reconcile_every=LONG) as engine:
        site, media = Site(engine.process), Media(engine)
        engine.media.stop(hard=True)
        alice, bob = site.pair()
        call_id = alice.call(bob)
        media.tell("participant_joined", call_id, alice.identity, "PA_1")
        bob.do(wire.CALL_ACCEPT, call_id)
        media.tell("participant_left", call_id, alice.identity, "PA_1")
        time.sleep(GRACE * 4)  # nothing is to happen, and nothing tells when it has not
        assert alice.status(call_id) == "active"
        engine.media.start()
        assert wait_until_over(alice, call_id)["end_reason"] == "connection_lost"


def test_an_engine_that_starts_without_a_media_server_asks_until_there_is_one() -> None:
    with local_engine(join_grace=LONG, party_grace=GRACE, reconcile_every=LONG) as engine:
        site, media = Site(engine.process), Media(engine)
        alice, bob = site.pair()
        call_id = alice.call(bob)
        media.tell("participant_joined", call_id, alice.identity, "PA_1")
        until(lambda: in_the_books(engine, call_id) == 1)
        engine.media.stop(hard=True)
        media.tell("participant_left", call_id, alice.identity, "PA_1")
        until(lambda: in_the_books(engine, call_id, dropped=True) == 1)
        engine.restart(hard=True)
        engine.media.start()
        assert wait_until_over(alice, call_id)["end_reason"] == "connection_lost"


def test_what_livekit_tells_is_passed_on_once(backend: Backend) -> None:
    with local_engine(webhook_url=backend.url, join_grace=LONG) as engine:
        media = Media(engine)
        for _ in range(3):
            media.tell("participant_joined", "stream", "eve", "PA_1", event_id="EV_same")
        media.tell("track_published", "stream", "eve", "PA_1", track={"type": "VIDEO", "width": 640, "height": 360})
        media.tell("unheard_of", "stream", "eve", "PA_1")
        media.tell("room_finished", "stream")
        until(lambda: len(backend.seen) >= 3)
        assert [each.body for each in backend.seen] == [
            {
                "event": "participant_joined",
                "room": {"name": "stream", "sid": "RM_x", "participant_count": 1},
                "participant": {"identity": "eve", "name": "N"},
            },
            {
                "event": "track_published",
                "room": {"name": "stream", "sid": "RM_x", "participant_count": 1},
                "participant": {"identity": "eve", "name": "N"},
                "track": {"type": "video", "width": 640, "height": 360},
            },
            {"event": "room_finished", "room": {"name": "stream", "sid": "RM_x", "participant_count": 1}},
        ]
