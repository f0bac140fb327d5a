"""The three machines of a live stream: the engine's record of a viewer, the viewer's view of it, the stream itself.

The host has no standing of its own that could change, and so no machine: it is on stage, always. What others need to
know of it (there, away for up to 60 s, over) is `Broadcast`. Camera and microphone belong to `Source`, which follows
the grant: roster and grant reach a viewer by two ways, in either order, and neither machine waits for the other.
Declarations only: nothing here does anything. Proof: the searches under tests/machines/search.
"""

from __future__ import annotations

from types import MappingProxyType

from statemachine import State

from utd_fsm.machines.base import Machine, event, stay


class StageRecord(Machine):
    """One viewer's standing in a live stream, as the engine keeps it: the truth that its view follows.

    One verb is one transaction is one version of the room's snapshot, roster and raised hands together, committed
    before anything is answered or published. An event that is not declared is a 409 and changes nothing. Who may send
    which verb (only a host adds; a viewer speaks for itself) is the engine's to check first.

    Entitled to publish is whoever is on_stage, and the host. After each commit, and whenever the viewer joins the media
    room or the media server has restarted, one writer a room pushes the permission until LiveKit has it. A viewer that
    is gone from the room loses hand and stage: lower or remove, by the engine.
    """

    audience = State("watches", initial=True)
    hand_up = State("asked to come on stage")
    on_stage = State("may publish")

    ask = event(audience.to(hand_up) | stay(hand_up), "viewer: POST stage/request", "the viewer raises its hand")
    lower = event(hand_up.to(audience), "viewer: DELETE stage/request; engine: gone", "the hand is down again")
    add = event(on_stage.from_(audience, hand_up) | stay(on_stage), "host: POST stage/add", "on stage from now on")
    remove = event(on_stage.to(audience), "host: POST stage/remove; member: POST stage/leave; engine: gone",
                   "off the stage, and without the grant")


class StageMember(Machine):
    """One viewer's view of its own standing: the newest that it knows, and at most one wish.

    On entering: asking sends POST stage/request · lowering sends DELETE stage/request · stepping_down stops camera and
    microphone at once, before the engine answers, and sends POST stage/leave. Entering anything but on_stage stops
    them. Being on stage enables nothing: that is the application's wish. If stepping down fails, the view is on_stage
    again, with the sources off.

    When a request is over, however it ended, its answer (or a look begun after it) is folded; if the view is still
    pending, `lapsed`, and then the newest known standing again: so audience is never shown in between. Snapshots need
    a version, or the order of arrival of room metadata. hand_up needs hands in the engine's snapshot: with an engine
    that keeps none, a raised hand returns to audience, and nothing hangs.

    Refused locally: raise_hand unless audience; lower_hand unless hand_up; step_down unless on_stage; a second wish
    while one is pending. Invariants: a view that heard everything and wishes nothing equals the record.
    """

    audience = State("watches", initial=True)
    asking = State("request sent")
    hand_up = State("the host sees the hand")
    lowering = State("the request is being taken back")
    on_stage = State("on the roster: may publish as soon as the grant is there")
    stepping_down = State("leave sent; camera and microphone are already off")

    raise_hand = event(audience.to(asking), "application: request_stage()", "the viewer wants to come on stage")
    lower_hand = event(hand_up.to(lowering), "application: lower_hand()", "the viewer does not want to any more")
    step_down = event(on_stage.to(stepping_down), "application: leave_stage()", "the viewer leaves the stage")

    saw_audience = event(audience.from_(hand_up, lowering, on_stage, stepping_down) | stay(audience, asking),
                         "engine", "in neither list")
    saw_hand_up = event(hand_up.from_(audience, asking, on_stage, stepping_down) | stay(hand_up, lowering),
                        "engine", "among the raised hands")
    saw_on_stage = event(on_stage.from_(audience, asking, hand_up, lowering) | stay(on_stage, stepping_down),
                         "engine", "on the roster")

    lapsed = event(audience.from_(asking, lowering, stepping_down), "session: the request is over",
                   "the wish is not there: fall back, then fold the newest known standing")

    PENDING = frozenset({"asking", "lowering", "stepping_down"})


class Broadcast(Machine):
    """The stream as a viewer sees it: whether its host is there.

    Two sources tell of the host: LiveKit lists a participant whose metadata says host, and the engine keeps `_live`
    (waiting, live, host_away, ended), by version. They overtake each other, so the session never passes on the news but
    the pair, whenever either changes: `_live` ended is `saw_over`; a listed host, and `_live` past waiting or not kept,
    is `saw_host`; else `_live` host_away is `saw_away`; else `saw_no_host`. What is listed goes before host_away,
    which the engine only has from LiveKit: a host that is back is live without waiting for the engine, and publishing
    or not makes no difference.

    Only what is seen while connected counts, departures and the 60 s of `grace_over` too: LiveKit's list is not to be
    trusted while it reconnects, and once back the pair is read again, in one. Who joins while the host is away reads
    list and `_live` in one as well, and so shows host_away without a flash of live.

    `_live` ended counts whenever it is heard; `_live_ended` only from a sender whom LiveKit names and whose metadata
    says host, otherwise it is a hint. A deleted room is `saw_over`; being removed from it is not: the stream goes on
    without us. Two clocks would disagree about a host that is back at the last moment, so where the engine keeps
    `_live`, its 60 s count: when the viewer's own are over it looks, and `grace_over` comes only if nobody answers.

    Invariants: over is for good (whoever wants to see another stream joins again); live is shown only while a host is
    listed; the order in which the two sources are heard changes nothing.
    """

    off_air = State("no host seen yet, or the stream has not begun", initial=True)
    on_air = State("the host is in the room, publishing or not")
    host_away = State("the host dropped; 60 s to come back")
    over = State("ended", final=True)

    saw_host = event(on_air.from_(off_air, host_away) | stay(on_air),
                     "LiveKit: a participant whose metadata says host; and `_live`, if the engine keeps one, has begun",
                     "the host is there")
    saw_no_host = event(on_air.to(host_away) | stay(off_air, host_away),
                        "LiveKit: no such participant, or `_live` has not begun", "the host is not there")
    saw_away = event(host_away.from_(off_air, on_air) | stay(host_away),
                     "engine: `_live` says host_away, and LiveKit lists no host", "begun, and the host is not there")
    saw_over = event(over.from_(off_air, on_air, host_away),
                     "host: `_live_ended`, known to be the host's; engine: `_live` says ended; LiveKit: room deleted",
                     "the stream has ended")
    grace_over = event(host_away.to(over),
                       "timer: 60 s connected without the host; where `_live` is kept, without an answer to a look",
                       "the host does not come back")

    PUBLIC = MappingProxyType({"off_air": "waiting", "on_air": "live", "host_away": "host_away", "over": "ended"})
