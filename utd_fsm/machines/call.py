"""The three machines of a 1:1 call: the engine's record, the caller's view of it, the view of a device of the callee.

Two views, because the parties may ask for different things and because `active` means different things to them: to the
caller it is the answer, to a device of the callee it may be another device's. Declarations only: nothing here does
anything. Rules and tables: the machines' laws; proof: the searches under tests/machines/search.
"""

from __future__ import annotations

from types import MappingProxyType

from statemachine import State

from utd_fsm.machines.base import Machine, event, stay

_RANK = MappingProxyType(
    {"initiating": 1, "ringing": 2, "active": 3, "ended": 4, "rejected": 4, "busy": 4, "missed": 4}
)


class CallRecord(Machine):
    """A call as the engine keeps it: the truth that both views follow.

    One verb is one transaction is one version, committed before anything is answered or published. An event that is
    not declared is a 409 and changes nothing. `active` keeps the device that answered (`answered_by`): without it two
    devices could both believe that they won. Who may send which verb is the engine's to check first; before the
    answer a callee rejects and never ends, as an `end` would kill the call that its other device has just answered.

    `cut`: a party that vanished may still come back, so it cuts only 60 s after the drop, or 20 s after the party
    should have joined; a `participant_left` of LiveKit is never taken for a hang-up (a full reconnect sends one,
    too). Invariants: a finished call stays what it was; at most one device is active, and it is the record's.
    """

    initiating = State("created, no device of the callee rings yet", initial=True)
    ringing = State("a device of the callee rings")
    active = State("answered, by exactly one device")
    ended = State("hung up, cancelled or cut; end_reason tells", final=True)
    rejected = State("the callee declined", final=True)
    busy = State("the callee was on another call", final=True)
    missed = State("nobody answered in time", final=True)

    ring = event(initiating.to(ringing) | stay(ringing), "callee: POST ringing", "a device of the callee rings")
    accept = event(active.from_(initiating, ringing), "callee: POST accept", "this device answers; the first one wins")
    reject = event(rejected.from_(initiating, ringing), "callee: POST reject", "the callee declines")
    say_busy = event(busy.from_(initiating, ringing), "callee: POST busy", "the callee is on another call")
    end = event(ended.from_(initiating, ringing, active), "caller, or the device that answered: POST end",
                "cancelled before the answer, hung up after it")
    ring_timeout = event(missed.from_(initiating, ringing), "timer: ring timeout", "nobody answered in time")
    cut = event(ended.from_(initiating, ringing, active), "engine: a party is gone for good, max duration, shutdown",
                "the engine ends the call; end_reason tells why")

    PUBLIC = MappingProxyType({status: status for status in _RANK})
    RANK = _RANK


class OutgoingCall(Machine):
    """The caller's view of one call. A second call is a second machine.

    On entering: dialing sends POST /calls · withdrawing sends nothing yet, there is no id · ending takes media down
    and sends POST end. `ending` is the one wish that does not fall back: the person is gone, so `lapsed` there means
    "send it again", until a final status comes or nobody could be asked for 60 s. A create without an answer is
    repeated with its key while start() waits, then looked for by key, which seals it: nothing found is idle, found is
    followed.

    Refused locally: dial unless idle; a second wish while one is pending, except hanging up; anything in a final
    state (end() is then a no-op of the session). Public status never runs ahead of the engine: pending states show
    what was shown before. Invariants: a view that heard everything and wishes nothing equals the record; whoever hung
    up is never back in a call.
    """

    idle = State("nothing asked", initial=True)
    dialing = State("create sent; there is no call id yet")
    withdrawing = State("hung up while dialing: ends the call once its id is known")
    initiating = State("the engine has the call")
    ringing = State("the callee's device rings")
    active = State("answered")
    ending = State("end sent, repeated until the engine agrees; media is already down")
    ended = State("hung up, cancelled or cut; end_reason tells", final=True)
    rejected = State("the callee declined", final=True)
    busy = State("the callee is on another call", final=True)
    missed = State("nobody answered in time", final=True)
    lost = State("nobody could be asked for 60 s; what the engine does is its own affair", final=True)

    dial = event(idle.to(dialing), "application: start()", "a call is wished for")
    hang_up = event(dialing.to(withdrawing) | ending.from_(initiating, ringing, active),
                    "application: end(); session: force_exit", "the caller cancels or hangs up")

    saw_initiating = event(initiating.from_(idle, dialing) | withdrawing.to(ending) | stay(initiating, ending),
                           "engine", "the engine has the call")
    saw_ringing = event(ringing.from_(idle, dialing, initiating) | withdrawing.to(ending) | stay(ringing, ending),
                        "engine", "a device of the callee rings")
    saw_active = event(active.from_(idle, dialing, initiating, ringing) | withdrawing.to(ending) | stay(active, ending),
                       "engine", "the callee answered")
    saw_ended = event(ended.from_(idle, dialing, withdrawing, initiating, ringing, active, ending),
                      "engine", "the call is over")
    saw_rejected = event(rejected.from_(idle, dialing, withdrawing, initiating, ringing, ending),
                         "engine", "the callee declined")
    saw_busy = event(busy.from_(idle, dialing, withdrawing, initiating, ringing, ending),
                     "engine: or 409 to the create", "the callee is on another call")
    saw_missed = event(missed.from_(idle, dialing, withdrawing, initiating, ringing, ending),
                       "engine", "nobody answered in time")

    lapsed = event(idle.from_(dialing, withdrawing) | stay(ending), "session: the request is over",
                   "the wish is not there: fall back, or (ending) ask again")
    give_up = event(lost.from_(dialing, withdrawing, ending), "timer: engine out of reach for 60 s", "nobody to ask")

    PENDING = frozenset({"dialing", "withdrawing", "ending"})
    STALE = frozenset({("ringing", "saw_initiating"), ("active", "saw_initiating"), ("active", "saw_ringing"),
                       ("active", "saw_rejected"), ("active", "saw_busy"), ("active", "saw_missed")})
    PUBLIC = MappingProxyType({"idle": None, **CallRecord.PUBLIC, "lost": "ended"})
    RANK = _RANK


class IncomingCall(Machine):
    """The view of one device of the callee. Another device of the same person has its own.

    On entering: accepting sends POST accept · ending takes media down and sends POST end if the known status is active,
    else reject or busy: before the answer a callee never sends end. `ending` does not fall back, as in `OutgoingCall`.
    POST ringing has no pending state: nothing that is legal changes while it is under way.

    Refused locally: accept and decline unless offered, or known by its id; decline once active; a second wish while
    one is pending, except declining and hanging up; anything in a final state (end() is then a no-op of the session).
    `elsewhere` and `lost` show ended, with end_reason answered_elsewhere and unreachable. Invariants as for the
    caller; never two devices active.
    """

    idle = State("the id is known, nothing else", initial=True)
    initiating = State("offered")
    ringing = State("offered, and the caller knows that it rings")
    accepting = State("accept sent")
    active = State("this device answered")
    ending = State("reject, busy or end sent, repeated until the engine agrees; media is down")
    ended = State("hung up, cancelled or cut; end_reason tells", final=True)
    rejected = State("declined", final=True)
    busy = State("declined as busy", final=True)
    missed = State("nobody answered in time", final=True)
    elsewhere = State("another device of the callee answered", final=True)
    lost = State("nobody could be asked for 60 s", final=True)

    accept = event(accepting.from_(idle, initiating, ringing), "application: accept()", "the callee wants to answer")
    decline = event(ending.from_(idle, initiating, ringing, accepting), "application: reject(), busy()",
                    "the callee does not want to")
    hang_up = event(ending.from_(initiating, ringing, accepting, active), "application: end(); session: force_exit",
                    "the callee hangs up")

    saw_initiating = event(idle.to(initiating) | stay(initiating, accepting, ending), "engine", "the call is offered")
    saw_ringing = event(ringing.from_(idle, initiating) | stay(ringing, accepting, ending), "engine",
                        "the caller knows that it rings")
    saw_active = event(active.from_(idle, initiating, ringing, accepting) | stay(active, ending), "engine",
                       "answered by this device")
    saw_elsewhere = event(elsewhere.from_(idle, initiating, ringing, accepting, ending), "engine",
                          "answered by another device")
    saw_ended = event(ended.from_(idle, initiating, ringing, accepting, active, ending), "engine", "the call is over")
    saw_rejected = event(rejected.from_(idle, initiating, ringing, accepting, ending), "engine", "declined")
    saw_busy = event(busy.from_(idle, initiating, ringing, accepting, ending), "engine", "declined as busy")
    saw_missed = event(missed.from_(idle, initiating, ringing, accepting, ending), "engine", "nobody answered in time")

    lapsed = event(accepting.to(idle) | stay(ending), "session: the request is over",
                   "the wish is not there: fall back, or (ending) ask again")
    give_up = event(lost.from_(accepting, ending), "timer: engine out of reach for 60 s", "nobody to ask")

    PENDING = frozenset({"accepting", "ending"})
    STALE = frozenset({("ringing", "saw_initiating"), ("active", "saw_initiating"), ("active", "saw_ringing"),
                       ("active", "saw_elsewhere"), ("active", "saw_rejected"), ("active", "saw_busy"),
                       ("active", "saw_missed")})
    PUBLIC = MappingProxyType({**OutgoingCall.PUBLIC, "elsewhere": "ended"})
    RANK = MappingProxyType({**_RANK, "elsewhere": 3})  # the record is active there, by another device
