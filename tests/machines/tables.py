"""The machines as the design has them, written by hand: what the classes are compared with. Never generated from them.

One line an event: ``from, from → to; from → to; = states in which it is declared and changes nothing``. In the list
of states ``*`` marks a pending one, ``.`` a final one; the first is the initial state.
"""

from __future__ import annotations

from dataclasses import dataclass

from utd_fsm.machines import (
    Broadcast,
    CallRecord,
    Connection,
    IncomingCall,
    Machine,
    OutgoingCall,
    Seat,
    Source,
    Speaker,
    SpeakerRecord,
    StageMember,
    StageRecord,
)


@dataclass(frozen=True)
class Table:
    """One machine, as written below."""

    initial: str
    states: tuple[str, ...]
    pending: frozenset[str]
    final: frozenset[str]
    events: tuple[str, ...]
    edges: dict[tuple[str, str], str]


def read(states: str, text: str) -> Table:
    """Read one hand-written table."""
    marked = states.split()
    edges: dict[tuple[str, str], str] = {}
    events = []
    for line in text.strip().splitlines():
        event, _, parts = line.strip().partition(" ")
        events.append(event)
        for part in parts.split(";"):
            if part.strip().startswith("="):
                pairs = [(state.strip(), state.strip()) for state in part.strip()[1:].split(",")]
            else:
                sources, _, target = part.partition("→")
                pairs = [(source.strip(), target.strip()) for source in sources.split(",")]
            for source, target in pairs:
                assert (source, event) not in edges, f"written twice: {source}, {event}"
                edges[source, event] = target
    return Table(
        initial=marked[0],
        states=tuple(state.rstrip("*.") for state in marked),
        pending=frozenset(state[:-1] for state in marked if state.endswith("*")),
        final=frozenset(state[:-1] for state in marked if state.endswith(".")),
        events=tuple(events),
        edges=edges,
    )


BY_HAND: dict[type[Machine], Table] = {
    CallRecord: read(
        "initiating ringing active ended. rejected. busy. missed.",
        """
        ring           initiating → ringing; = ringing
        accept         initiating, ringing → active
        reject         initiating, ringing → rejected
        say_busy       initiating, ringing → busy
        end            initiating, ringing, active → ended
        ring_timeout   initiating, ringing → missed
        cut            initiating, ringing, active → ended
        """,
    ),
    OutgoingCall: read(
        "idle dialing* withdrawing* initiating ringing active ending* ended. rejected. busy. missed. lost.",
        """
        dial           idle → dialing
        hang_up        dialing → withdrawing; initiating, ringing, active → ending
        saw_initiating idle, dialing → initiating; withdrawing → ending; = initiating, ending
        saw_ringing    idle, dialing, initiating → ringing; withdrawing → ending; = ringing, ending
        saw_active     idle, dialing, initiating, ringing → active; withdrawing → ending; = active, ending
        saw_ended      idle, dialing, withdrawing, initiating, ringing, active, ending → ended
        saw_rejected   idle, dialing, withdrawing, initiating, ringing, ending → rejected
        saw_busy       idle, dialing, withdrawing, initiating, ringing, ending → busy
        saw_missed     idle, dialing, withdrawing, initiating, ringing, ending → missed
        lapsed         dialing, withdrawing → idle; = ending
        give_up        dialing, withdrawing, ending → lost
        """,
    ),
    IncomingCall: read(
        "idle initiating ringing accepting* active ending* ended. rejected. busy. missed. elsewhere. lost.",
        """
        accept         idle, initiating, ringing → accepting
        decline        idle, initiating, ringing, accepting → ending
        hang_up        initiating, ringing, accepting, active → ending
        saw_initiating idle → initiating; = initiating, accepting, ending
        saw_ringing    idle, initiating → ringing; = ringing, accepting, ending
        saw_active     idle, initiating, ringing, accepting → active; = active, ending
        saw_elsewhere  idle, initiating, ringing, accepting, ending → elsewhere
        saw_ended      idle, initiating, ringing, accepting, active, ending → ended
        saw_rejected   idle, initiating, ringing, accepting, ending → rejected
        saw_busy       idle, initiating, ringing, accepting, ending → busy
        saw_missed     idle, initiating, ringing, accepting, ending → missed
        lapsed         accepting → idle; = ending
        give_up        accepting, ending → lost
        """,
    ),
    Connection: read(
        "disconnected connecting* connected reconnecting* rejoining* force_exit closed.",
        """
        connect          disconnected, force_exit → connecting
        leave            connecting, connected, reconnecting, rejoining, force_exit → disconnected; = disconnected
        dispose          disconnected, connecting, connected, reconnecting, rejoining, force_exit → closed
        saw_joined       connecting, reconnecting, rejoining → connected
        saw_reconnecting connected → reconnecting
        saw_dropped      connected, reconnecting → rejoining
        saw_removed      connecting → disconnected; connected, reconnecting, rejoining → force_exit
        try_failed       = connecting, rejoining
        tries_over       connecting → disconnected
        grace_over       reconnecting, rejoining → force_exit
        """,
    ),
    Source: read(
        "off waiting* publishing* on muted stopping*",
        """
        enable         off → waiting; muted → on
        mute           waiting → off; publishing → stopping; on → muted; = off, muted, stopping
        stop           waiting → off; publishing, on, muted → stopping; = off, stopping
        saw_clear      waiting → publishing; = off, publishing, on, muted, stopping
        saw_blocked    publishing, on → waiting; muted → stopping; = off, waiting, stopping
        saw_revoked    publishing, on, muted → stopping; = off, stopping
        saw_muted      on → muted; = off, waiting, publishing, muted, stopping
        published      publishing → on
        publish_failed publishing → off
        unpublished    stopping → off
        wait_over      waiting → off
        """,
    ),
    StageRecord: read(
        "audience hand_up on_stage",
        """
        ask    audience → hand_up; = hand_up
        lower  hand_up → audience
        add    audience, hand_up → on_stage; = on_stage
        remove on_stage → audience
        """,
    ),
    StageMember: read(
        "audience asking* hand_up lowering* on_stage stepping_down*",
        """
        raise_hand   audience → asking
        lower_hand   hand_up → lowering
        step_down    on_stage → stepping_down
        saw_audience hand_up, lowering, on_stage, stepping_down → audience; = audience, asking
        saw_hand_up  audience, asking, on_stage, stepping_down → hand_up; = hand_up, lowering
        saw_on_stage audience, asking, hand_up, lowering → on_stage; = on_stage, stepping_down
        lapsed       asking, lowering, stepping_down → audience
        """,
    ),
    Broadcast: read(
        "off_air on_air host_away over.",
        """
        saw_host    off_air, host_away → on_air; = on_air
        saw_no_host on_air → host_away; = off_air, host_away
        saw_away    off_air, on_air → host_away; = host_away
        saw_over    off_air, on_air, host_away → over
        grace_over  host_away → over
        """,
    ),
    Seat: read(
        "free locked occupied muted",
        """
        take   free → occupied
        vacate occupied, muted → free
        lock   free → locked; = locked
        unlock locked → free; = free
        mute   occupied → muted; = muted
        unmute muted → occupied; = occupied
        """,
    ),
    SpeakerRecord: read(
        "listener requested invited seated",
        """
        request listener → requested
        dismiss requested, invited → listener
        invite  listener, requested → invited
        sit     listener, requested, invited → seated
        move    = seated
        unseat  seated → listener
        """,
    ),
    Speaker: read(
        "listener requesting* requested invited withdrawing* taking* seated leaving*",
        """
        request       listener → requesting
        withdraw      requested, invited → withdrawing
        take          listener, requested, invited → taking
        leave         seated → leaving
        saw_listener  requested, invited, withdrawing, seated, leaving → listener; = listener, requesting, taking
        saw_requested listener, requesting, invited, seated, leaving → requested; = requested, withdrawing, taking
        saw_invited   listener, requesting, requested, seated, leaving → invited; = invited, withdrawing, taking
        saw_seated    listener, requesting, requested, invited, withdrawing, taking → seated; = seated, leaving
        lapsed        requesting, withdrawing, taking, leaving → listener
        """,
    ),
}
