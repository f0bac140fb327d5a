"""The two machines of a person in an audio room: the engine's record, and the person's own view of it.

The grant and the microphone belong to `Source`: grid and grant reach a person by two ways, in either order, and a view
that waited for both would meet news it has no edge for. Declarations only: nothing here does anything. Proof: the
searches under tests/machines/search.
"""

from __future__ import annotations

from statemachine import State

from utd_fsm.machines.base import Machine, event, stay


class SpeakerRecord(Machine):
    """One person's standing in an audio room, as the engine keeps it: the truth that its view follows.

    Steps are taken together with those of the seats, all or none, in one version (the verbs: `Seat`). An event that is
    not declared is a 409 and changes nothing. Who may send which verb (seat mode, role, reserved seats) is the engine's
    to check first. Entitled to publish is whoever is seated; one writer a room pushes the permission until LiveKit has
    it.

    Invariants: seated has exactly one seat, everybody else has none; at most one request and one open invitation, never
    both.
    """

    listener = State("listens", initial=True)
    requested = State("in the request list")
    invited = State("has an open invitation")
    seated = State("has exactly one seat, and with it the grant")

    request = event(listener.to(requested), "listener: POST request (request mode)", "asks for a seat")
    dismiss = event(listener.from_(requested, invited),
                    "listener: DELETE request, decline; moderator: reject; engine: gone",
                    "the request or the invitation is off")
    invite = event(invited.from_(listener, requested), "moderator: POST invite", "offered a seat")
    sit = event(seated.from_(listener, requested, invited), "listener: take, accept; moderator: approve", "gets a seat")
    move = event(stay(seated), "speaker: POST move; moderator: swap", "gets another seat instead")
    unseat = event(seated.to(listener), "speaker: leave; moderator: kick, lock; engine: gone", "loses seat and grant")


class Speaker(Machine):
    """One person's view of its own standing: the newest that it knows, and at most one wish.

    On entering: requesting sends POST request · withdrawing sends DELETE request, or declines the invitation · taking
    sends take, or accepts the invitation · leaving stops the microphone at once, before the engine answers, and sends
    leave. Entering anything but taking or seated stops the microphone. Being seated enables nothing (auto_unmute is the
    application's standing wish); while my seat is muted, the source is told `saw_muted` and enable is refused. Moving
    has no state: a seated person stays seated and audible.

    When a request is over, however it ended, its answer (or a look begun after it) is folded; if the view is still
    pending, `lapsed`, and then the newest known standing again. Snapshots need a version, or the order of arrival of
    room metadata.

    Refused locally: what is not declared; take in request mode unless host; take of a seat that is taken, locked or
    reserved for another by the newest grid; a second wish while one is pending. Invariants: a view that heard
    everything and wishes nothing equals the record.
    """

    listener = State("listens", initial=True)
    requesting = State("request sent")
    requested = State("in the request list")
    invited = State("invited to sit")
    withdrawing = State("taking the request back, or declining the invitation")
    taking = State("take, or acceptance of the invitation, sent")
    seated = State("has a seat: may publish as soon as the grant is there")
    leaving = State("leave sent; the microphone is already off")

    request = event(listener.to(requesting), "application: request_to_speak()", "a seat is asked for")
    withdraw = event(withdrawing.from_(requested, invited), "application: cancel_request(), decline_invitation()",
                     "no seat is wanted any more")
    take = event(taking.from_(listener, requested, invited), "application: take_seat(), accept_invitation()",
                 "a seat is wanted now")
    leave = event(seated.to(leaving), "application: leave_seat()", "the seat is given back")

    saw_listener = event(listener.from_(requested, invited, withdrawing, seated, leaving)
                         | stay(listener, requesting, taking), "engine", "neither seat, request nor invitation")
    saw_requested = event(requested.from_(listener, requesting, invited, seated, leaving)
                          | stay(requested, withdrawing, taking), "engine", "in the request list")
    saw_invited = event(invited.from_(listener, requesting, requested, seated, leaving)
                        | stay(invited, withdrawing, taking), "engine", "an open invitation")
    saw_seated = event(seated.from_(listener, requesting, requested, invited, withdrawing, taking)
                       | stay(seated, leaving), "engine", "on a seat")

    lapsed = event(listener.from_(requesting, withdrawing, taking, leaving), "session: the request is over",
                   "the wish is not there: fall back, then fold the newest known standing")

    PENDING = frozenset({"requesting", "withdrawing", "taking", "leaving"})
