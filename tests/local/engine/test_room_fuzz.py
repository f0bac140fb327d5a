"""Whatever is sent to the routes of streams and audio rooms: 2xx or 4xx in the one shape, never a 5xx."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import requests
from hypothesis import given
from hypothesis import strategies as st

from utd_fsm import room_wire as rw
from utd_fsm import wire

from .room_support import audio_room, stream
from .support import Site
from .test_fuzz import FEW, sane, values
from .test_room_routes import ABOUT_ROOMS, OTHERS

# without a media server the one route that asks it says 503
ROUTES = [row for row in (*ABOUT_ROOMS, *OTHERS) if row[1] != rw.PARTICIPANT_MUTE]
FIELDS = (
    "target_identity", "target_seat", "seat_index", "a", "b", "muted", "role", "locked", "seat_count", "seat_mode",
    "mode_id", "room_name", "reason", "duration",
)  # fmt: skip
likely = st.integers(-2, 110) | st.booleans() | st.sampled_from(["guest", "free", "request", "ann", "host", 1e308])
bodies = st.dictionaries(st.sampled_from(FIELDS), likely | values, max_size=6)
places = st.integers(-1, 101).map(str) | st.sampled_from(["ann", "", "\x1f", "a/b", "%", "..", "9" * 40]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=10
)  # fmt: skip
queries = st.sampled_from(["role", "page", "per_page", "room_name", "identity"])


def test_every_route(site: Site) -> None:
    rooms = [world.host for world in (audio_room(site), stream(site))]
    http = requests.Session()

    @FEW
    @given(
        route=st.sampled_from(ROUTES), host=st.sampled_from(rooms), body=bodies, place=places, mine=st.booleans(),
        query=st.dictionaries(queries, places, max_size=3),
    )  # fmt: skip
    def run(
        route: tuple[str, str], host: Any, body: dict[str, Any], place: str, mine: bool, query: dict[str, str]
    ) -> None:
        method, path = route
        for name, value in (("{room}", host.room), ("{id}", place), ("{index}", place)):
            path = path.replace(name, quote(value, safe=""))
        if mine:
            body = {**body, "identity": host.identity, "actor_identity": host.identity}
        headers = {
            **site.app_headers, "Authorization": f"Bearer {host.bearer}", "Content-Type": "application/json",
        }  # fmt: skip
        data = json.dumps(body).encode()
        sane(http.request(method, site.api + path, data=data, params=query, headers=headers, timeout=60))

    run()
    for host, look in zip(rooms, (rw.SEATS, rw.STAGE), strict=True):  # and the rooms can still be read
        assert host.get(look).status_code == 200
    assert requests.get(site.api + wire.HEALTH, timeout=60).json() == {"status": "ok"}
    assert "Traceback" not in site.process.output
