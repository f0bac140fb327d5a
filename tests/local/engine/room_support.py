"""Users of streams and audio rooms by hand, over REST."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import jwt
import requests

from utd_fsm import room_wire, wire

from .support import Site, User, somebody


@dataclass
class Member(User):
    """Somebody with a way into one room."""

    room: str = ""
    token: str = ""
    url: str = ""

    def claims(self) -> dict[str, Any]:
        """What its LiveKit token says."""
        content: dict[str, Any] = jwt.decode(
            self.token, self.site.process.settings.livekit_secret, algorithms=["HS256"]
        )
        return content

    def role(self) -> str:
        return str(json.loads(self.claims()["metadata"])["role"])

    def say(
        self, method: str, route: str, *, key: str | None = None, id: object = "", index: object = "", **body: Any
    ) -> requests.Response:
        """One request about the room, as oneself unless the body says otherwise."""
        path = route.replace("{room}", quoted(self.room)).replace("{id}", quoted(str(id)))
        content = {"identity": self.identity, **body}
        return self.ask(method, path.replace("{index}", str(index)), json=content, key=key)

    def post(self, route: str, **rest: Any) -> requests.Response:
        return self.say("POST", route, **rest)

    def well(self, route: str, *, method: str = "POST", **rest: Any) -> dict[str, Any]:
        """A request that goes well: its answer."""
        answer = self.say(method, route, **rest)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def get(self, route: str, *, key: str | None = None, **rest: Any) -> requests.Response:
        path = route.replace("{room}", quoted(self.room)).replace("{id}", quoted(str(rest.pop("id", ""))))
        return self.ask("GET", path, key=key, **rest)

    def grid(self) -> dict[str, Any]:
        answer = self.get(room_wire.SEATS)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def stage(self) -> dict[str, Any]:
        answer = self.get(room_wire.STAGE)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def sitting(self) -> dict[int, str]:
        """Who sits where."""
        seats = self.grid()["seats"]
        return {seat["seat_index"]: seat["occupant_identity"] for seat in seats if seat["occupant_identity"]}

    def on_stage(self) -> list[str]:
        return [one["identity"] for one in self.stage()["stage"]]


def quoted(name: str) -> str:
    return requests.utils.quote(name, safe="")  # type: ignore[attr-defined,no-any-return]


def way_in(site: Site, identity: str, room: str, type_: str, **more: Any) -> requests.Response:
    body = {"identity": identity, "room_name": room, "type": type_, **more}
    return requests.post(site.api + wire.TOKEN, json=body, headers=site.app_headers, timeout=30)


def enter(site: Site, room: str, type_: str, identity: str | None = None, **more: Any) -> Member:
    """Somebody gets a way into a room."""
    identity = identity or somebody()
    answer = way_in(site, identity, room, type_, **more)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    return Member(site, identity, content["user_token"], content["ws_url"], room, content["token"], content["url"])


class World:
    """One room: its host, and whoever else comes."""

    def __init__(self, site: Site, type_: str, room: str | None = None, **more: Any) -> None:
        self.site, self.type, self.name = site, type_, room or somebody("room")
        self.host = enter(site, self.name, type_, somebody("host"), role="host", **more)

    def guest(self, identity: str | None = None, **more: Any) -> Member:
        return enter(self.site, self.name, self.type, identity, **more)

    def admin(self) -> Member:
        one = self.guest(somebody("admin"))
        self.host.well(
            room_wire.PARTICIPANT_ROLE, method="PUT", id=one.identity, actor_identity=self.host.identity, role="admin"
        )
        return one


def stream(site: Site, **more: Any) -> World:
    return World(site, "live_stream", **more)


def audio_room(site: Site, **more: Any) -> World:
    return World(site, "audio_room", **{"seat_count": 8, "seat_mode": "free", **more})
