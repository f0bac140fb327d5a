"""The times of a session, in one place, so that tests can shorten them. Imports nothing of the package."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The defaults are those of the machines' design; only tests have others."""

    attempt: float = 15.0
    """One try to join, its ticket included; then it is given up."""
    tries: int = 3
    """How many tries a join has. (A number, not a time.)"""
    pause: float = 0.5
    """Between two tries."""
    longest_pause: float = 4.0
    """Rejoining doubles the pause up to this, so that a server that comes up again is not run over."""
    grace: float = 60.0
    """From the drop to force_exit."""
    tier: float = 15.0
    """Away for less: metadata is read again. Away for longer: the engine is asked too."""
    echo: float = 2.0
    """For how long after its goodbye a given-up try that had joined still explains a duplicate identity."""
    look: float = 10.0
    """At most for the owner's look before a removal counts, and for reading the engine again after a rejoin."""
    grant: float = 10.0
    """In the room without the grant before a wanted source gives up."""
    first_reading: float = 2.0
    """After a return a grant that is found missing was forgotten, not taken away: LiveKit may tell it a little late."""
    farewell: float = 3.0
    """How long leaving waits for LiveKit's goodbye; it goes on in the background."""
    departure: float = 0.1
    """Before one who is not listed any more counts as gone: LiveKit says that all left just before it reconnects."""
    settle: float = 4.0
    """After a reconnect, before those who are not listed again count as gone (silent ones are listed 3 s late)."""
