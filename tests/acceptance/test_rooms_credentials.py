"""behaviour.md, Client, for streams and audio rooms: whose bearer goes where, and what happens when it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.bad_engine import bad_engine
from tests.http_stub import Reply
from tests.integration.calling import WAIT, fresh
from tests.integration.gate_proxy import GateProxy
from tests.integration.room_scenes import Asker, audio_room, live_stream
from utd_fsm import UTDEngineError, UTDStreamClient
from utd_fsm.testing import LocalEngine, local_engine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]


def test_the_two_hosts(engine: LocalEngine, way: Way) -> None:
    """The way in comes from the token host; everything in a room goes to the engine's."""
    engines, tokens = way(), way()
    with UTDStreamClient(engine.app_id, engine.app_key, base_url=engines.url, token_base_url=tokens.url) as client:
        host = client.join_audio_room(fresh("host"), fresh("lobby"), True, seat_count=3)
        host.take_seat(0)
        host.lock_seat(1)
        host.get_seats()
        host.bans()
        host.leave()
        host.join()
        assert {one.path for one in tokens.state.seen} == {"/token"}
        assert engines.state.seen
        assert all(one.path.startswith("/rooms/") for one in engines.state.seen)


def test_a_401_mints_the_bearer_again_once(engine: LocalEngine) -> None:
    with bad_engine(engine) as bad, UTDStreamClient(engine.app_id, engine.app_key, base_url=bad.url) as client:
        room = client.join_audio_room(fresh("host"), fresh("lobby"), True, seat_count=3)
        for method, path, act in (
            ("POST", "/rooms/*/seats/0/take", lambda: room.take_seat(0)),
            ("GET", "/rooms/*/seats", lambda: room.get_seats()),
            ("POST", "/rooms/*/seats/1/lock", lambda: room.lock_seat(1)),
        ):
            refusals = [Reply(status=401, json={"message": "expired", "code": "token_expired"})]

            def once(_: bytes, left: list[Reply] = refusals, method: str = method, path: str = path) -> Reply:
                reply = left.pop()
                bad.mend()
                return reply

            minted = bad.paths().count("POST /auth/session")
            bad.spoil(method, path, once)
            act()
            assert bad.paths().count("POST /auth/session") == minted + 1
        for method in ("GET", "POST"):
            bad.spoil(method, "/rooms/*", Reply(status=401, json={"message": "expired"}))
        minted = bad.paths().count("POST /auth/session")
        with pytest.raises(UTDEngineError) as refused:
            room.lock_seat(2)
        assert refused.value.status_code == 401
        assert bad.paths().count("POST /auth/session") == minted + 1
        bad.mend()
        assert room.seats.value.seats[0].occupant == client.identity


def test_a_session_keeps_its_identity(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene:
        client, who = scene.clients["vera"], scene.id("vera")
        assert client.identity == who  # a client where nobody was signed in becomes who joined
        client.authenticate(other := fresh("other"))
        assert client.identity == other
        scene["vera"].request_stage()
        assert [hand.identity for hand in scene["host"].hands.wait_for(lambda hands: hands, timeout=WAIT)] == [who]
        scene["vera"].leave()
        scene["vera"].join()
        assert scene["vera"].local_participant is not None
        assert scene["vera"].local_participant.identity == who
        second = client.join_live_stream(fresh("third"), scene.room)
        assert client.identity == other  # who is signed in stays as it was
        second.leave()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "stage/request", {}),
        ("DELETE", "stage/request", {}),
        ("POST", "stage/leave", {}),
        ("POST", "stage/add", {"target_identity": "x"}),
        ("POST", "stage/remove", {"target_identity": "x"}),
        ("POST", "live/start", {}),
        ("POST", "live/end", {}),
        ("PUT", "comments", {"locked": True}),
        ("DELETE", "participants/x", {}),
        ("PUT", "participants/x/mute", {"audio": True, "video": False, "muted": True}),
    ],
)
def test_anothers_identity_is_refused(engine: LocalEngine, method: str, path: str, body: dict[str, object]) -> None:
    with live_stream(engine) as scene:
        thief = Asker(engine)
        status, answer = thief.ask(method, f"/rooms/{scene.room}/{path}", {"identity": scene.id("host"), **body})
        assert (status, answer["code"]) == (403, "wrong_identity")
        assert scene["host"].broadcast.value == "live"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "seats/setup", {"seat_count": 1, "seat_mode": "free"}),
        ("POST", "seats/0/take", {}),
        ("POST", "seats/leave", {}),
        ("POST", "seats/move", {"target_seat": 1}),
        *(("POST", f"seats/0/{verb}", {}) for verb in ("kick", "lock", "unlock", "mute", "unmute")),
        ("POST", "seats/swap", {"a": 0, "b": 1}),
        ("PUT", "seats/mute-all", {"muted": True}),
        ("POST", "speakers/request", {}),
        ("DELETE", "speakers/request", {}),
        ("POST", "speakers/requests/1/approve", {}),
        ("POST", "speakers/requests/1/reject", {}),
        ("POST", "speakers/invite", {"target_identity": "x"}),
        ("POST", "speakers/invitations/1/accept", {}),
        ("POST", "speakers/invitations/1/decline", {}),
        ("PUT", "participants/x/role", {"actor_identity": "HOST", "role": "admin"}),
    ],
)
def test_anothers_identity_is_refused_in_rooms(
    engine: LocalEngine, method: str, path: str, body: dict[str, object]
) -> None:
    with audio_room(engine) as scene:
        scene["host"].take_seat(0)
        thief, before = Asker(engine), scene.eye.seats(scene.room)
        content = {"identity": scene.id("host"), **body}
        if "actor_identity" in body:
            content["actor_identity"] = scene.id("host")
        status, answer = thief.ask(method, f"/rooms/{scene.room}/{path}", content)
        assert (status, answer["code"]) == (403, "wrong_identity")
        assert scene.eye.seats(scene.room) == before


def test_video_effects_are_what_the_engine_says() -> None:
    with local_engine(video_effects=True) as entitling, entitling.client() as client:
        assert client.join_live_stream(fresh("vera"), fresh("show")).video_effects_entitled is True
        assert client.join_audio_room(fresh("vera"), fresh("lobby")).video_effects_entitled is True
