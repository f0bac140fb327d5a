"""The rules of a call, tried in every state by every party against a table written by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from utd_fsm.local.engine.calls import Calls, Stepped
from utd_fsm.local.engine.refusal import Refused
from utd_fsm.local.engine.store import Store
from utd_fsm.models import UTDCall, UTDCallStatus, UTDStreamType

OPEN = ("initiating", "ringing", "active")
DONE = ("ended", "rejected", "busy", "missed")
VERBS = ("ring", "accept", "reject", "say_busy", "end", "ring_timeout", "cut")
ACTORS = ("caller", "phone", "tablet", "stranger")  # phone and tablet are two devices of the callee; phone answers


@pytest.fixture
def store() -> Iterator[Store]:
    one = Store(":memory:")
    yield one
    one.close()


def make(calls: Calls, caller: str = "ann", callee: str = "bob") -> UTDCall:
    return calls.create(
        caller=caller, callee=callee, type=UTDStreamType.AUDIO_CALL, caller_name=None, callee_name=None, metadata={},
        key=None,
    )  # fmt: skip


def bring(calls: Calls, state: str) -> str:
    """A call in this state, the usual way."""
    call_id = make(calls).call_id
    path: dict[str, list[Callable[[], object]]] = {
        "initiating": [],
        "ringing": [lambda: calls.ring(call_id, "bob")],
        "active": [lambda: calls.accept(call_id, "bob", "phone")],
        "ended": [lambda: calls.end(call_id, "ann", None)],
        "rejected": [lambda: calls.reject(call_id, "bob")],
        "busy": [lambda: calls.say_busy(call_id, "bob")],
        "missed": [lambda: calls.ring_timeout(call_id)],
    }
    for step in path[state]:
        step()
    assert calls.get(call_id).status == state
    return call_id


def send(calls: Calls, call_id: str, verb: str, actor: str) -> Stepped | None:
    identity = {"caller": "ann", "stranger": "eve"}.get(actor, "bob")
    device = actor if identity == "bob" else None
    if verb == "accept":
        return calls.accept(call_id, identity, device)
    if verb == "end":
        return calls.end(call_id, identity, device)
    if verb == "ring_timeout":
        return calls.ring_timeout(call_id)
    if verb == "cut":
        return calls.cut(call_id, "connection_lost")
    return {"ring": calls.ring, "reject": calls.reject, "say_busy": calls.say_busy}[verb](call_id, identity)


def expected(state: str, verb: str, actor: str) -> str | int | None:
    """The next state, a refusal's status, or None for "nothing happens"."""
    if verb == "ring_timeout":
        return "missed" if state in ("initiating", "ringing") else None
    if verb == "cut":
        return "ended" if state in OPEN else None
    if actor == "stranger":
        return 403
    if verb == "end":
        if state in DONE:
            return 409
        if actor == "caller":
            return "ended"
        return "ended" if state == "active" and actor == "phone" else 409
    if actor == "caller":
        return 403
    if state not in ("initiating", "ringing"):
        return 409
    return {"ring": "ringing", "accept": "active", "reject": "rejected", "say_busy": "busy"}[verb]


@pytest.mark.parametrize(("state", "verb", "actor"), list(itertools.product(OPEN + DONE, VERBS, ACTORS)))
def test_every_verb_in_every_state_by_everybody(store: Store, state: str, verb: str, actor: str) -> None:
    calls = Calls(store)
    call_id = bring(calls, state)
    before = calls.get(call_id)
    want = expected(state, verb, actor)
    if isinstance(want, int):
        with pytest.raises(Refused) as refusal:
            send(calls, call_id, verb, actor)
        assert refusal.value.status == want
        if want == 409:
            assert refusal.value.state == state
        assert calls.get(call_id) == before
        return
    stepped = send(calls, call_id, verb, actor)
    after = calls.get(call_id)
    if want is None:
        assert stepped is None
        assert after == before
        return
    assert stepped is not None
    assert after.status == want
    assert stepped.call == after
    changed = want != state
    assert stepped.changed is changed
    assert before.version is not None
    assert after.version == before.version + changed


def test_reasons_and_times_tell_what_happened(store: Store) -> None:
    calls = Calls(store)
    assert calls.end(bring(calls, "initiating"), "ann", None).call.end_reason == "caller_cancelled"
    assert calls.end(bring(calls, "active"), "ann", None).call.end_reason == "caller_hangup"
    call = calls.end(bring(calls, "active"), "bob", "phone").call
    assert call.end_reason == "callee_hangup"
    assert call.answered_by == "phone"
    assert call.duration is not None
    assert call.ended_at is not None
    assert call.answered_at is not None
    missed = calls.get(bring(calls, "missed"))
    assert missed.end_reason is None
    assert missed.ended_at is not None
    assert missed.duration == 0


def test_one_identity_holds_one_call(store: Store) -> None:
    calls = Calls(store)
    make(calls, "ann", "bob")
    for caller, callee, code in (("eve", "bob", "callee_busy"), ("eve", "ann", "callee_busy"),
                                 ("ann", "eve", "caller_busy"), ("bob", "eve", "caller_busy")):  # fmt: skip
        with pytest.raises(Refused) as refusal:
            make(calls, caller, callee)
        assert (refusal.value.status, refusal.value.code) == (409, code)
    assert len(store.open_calls()) == 1
    with pytest.raises(Refused, match="oneself"):
        make(calls, "eve", "eve")


@pytest.mark.parametrize(
    ("state", "actor", "status"),
    [
        ("initiating", "caller", None),
        ("active", "caller", None),
        ("active", "phone", None),
        ("active", "tablet", 409),
        ("ringing", "phone", 409),
        ("ended", "caller", 409),
        ("missed", "phone", 409),
        ("active", "stranger", 403),
    ],
)
def test_who_may_come_back_into_the_room(store: Store, state: str, actor: str, status: int | None) -> None:
    calls = Calls(store)
    call_id = bring(calls, state)
    identity = {"caller": "ann", "stranger": "eve"}.get(actor, "bob")
    if status is None:
        assert calls.may_rejoin(call_id, identity, actor).call_id == call_id
    else:
        with pytest.raises(Refused) as refusal:
            calls.may_rejoin(call_id, identity, actor)
        assert refusal.value.status == status


def test_a_record_reads_back_as_it_was_written(store: Store) -> None:
    calls = Calls(store)
    call_id = bring(calls, "active")
    first = calls.get(call_id)
    with store.transaction():
        store.save_step(first)
    assert calls.get(call_id) == first
    assert first.status is UTDCallStatus.ACTIVE


def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    calls = Calls(store)
    with pytest.raises(ZeroDivisionError), store.transaction():
        make(calls)
        _ = 1 / 0
    assert store.open_calls() == []
