"""Whatever JSON an engine answers, on whatever route: a typed value or a protocol error that names the route."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine_answers import api_for, engine, page, record
from tests.http_stub import HttpStub, Reply, http_stub
from tests.room_answers import ROUTES as ROOM_ROUTES
from tests.test_engine_api import ROUTES
from utd_fsm.engine_api import Credentials, EngineApi
from utd_fsm.errors import UTDEngineError, UTDProtocolError, UTDStreamException

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 0.5, 1e308, "", "call_", "active", "voice", "2026-11-23", "\ud800"])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*path, index))


@st.composite
def spoilt(draw: st.DrawFn, good: Any) -> Any:
    """A good answer with one to three of its parts replaced or taken out."""
    answer: Any = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(_places(answer))))
        new = draw(JSON)
        if not place:
            return new
        holder: Any = answer
        for step in place[:-1]:
            holder = holder[step]
        if isinstance(holder, dict) and draw(st.booleans()):
            del holder[place[-1]]
        else:
            holder[place[-1]] = new
    return answer


@pytest.fixture(scope="module")
def stub() -> Iterator[HttpStub]:
    with http_stub(engine(Reply(500))) as server:
        yield server


@pytest.fixture(scope="module")
def signed_in(stub: HttpStub) -> tuple[EngineApi, Credentials]:
    api = api_for(stub.url)
    return api, api.authenticate("alice")


QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", ROUTES)
@QUICK
@given(data=st.data())
def test_a_success(name: str, stub: HttpStub, signed_in: tuple[EngineApi, Credentials], data: st.DataObject) -> None:
    ask, _, good = ROUTES[name]
    answer = data.draw(st.one_of(JSON, spoilt(good)))
    stub.answer = lambda seen: Reply(json=answer)
    try:
        ask(*signed_in)
    except UTDProtocolError as error:
        assert error.route
        assert error.field
        assert error.message.isprintable()
        str(error).encode()


@pytest.mark.parametrize("name", ROOM_ROUTES)
@settings(QUICK, max_examples=30)
@given(data=st.data())
def test_a_success_about_a_room(
    name: str, stub: HttpStub, signed_in: tuple[EngineApi, Credentials], data: st.DataObject
) -> None:
    route = ROOM_ROUTES[name]
    answer = data.draw(st.one_of(JSON, spoilt(route.answer)))
    stub.answer = lambda seen: Reply(json=answer)
    try:
        route.ask(*signed_in)
    except UTDProtocolError as error:
        assert error.route
        assert error.field
        assert error.message.isprintable()
        str(error).encode()


@pytest.mark.parametrize("name", ["take", "kick", "remove_participant", "set_role", "seats"])
@settings(QUICK, max_examples=30)
@given(status=st.sampled_from([400, 403, 404, 409, 422, 500]), answer=JSON)
def test_a_refusal_about_a_room(
    name: str, stub: HttpStub, signed_in: tuple[EngineApi, Credentials], status: int, answer: Any
) -> None:
    stub.answer = lambda seen: Reply(status, json=answer)
    with pytest.raises(UTDEngineError) as caught:
        ROOM_ROUTES[name].ask(*signed_in)
    assert caught.value.status_code == status
    assert str(caught.value).isprintable()
    for detail, value in caught.value.details.items():
        assert isinstance(detail, str)
        assert value is None or isinstance(value, (str, int, float))
    again = pickle.loads(pickle.dumps(caught.value))
    assert dict(again.details) == dict(caught.value.details)


@pytest.mark.parametrize("name", ["create", "call", "calls"])
@QUICK
@given(status=st.sampled_from([400, 403, 404, 409, 422, 500]), answer=JSON)
def test_a_refusal(
    name: str, stub: HttpStub, signed_in: tuple[EngineApi, Credentials], status: int, answer: Any
) -> None:
    stub.answer = lambda seen: Reply(status, json=answer)
    with pytest.raises(UTDEngineError) as caught:
        ROUTES[name][0](*signed_in)
    assert caught.value.status_code == status
    assert str(caught.value).isprintable()


@QUICK
@given(body=st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_bytes(stub: HttpStub, signed_in: tuple[EngineApi, Credentials], body: bytes) -> None:
    stub.answer = lambda seen: Reply(body=body)
    with pytest.raises(UTDProtocolError) as caught:
        ROUTES["call"][0](*signed_in)
    assert caught.value.route == "GET /calls/:id"


@QUICK
@given(answer=JSON)
def test_a_session(stub: HttpStub, signed_in: tuple[EngineApi, Credentials], answer: Any) -> None:
    stub.answer = lambda seen: Reply(json=answer)
    try:
        signed_in[0].authenticate("alice")
    except UTDStreamException as error:
        assert isinstance(error, UTDProtocolError)
        assert error.route == "POST /auth/session"


@QUICK
@given(rows=st.lists(spoilt(record()), max_size=3))
def test_a_page(stub: HttpStub, signed_in: tuple[EngineApi, Credentials], rows: list[Any]) -> None:
    stub.answer = lambda seen: Reply(json={**page(), "data": rows})
    try:
        calls = signed_in[0].calls(signed_in[1])
    except UTDProtocolError as error:
        assert error.route == "GET /calls"
    else:
        assert len(calls.calls) == len(rows)
