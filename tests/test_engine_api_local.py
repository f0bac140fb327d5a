"""Every route, once there and back, against the local engine as it really runs; and its socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from tests.local.engine.support import Site, running, somebody
from utd_fsm.call_watch import CallWatch
from utd_fsm.credentials import Credentials
from utd_fsm.engine_api import EngineApi
from utd_fsm.errors import (
    UTDConflictError,
    UTDConnectionError,
    UTDEngineError,
    UTDForbiddenError,
    UTDInputError,
    UTDPermissionError,
    UTDStateError,
)
from utd_fsm.incoming import IncomingCalls
from utd_fsm.models import UTDCall, UTDCallStatus, UTDStreamType
from utd_fsm.portal import portal


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def api(site: Site) -> Iterator[EngineApi]:
    client = client_of(site)
    yield client
    client.close()


@pytest.fixture
def alice(api: EngineApi) -> Credentials:
    return api.authenticate(somebody("alice"), name="Alice", device_id="laptop")


@pytest.fixture
def bob(api: EngineApi) -> Credentials:
    return api.authenticate(somebody("bob"), name="Bob", device_id="phone")


def client_of(site: Site) -> EngineApi:
    settings = site.process.settings
    return EngineApi(settings.app_id, settings.app_key, base_url=site.process.base_url)


class Keys:
    """Idempotency keys as a session makes them."""

    def __init__(self) -> None:
        self._uuid, self._n = uuid4(), 0

    def next(self) -> str:
        self._n += 1
        return f"{self._uuid}:{self._n}"


def test_health_and_sessions(api: EngineApi, alice: Credentials) -> None:
    assert api.health()
    assert alice.bearer
    assert alice.ws_url
    assert alice.device_id == "laptop"


def test_a_call_from_its_create_to_its_end(api: EngineApi, alice: Credentials, bob: Credentials) -> None:
    hers, his = Keys(), Keys()
    ticket = api.create_call(
        alice, bob.identity, "video_call", callee_name="Bob", metadata={"order": 17}, key=hers.next()
    )
    call_id = ticket.call.call_id
    assert ticket.call.status is UTDCallStatus.INITIATING
    assert ticket.call.type is UTDStreamType.VIDEO_CALL
    assert ticket.call.metadata == {"order": 17}
    assert (ticket.call.caller_name, ticket.call.callee_name) == ("Alice", "Bob")
    assert ticket.token
    assert ticket.url
    assert api.ring(bob, call_id).status is UTDCallStatus.RINGING
    assert api.ring(bob, call_id).status is UTDCallStatus.RINGING
    accepted = api.accept(bob, call_id, key=his.next())
    assert accepted.call.status is UTDCallStatus.ACTIVE
    assert accepted.call.answered_by == "phone"
    assert api.rejoin(alice, call_id).token
    ended = api.end(alice, call_id, key=hers.next())
    assert (ended.status, ended.end_reason) == (UTDCallStatus.ENDED, "caller_hangup")
    looked = api.call(bob, call_id)
    assert looked == ended
    versions = [ticket.call.version, accepted.call.version, ended.version]
    assert versions == sorted(set(versions), key=lambda version: version or 0)


def test_the_callee_declines_or_is_busy(api: EngineApi, alice: Credentials, bob: Credentials) -> None:
    for verb, status in ((api.reject, UTDCallStatus.REJECTED), (api.busy, UTDCallStatus.BUSY)):
        call_id = api.create_call(alice, bob.identity, "audio_call", key=Keys().next()).call.call_id
        assert verb(bob, call_id, key=Keys().next()).status is status


def test_a_repeat_is_the_same_call_and_an_older_number_is_refused(
    api: EngineApi, alice: Credentials, bob: Credentials
) -> None:
    keys = Keys()
    first = keys.next()
    once = api.create_call(alice, bob.identity, "audio_call", key=first)
    twice = api.create_call(alice, bob.identity, "audio_call", key=first)
    assert once.call.call_id == twice.call.call_id
    api.end(alice, once.call.call_id, key=keys.next())
    with pytest.raises(UTDConflictError) as caught:
        api.create_call(alice, bob.identity, "audio_call", key=first)
    assert caught.value.code == "superseded"
    assert caught.value.state != "busy"


def test_a_key_of_the_applications_own_making(api: EngineApi, alice: Credentials, bob: Credentials) -> None:
    once = api.create_call(alice, bob.identity, "audio_call", key="order 17".replace(" ", "-"))
    twice = api.create_call(alice, bob.identity, "audio_call", key="order-17")
    found = api.call_by_key(alice, "order-17")
    assert found is not None
    assert once.call.call_id == twice.call.call_id == found.call_id
    assert api.call_by_key(bob, "order-17") is None


def test_a_look_seals_what_was_sent_before_it(api: EngineApi, alice: Credentials, bob: Credentials) -> None:
    keys = Keys()
    lost = keys.next()
    assert api.call_by_key(alice, lost) is None
    with pytest.raises(UTDConflictError):  # it arrives at last, and may not count any more
        api.create_call(alice, bob.identity, "audio_call", key=lost)

    call_id = api.create_call(alice, bob.identity, "audio_call", key=keys.next()).call.call_id
    late = keys.next()
    assert api.call(alice, call_id, key=keys.next()).status is UTDCallStatus.INITIATING
    with pytest.raises(UTDConflictError):
        api.end(alice, call_id, key=late)


def test_a_busy_callee(api: EngineApi, alice: Credentials, bob: Credentials) -> None:
    carol = api.authenticate(somebody("carol"))
    api.create_call(alice, bob.identity, "audio_call", key=Keys().next())
    with pytest.raises(UTDConflictError) as caught:
        api.create_call(carol, bob.identity, "audio_call", key=Keys().next())
    assert caught.value.state == "busy"
    with pytest.raises(UTDConflictError) as caught:
        api.create_call(alice, carol.identity, "audio_call", key=Keys().next())
    assert (caught.value.code, caught.value.state) != ("callee_busy", "busy")


def test_lost_races_and_what_is_not_allowed(api: EngineApi, alice: Credentials, bob: Credentials) -> None:
    call_id = api.create_call(alice, bob.identity, "audio_call", key=Keys().next()).call.call_id
    with pytest.raises(UTDForbiddenError) as forbidden:
        api.accept(alice, call_id, key=Keys().next())
    assert isinstance(forbidden.value, UTDPermissionError)
    assert not forbidden.value.is_banned
    api.end(alice, call_id, key=Keys().next())
    with pytest.raises(UTDStateError) as lost:
        api.accept(bob, call_id, key=Keys().next())
    assert lost.value.state == "ended"
    with pytest.raises(UTDEngineError) as unknown:
        api.call(alice, "call_" + "0" * 24)
    assert unknown.value.status_code == 404


def test_two_devices_answer(api: EngineApi, alice: Credentials, bob: Credentials) -> None:
    tablet = api.authenticate(bob.identity, device_id="tablet")
    call_id = api.create_call(alice, bob.identity, "audio_call", key=Keys().next()).call.call_id
    api.accept(bob, call_id, key=Keys().next())
    with pytest.raises(UTDConflictError) as caught:
        api.accept(tablet, call_id, key=Keys().next())
    assert caught.value.state == "active"
    assert api.call(tablet, call_id).answered_by == "phone"


def test_lists(api: EngineApi, alice: Credentials, bob: Credentials) -> None:
    ids = []
    for _ in range(3):
        ids.append(api.create_call(alice, bob.identity, "audio_call", key=Keys().next()).call.call_id)
        api.end(alice, ids[-1], key=Keys().next())
    first = api.calls(alice, status="ended", per_page=2)
    second = api.calls(alice, status="ended", per_page=2, page=2)
    assert (first.total, first.total_pages, first.page) == (3, 2, 1)
    assert {call.call_id for call in (*first.calls, *second.calls)} == set(ids)
    assert api.calls(alice, status="ringing").calls == ()
    assert api.calls(alice, type="video_call").calls == ()
    assert api.calls(bob).total == 3


def test_a_bearer_of_an_engine_that_forgot_is_minted_again(site: Site) -> None:
    with running(app_secret="another backend's secret") as other:
        api = client_of(other)
        alice = api.authenticate(somebody("alice"))
        alice._info = client_of(site).authenticate(somebody("mallory")).info  # signed with another engine's key
        old = alice.bearer
        assert api.calls(alice).total == 0
        assert alice.bearer != old


def test_a_wrong_key_is_refused(site: Site) -> None:
    api = EngineApi(site.process.settings.app_id, "f" * 32, base_url=site.process.base_url)
    with pytest.raises(UTDEngineError) as caught:
        api.authenticate("alice")
    assert caught.value.status_code == 401


def test_a_room_token_is_answered_or_refused_in_the_contracts_words(api: EngineApi, alice: Credentials) -> None:
    try:
        token = api.room_token(alice, "lobby", "audio_room")
    except UTDEngineError as error:
        assert error.status_code in (403, 404, 409, 422)
    else:
        assert token.token
        assert token.url


def test_an_engine_that_is_killed_and_comes_back() -> None:
    with running() as other:
        api = client_of(other)
        alice = api.authenticate(somebody("alice"))
        other.process.stop(hard=True)
        with pytest.raises(UTDConnectionError) as caught:
            api.calls(alice, deadline=1)
        assert caught.value.outcome_known
        assert not api.health()
        other.process.start()
        assert api.calls(alice).total == 0


def test_incoming_by_the_socket_and_a_watch_of_the_call(api: EngineApi, alice: Credentials, bob: Credentials) -> None:
    lease = portal().hold()

    async def here(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await portal().in_thread(partial(fn, *args, **kwargs))

    async def test() -> None:
        incoming = IncomingCalls(portal(), api, bob)
        waiting = asyncio.create_task(incoming.next(60))
        ticket = await here(api.create_call, alice, bob.identity, "audio_call", key=Keys().next())
        heard: list[UTDCall] = []
        watch = CallWatch(portal(), api, alice, ticket.call.call_id, heard.append)
        call = await waiting
        assert call is not None
        assert call.call_id == ticket.call.call_id
        await here(api.accept, bob, call.call_id, key=Keys().next())
        await here(api.end, bob, call.call_id, key=Keys().next())
        async with asyncio.timeout(60):
            while not (heard and heard[-1].status.is_terminal):
                await asyncio.sleep(0.01)
        assert heard[-1].end_reason == "callee_hangup"
        incoming.close()
        watch.close()

    def run(work: Callable[[], Awaitable[None]]) -> None:
        portal().call(work, timeout=100, what="the test")

    try:
        run(test)
    finally:
        lease.release()


def test_what_this_client_refuses_never_reaches_the_engine(api: EngineApi, alice: Credentials) -> None:
    with pytest.raises(UTDInputError):
        api.create_call(alice, "", "audio_call", key=Keys().next())
