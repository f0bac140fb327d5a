"""The fold and the end of a request: what a view is, whatever is heard, in whatever order, however often."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.machines.search.call import VIEW, Call
from tests.machines.search.call_engine import History, Party, World
from tests.machines.search.model import MACHINES, explore
from utd_fsm.errors import UTDInputError, UTDProtocolError
from utd_fsm.machines import CallRecord, Connection, IncomingCall, Machine, OutgoingCall, Runner, events, start
from utd_fsm.models import UTDCall, UTDCallStatus, UTDStreamType
from utd_fsm.observe import (
    Contradiction,
    Order,
    Snapshot,
    event_of,
    fold,
    is_newer,
    request_over,
    snapshot_of,
)

HERE, OTHER = "device-here", "device-other"
FINISHED = {"ended", "rejected", "busy", "missed"}


def call_record(status: str, *, answered_by: str | None = None, version: int | None = None) -> UTDCall:
    return UTDCall(
        call_id="call_" + "0" * 24,
        type=UTDStreamType.AUDIO_CALL,
        status=UTDCallStatus(status),
        caller_identity="alice",
        callee_identity="bob",
        answered_by=answered_by,
        version=version,
    )


# --- the fold


def test_what_is_not_newer_changes_nothing() -> None:
    view = start(OutgoingCall)
    known = fold(view, None, Snapshot(3, "ringing"))
    assert (view.state, known) == ("ringing", Snapshot(3, "ringing"))
    for late in (Snapshot(1, "initiating"), Snapshot(3, "ringing"), Snapshot(3, "active"), Snapshot(2, "active")):
        assert fold(view, known, late) == known
        assert view.state == "ringing"


def test_news_that_changes_nothing_is_remembered() -> None:
    view = start(OutgoingCall)
    known = fold(view, None, Snapshot(3, "ringing"))
    assert fold(view, known, Snapshot(4, "ringing")) == Snapshot(4, "ringing")
    assert view.state == "ringing"


def test_a_final_state_absorbs_everything() -> None:
    view = start(OutgoingCall)
    known = fold(view, None, Snapshot(3, "missed"))
    assert fold(view, known, Snapshot(9, "active")) == known
    assert fold(view, known, Snapshot(9, "no such standing")) == known
    assert view.state == "missed"


@pytest.mark.parametrize(
    ("cls", "state", "standing"),
    [
        (cls, state, seen.removeprefix("saw_"))
        for cls in (OutgoingCall, IncomingCall)
        for state, seen in sorted(cls.STALE)
    ],
)
def test_what_cannot_be_news_and_claims_to_be_is_a_contradiction(cls: type[Machine], state: str, standing: str) -> None:
    view, known = start(cls, state), Snapshot(5, state)
    assert fold(view, known, Snapshot(4, standing)) == known
    with pytest.raises(Contradiction, match="look at the engine again") as raised:
        fold(view, known, Snapshot(6, standing))
    assert view.state == state
    assert isinstance(raised.value, UTDProtocolError)
    assert pickle.loads(pickle.dumps(raised.value)).field == "status"


def test_a_standing_nobody_knows_is_a_malformed_answer() -> None:
    for standing in ("idle", "dialing", "lost", "elsewhere", "Ringing", "", "ringing.now"):
        view = start(OutgoingCall)
        with pytest.raises(UTDProtocolError, match="knows no standing") as raised:
            fold(view, None, Snapshot(1, standing))
        assert not isinstance(raised.value, Contradiction)
        assert view.state == "idle"


def test_calls_without_versions_are_ordered_by_the_rank_of_their_status() -> None:
    view = start(IncomingCall)
    order = ["initiating", "ringing", "active", "ended"]
    for i, newer in enumerate(order):
        for older in order[:i]:
            assert is_newer(view, Snapshot(None, newer), Snapshot(None, older))
            assert is_newer(view, Snapshot(7, newer), Snapshot(None, older))
            assert not is_newer(view, Snapshot(None, older), Snapshot(9, newer))
        assert not is_newer(view, Snapshot(None, newer), Snapshot(None, newer))


def test_a_version_outranks_the_rank() -> None:
    view = start(IncomingCall)
    assert is_newer(view, Snapshot(2, "ringing"), Snapshot(1, "active"))
    assert not is_newer(view, Snapshot(1, "ended"), Snapshot(2, "active"))


def test_what_has_neither_version_nor_rank_cannot_be_ordered() -> None:
    view, known = start(Connection, "connected"), Snapshot(None, "joined")
    with pytest.raises(UTDProtocolError, match="came without a version"):
        fold(view, known, Snapshot(None, "dropped"))
    assert view.state == "connected"


# --- the end of a request


def test_a_request_whose_answer_shows_the_wish_is_simply_over() -> None:
    view = start(IncomingCall)
    known = fold(view, None, Snapshot(2, "ringing"))
    view.send("accept")
    assert request_over(view, known, Snapshot(3, "active")) == Snapshot(3, "active")
    assert view.state == "active"


def test_a_refused_wish_falls_back_to_the_newest_standing() -> None:
    view = start(IncomingCall)
    known = fold(view, None, Snapshot(2, "ringing"))
    view.send("accept")
    assert request_over(view, known, None) == known
    assert (view.state, view.public) == ("ringing", "ringing")


def test_an_answer_that_comes_late_still_ends_its_request() -> None:
    view = start(IncomingCall)
    known = fold(view, None, Snapshot(1, "initiating"))
    view.send("accept")
    known = fold(view, known, Snapshot(2, "ringing"))
    assert view.state == "accepting"
    assert request_over(view, known, Snapshot(1, "initiating")) == known
    assert view.state == "ringing"


def test_a_create_that_came_to_nothing_leaves_nothing() -> None:
    view = start(OutgoingCall)
    view.send("dial")
    assert request_over(view, None, None) is None
    assert (view.state, view.public) == ("idle", None)


def test_whoever_hung_up_is_never_back_in_the_call() -> None:
    view = start(OutgoingCall)
    known = fold(view, None, Snapshot(3, "active"))
    view.send("hang_up")
    assert request_over(view, known, Snapshot(3, "active")) == known
    assert (view.state, view.public) == ("ending", "active")
    request_over(view, known, Snapshot(4, "ended"))
    assert (view.state, view.public) == ("ended", "ended")


def test_a_call_withdrawn_before_its_id_is_known_is_ended_once_it_is() -> None:
    view = start(OutgoingCall)
    view.send("dial")
    view.send("hang_up")
    assert view.state == "withdrawing"
    known = request_over(view, None, Snapshot(1, "initiating"))
    assert (view.state, known) == ("ending", Snapshot(1, "initiating"))


# --- records as snapshots


@pytest.mark.parametrize("status", list(UTDCallStatus))
def test_to_the_caller_a_status_is_what_it_says(status: UTDCallStatus) -> None:
    assert event_of(call_record(status, answered_by=OTHER), HERE, "caller") == f"saw_{status.value}"


@pytest.mark.parametrize("status", list(UTDCallStatus))
def test_to_a_device_of_the_callee_active_may_be_elsewhere(status: UTDCallStatus) -> None:
    active = status is UTDCallStatus.ACTIVE
    assert event_of(call_record(status, answered_by=HERE), HERE, "callee") == f"saw_{status.value}"
    assert event_of(call_record(status, answered_by=OTHER), HERE, "callee") == (
        "saw_elsewhere" if active else f"saw_{status.value}"
    )


def test_without_a_named_device_only_the_yes_to_our_own_accept_makes_it_ours() -> None:
    nameless = call_record("active")
    assert event_of(nameless, HERE, "callee") == "saw_elsewhere"
    assert event_of(nameless, HERE, "callee", won=True) == "saw_active"
    assert event_of(call_record("active", answered_by=OTHER), HERE, "callee", won=True) == "saw_elsewhere"


def test_a_record_becomes_a_snapshot_with_its_version() -> None:
    record = call_record("active", answered_by=OTHER, version=7)
    assert snapshot_of(record, HERE, "callee") == Snapshot(7, "elsewhere")
    assert snapshot_of(record, HERE, "caller") == Snapshot(7, "active")


# --- the order


def test_requests_of_one_machine_are_numbered() -> None:
    order = Order()
    assert order.last is None
    keys = [order.next() for _ in range(3)]
    assert [Order.parse(key) for key in keys] == [(order.name, 1), (order.name, 2), (order.name, 3)]
    assert order.last == keys[-1] == order.last
    assert Order().name != order.name


def test_an_applications_own_key_is_a_name() -> None:
    order = Order("task:17")
    assert Order.parse(order.next()) == ("task:17", 1)


@pytest.mark.parametrize("name", ["", "two words", "line\nbreak", "ключ", "x" * 201, "\x00"])
def test_a_key_that_cannot_stand_in_a_header_is_refused(name: str) -> None:
    with pytest.raises(UTDInputError, match="1 to 200 visible ASCII"):
        Order(name)


@pytest.mark.parametrize("key", ["abc", "", ":1", "abc:", "abc:x", "abc:-1", "abc:01", "abc:٣", "abc:" + "9" * 19])
def test_a_key_without_a_number_is_not_ordered(key: str) -> None:
    assert Order.parse(key) == (key, 0)


# --- the same as in the searches, on real objects


class Shipped(Call):
    """The call product, whose views are compared in every world with the shipped `fold` and `request_over`."""

    compared = 0

    def snapshot(self, history: History, n: int, me: str) -> Snapshot | None:
        if not n:
            return None
        version = None if self.by_rank else history[n - 1].version
        return Snapshot(version, self.observation(history, n, me).removeprefix("saw_"))

    def runner(self, me: str, party: Party) -> Runner[Machine]:
        return start(MACHINES[VIEW[me]], party.state)

    def check(self, s: World) -> None:
        super().check(s)
        for me in self.live:
            party = s.party(me)
            known = self.snapshot(s.history, party.known, me)
            for n in range(len(s.history) + 1):
                heard = self.snapshot(s.history, n, me)
                if heard is not None:
                    view = self.runner(me, party)
                    self._same(view, fold(view, known, heard), self.see(me, party, n, s.history), s.history, me)
                view = self.runner(me, party)
                ended = self.over(me, self.see(me, party, n, s.history) if n else party, s.history)
                self._same(view, request_over(view, known, heard), ended, s.history, me)

    def _same(self, view: Runner[Machine], known: Snapshot | None, party: Party, history: History, me: str) -> None:
        assert view.state == party.state
        assert view.is_final or known == self.snapshot(history, party.known, me)
        Shipped.compared += 1


@pytest.mark.parametrize("by_rank", [False, True], ids=["versions", "rank"])
@pytest.mark.parametrize("live", ["C", "B1"])
def test_the_searches_drive_their_views_as_the_shipped_functions_do(live: str, by_rank: bool) -> None:
    Shipped.compared = 0
    touches = 0 if by_rank else 1  # a version that changes nothing cannot be told without versions
    found = explore(Shipped(live=(live,), by_rank=by_rank, touches=touches))
    assert found.violation is None
    assert Shipped.compared > 4_000


# --- and under anything that hypothesis can think of


class View(RuleBasedStateMachine):
    """A record that goes its way, a view that hears any of it at any time, and a person with at most one wish.

    The oracle: the view is in the pending state of the wish, or in the newest standing it knows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.record = start(CallRecord)
        self.answered_by: str | None = None
        self.version = 1
        self.said: list[UTDCall] = []
        self.view: Runner[Machine] = start(OutgoingCall)
        self.known: Snapshot | None = None
        self.heard: Snapshot | None = None
        self.wish: str | None = None
        self.lost = False
        self.versions = True

    @initialize(caller=st.booleans(), versions=st.booleans())
    def begin(self, caller: bool, versions: bool) -> None:
        self.versions = versions
        self.view = start(OutgoingCall) if caller else start(IncomingCall)
        self.say()

    @property
    def is_caller(self) -> bool:
        return self.view.machine is OutgoingCall

    def say(self) -> None:
        version = self.version if self.versions else None
        self.said.append(call_record(self.record.state, answered_by=self.answered_by, version=version))

    def snapshot(self, record: UTDCall) -> Snapshot:
        return snapshot_of(record, HERE, "caller" if self.is_caller else "callee")

    def takes_in(self, snapshot: Snapshot) -> None:
        """The oracle's own fold: the newest by version, or by rank; nothing after the end."""
        if self.oracle() in FINISHED | {"elsewhere", "lost"}:
            return
        if self.heard is None or self._age(snapshot) > self._age(self.heard):
            self.heard = snapshot
            if self.wish == "call":
                self.wish = None
            if self.wish == "in" and snapshot.standing == "active":
                self.wish = None
            if snapshot.standing in FINISHED | {"elsewhere"}:
                self.wish = None

    def _age(self, snapshot: Snapshot) -> int:
        if snapshot.version is not None:
            return snapshot.version
        return {"initiating": 1, "ringing": 2, "active": 3, "elsewhere": 3}.get(snapshot.standing, 4)

    def oracle(self) -> str:
        if self.lost:
            return "lost"
        if self.wish == "out":
            return "ending" if self.heard or not self.is_caller else "withdrawing"
        standing = self.heard.standing if self.heard else "idle"
        return {"call": "dialing", "in": "accepting"}.get(self.wish or "", standing)

    # the engine

    @rule(event=st.sampled_from(events(CallRecord)), here=st.booleans())
    def engine_goes_on(self, event: str, here: bool) -> None:
        if not self.record.can(event):
            return
        if self.record.send(event).changed:
            self.version += 1
            if event == "accept":
                self.answered_by = HERE if here else OTHER
            self.say()

    @rule()
    def engine_says_the_same_again(self) -> None:
        self.version += 1
        self.say()

    # the network

    @rule(which=st.integers(0, 30))
    def hears(self, which: int) -> None:
        snapshot = self.snapshot(self.said[which % len(self.said)])
        self.takes_in(snapshot)
        self.known = fold(self.view, self.known, snapshot)

    @precondition(lambda self: self.wish is not None)
    @rule(which=st.one_of(st.none(), st.integers(0, 30)))
    def request_is_over(self, which: int | None) -> None:
        snapshot = None if which is None else self.snapshot(self.said[which % len(self.said)])
        if snapshot is not None:
            self.takes_in(snapshot)
        if self.wish in {"call", "in"} or self.oracle() == "withdrawing":
            self.wish = None
        self.known = request_over(self.view, self.known, snapshot)

    # the person

    @rule(wish=st.sampled_from(["dial", "accept", "decline", "hang_up"]))
    def wishes(self, wish: str) -> None:
        if self.view.can(wish):
            self.view.send(wish)
            self.wish = {"dial": "call", "accept": "in"}.get(wish, "out")

    @precondition(lambda self: self.view.can("give_up"))
    @rule()
    def gives_up(self) -> None:
        self.view.send("give_up")
        self.lost = True

    @invariant()
    def is_the_wish_or_the_newest_standing(self) -> None:
        assert self.view.state == self.oracle()
        assert self.known == self.heard

    @invariant()
    def folding_again_changes_nothing(self) -> None:
        if self.known is not None:
            before = (self.view.state, self.view.public)
            assert fold(self.view, self.known, self.known) == self.known
            assert (self.view.state, self.view.public) == before


View.TestCase.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestView = View.TestCase
