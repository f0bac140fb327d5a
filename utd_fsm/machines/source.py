"""The machine of one local source: a microphone, camera or screen. Declaration only: nothing here does anything."""

from __future__ import annotations

from statemachine import State

from utd_fsm.machines.base import Machine, event, stay


class Source(Machine):
    """Whether one source is published, and what is under way. "The way is clear": connected, and the grant is there.

    On entering: publishing publishes a new track and is a new epoch · stopping unpublishes · muted and on (from
    muted) mute and unmute. A publish that comes home to a finished epoch takes its own track down. Calls on a Room
    run one at a time per source; publishing first removes what the Room still lists of it; on → waiting in a living
    Room removes it too.

    `saw_clear` is sent when the way becomes clear, and right after enable if it is already. `saw_revoked` is sent
    when the grant falls while steadily connected; a grant missing at the first reading after a reconnect or rejoin is
    `saw_blocked`: a restarted server has forgotten grants and the engine puts them back. While not connected no
    permission is passed on. A grant that was taken away and comes back unmutes nothing (off stays off); LiveKit's own
    reconnect changes nothing.

    Refused locally: enable while the grant cannot come, or while the seat is muted. Invariants: publishing is entered
    only connected and granted; a live track belongs to `on` or an unpublish is queued; nothing is waiting, publishing
    or on that the user did not ask for; on before a drop and still entitled is on again once all is well.
    """

    off = State("nothing is published, nothing wanted", initial=True)
    waiting = State("wanted; the way is not clear")
    publishing = State("publish under way")
    on = State("published and heard")
    muted = State("published, silent")
    stopping = State("being unpublished; a late publish is taken down with it")

    enable = event(off.to(waiting) | muted.to(on), "application: set_microphone(True), go_live()",
                   "the source is wanted")
    mute = event(on.to(muted) | waiting.to(off) | publishing.to(stopping) | stay(off, muted, stopping),
                 "application: set_microphone(False)", "silence, the track stays")
    stop = event(waiting.to(off) | stopping.from_(publishing, on, muted) | stay(off, stopping),
                 "session: stepped down, unseated, hung up, left, disposed, force_exit; application: set_screen(False)",
                 "the track is taken down")

    saw_clear = event(waiting.to(publishing) | stay(off, publishing, on, muted, stopping),
                      "LiveKit: connected and may publish", "the way is clear")
    saw_blocked = event(waiting.from_(publishing, on) | muted.to(stopping) | stay(off, waiting, stopping),
                        "LiveKit: the Room is dead, or back without the grant", "not now; it may return by itself")
    saw_revoked = event(stopping.from_(publishing, on, muted) | stay(off, stopping),
                        "LiveKit: the grant was taken away", "not any more; it does not return by itself")
    saw_muted = event(on.to(muted) | stay(off, waiting, publishing, muted, stopping),
                      "LiveKit: a moderator muted the track; session: the seat is muted", "somebody else silenced it")

    published = event(publishing.to(on), "LiveKit: publish done", "heard from now on")
    publish_failed = event(publishing.to(off), "LiveKit: publish refused", "not wanted any more")
    unpublished = event(stopping.to(off), "LiveKit: unpublish done (at once on a dead Room)", "nothing is published")
    wait_over = event(waiting.to(off), "timer: 10 s connected without the grant", "not wanted any more")

    PENDING = frozenset({"waiting", "publishing", "stopping"})
    STALE = frozenset({("waiting", "saw_revoked")})  # what waits has no grant to lose
