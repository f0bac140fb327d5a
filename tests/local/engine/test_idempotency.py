"""Requests in order, each applied once: a repeat has the first answer, a lower one is superseded, a look seals."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from utd_fsm import wire

from .support import Site, User


def machine() -> str:
    return str(uuid.uuid4())


def refused(user: User, route: str, call_id: str, key: str) -> tuple[int, str]:
    answer = user.do(route, call_id, key=key)
    return answer.status_code, answer.json().get("code")


def test_a_repeat_gets_the_first_answer_and_makes_no_second_call(site: Site) -> None:
    alice, bob = site.pair()
    key = machine() + ":0"
    first = alice.create(bob.identity, key=key)
    assert first.status_code == 201
    alice.do(wire.CALL_END, first.json()["call_id"])
    again = alice.create(bob.identity, key=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert len(alice.ask("GET", wire.CALLS).json()["data"]) == 1


def test_many_repeats_at_once_are_one_request(site: Site) -> None:
    alice, bob = site.pair()
    key = machine() + ":3"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: alice.create(bob.identity, key=key).json(), range(24)))
    assert len({a["call_id"] for a in answers}) == 1
    assert len({a["token"] for a in answers}) == 1


def test_an_accept_repeated_by_its_device_is_answered_again(site: Site) -> None:
    alice, bob = site.pair()
    call_id = alice.call(bob)
    key = machine() + ":1"
    first = bob.do(wire.CALL_ACCEPT, call_id, key=key, device_id="phone")
    again = bob.do(wire.CALL_ACCEPT, call_id, key=key, device_id="phone")
    assert (again.status_code, again.json()) == (200, first.json())
    assert refused(bob, wire.CALL_ACCEPT, call_id, machine() + ":1") == (409, wire.ANSWERED_ELSEWHERE)


def test_a_refusal_is_repeated_as_it_was(site: Site) -> None:
    alice, bob = site.pair()
    third = site.user()
    call_id = alice.call(bob)
    key = machine() + ":1"
    first = third.create(bob.identity, key=key)
    assert first.status_code == 409
    alice.do(wire.CALL_END, call_id)
    again = third.create(bob.identity, key=key)
    assert (again.status_code, again.json()) == (409, first.json())


def test_a_lower_number_is_superseded_and_not_applied(site: Site) -> None:
    alice, bob = site.pair()
    call_id = alice.call(bob)
    mine = machine()
    assert bob.do(wire.CALL_RINGING, call_id, key=mine + ":5").status_code == 200
    assert refused(bob, wire.CALL_ACCEPT, call_id, mine + ":4") == (409, wire.SUPERSEDED)
    assert alice.status(call_id) == "ringing"
    assert bob.do(wire.CALL_ACCEPT, call_id, key=mine + ":6").status_code == 200


def test_one_number_is_one_request(site: Site) -> None:
    alice, bob = site.pair()
    call_id = alice.call(bob)
    key = machine() + ":1"
    assert bob.do(wire.CALL_RINGING, call_id, key=key).status_code == 200
    assert refused(bob, wire.CALL_REJECT, call_id, key) == (422, "key_reused")
    assert alice.status(call_id) == "ringing"


def test_a_key_is_its_identitys_own(site: Site) -> None:
    alice, bob = site.pair()
    key = machine() + ":1"
    first = alice.create(bob.identity, key=key).json()
    assert bob.create(alice.identity, key=key).json().get("token") is None
    third = site.user()
    other = third.create(site.user().identity, key=key)
    assert other.status_code == 201
    assert other.json()["call_id"] != first["call_id"]
    assert third.ask("GET", wire.CALLS, params={"key": key}).json()["data"][0]["call_id"] == other.json()["call_id"]


@pytest.mark.parametrize("path", [wire.CALLS, wire.CALL])
def test_a_look_seals_what_was_sent_before_it(site: Site, path: str) -> None:
    alice, bob = site.pair()
    call_id = alice.call(bob)
    mine = machine()
    look = bob.ask("GET", path.replace("{id}", call_id), key=mine + ":7")
    assert look.status_code == 200
    assert refused(bob, wire.CALL_ACCEPT, call_id, mine + ":6") == (409, wire.SUPERSEDED)
    assert refused(bob, wire.CALL_ACCEPT, call_id, mine + ":7") == (409, wire.SUPERSEDED)
    assert alice.status(call_id) == "initiating"
    assert bob.do(wire.CALL_ACCEPT, call_id, key=mine + ":8").status_code == 200


def test_a_create_whose_answer_was_lost_is_found_by_its_key(site: Site) -> None:
    alice, bob = site.pair()
    key = machine() + ":1"
    call_id = alice.call(bob, key=key)
    found = wire.read_call_page(alice.ask("GET", wire.CALLS, params={"key": key}).json(), "list")
    assert [call.call_id for call in found.calls] == [call_id]
    assert found.total == 1
    # the look has not sealed what was applied: its answer is still there
    assert alice.create(bob.identity, key=key).json()["call_id"] == call_id


def test_a_create_that_never_came_is_sealed_by_looking_for_it(site: Site) -> None:
    alice, bob = site.pair()
    key = machine() + ":1"
    assert alice.ask("GET", wire.CALLS, params={"key": key}).json()["data"] == []
    late = alice.create(bob.identity, key=key)
    assert (late.status_code, late.json()["code"]) == (409, wire.SUPERSEDED)
    assert alice.ask("GET", wire.CALLS).json()["data"] == []


@pytest.mark.parametrize("key", ["x", "1", "abc:1", *(f"{uuid.UUID(int=7)}{n}" for n in ("", ":-1", ":1x"))])
def test_a_malformed_key_is_refused(site: Site, key: str) -> None:
    alice, bob = site.pair()
    assert alice.create(bob.identity, key=key).status_code == 422
    assert alice.ask("GET", wire.CALLS, params={"key": key}).status_code == 422
