"""`local_engine`: what api.md promises of it, with the engine and the media server as siblings."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from utd_fsm import wire
from utd_fsm.errors import UTDInputError, UTDStateError
from utd_fsm.local.processes import find_livekit_server
from utd_fsm.testing import LocalEngine, local_engine


def signed_in(engine: LocalEngine, identity: str) -> dict[str, str]:
    headers = {wire.APP_ID: engine.app_id, wire.APP_KEY: engine.app_key}
    url = engine.base_url + wire.PREFIX
    answer = requests.post(url + wire.AUTH_SESSION, json={"identity": identity}, headers=headers, timeout=30)
    return {**headers, "Authorization": f"Bearer {answer.json()['user_token']}"}


def created(engine: LocalEngine, headers: dict[str, str], callee: str = "bob") -> str:
    body = {"caller_identity": "alice", "callee_identity": callee, "type": "audio_call"}
    answer = requests.post(engine.base_url + wire.PREFIX + wire.CALLS, json=body, headers=headers, timeout=30)
    assert answer.status_code == 201, answer.text
    assert answer.json()["url"] == engine.livekit_url
    return str(answer.json()["call_id"])


def status(engine: LocalEngine, headers: dict[str, str], call_id: str) -> str:
    url = engine.base_url + wire.PREFIX + wire.CALL.replace("{id}", call_id)
    return str(requests.get(url, headers=headers, timeout=30).json()["status"])


def media_answers(engine: LocalEngine) -> bool:
    try:
        return requests.get(engine.livekit_url.replace("ws", "http"), timeout=30).status_code < 500
    except requests.ConnectionError:
        return False


@pytest.mark.parametrize("media", ["embedded", "livekit-server"])
def test_each_dies_and_comes_back_without_the_other(media: str) -> None:
    if media == "livekit-server" and find_livekit_server() is None:
        pytest.skip("livekit-server is not installed: set UTD_LIVEKIT_SERVER to its path or put it on PATH")
    with local_engine(media=media) as engine:
        headers = signed_in(engine, "alice")
        call_id = created(engine, headers)
        base_url, media_url = engine.base_url, engine.livekit_url
        engine.stop(hard=True)
        assert media_answers(engine)
        engine.start()
        assert status(engine, headers, call_id) == "initiating"  # same port, same keys, same data
        engine.restart(hard=True)
        assert status(engine, headers, call_id) == "initiating"
        engine.media.stop(hard=True)
        assert not media_answers(engine)
        assert status(engine, headers, call_id) == "initiating"
        engine.media.start()
        assert media_answers(engine)
        engine.media.restart(hard=True)
        assert media_answers(engine)
        assert (engine.base_url, engine.livekit_url) == (base_url, media_url)
    assert not engine.process.running
    assert not media_answers(engine)
    engine.close()


def test_a_media_server_by_its_url() -> None:
    with local_engine() as owner, local_engine(
        owner.livekit_url, livekit_key=owner.livekit_key, livekit_secret=owner.livekit_secret
    ) as guest:  # fmt: skip
        assert guest.livekit_url == owner.livekit_url
        assert guest.base_url != owner.base_url
        created(guest, signed_in(guest, "alice"))
        with pytest.raises(UTDStateError):
            guest.media.stop()
        assert guest.settings.sole_owner is False
        assert owner.settings.sole_owner is True
    with pytest.raises(UTDInputError, match="livekit_key"):
        local_engine("ws://127.0.0.1:1")


def test_a_database_of_ones_own_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "engine.db"
    with local_engine(db=path) as engine:
        call_id = created(engine, signed_in(engine, "alice"))
    assert path.stat().st_mode & 0o077 == 0  # it holds room tokens
    with local_engine(db=path) as engine:
        assert status(engine, signed_in(engine, "alice"), call_id) == "initiating"


def test_one_without_a_path_leaves_nothing_behind() -> None:
    with local_engine() as engine:
        folder = Path(engine.settings.db).parent
        assert folder.is_dir()
    assert not folder.exists()


def test_two_at_once_do_not_meet() -> None:
    with local_engine() as one, local_engine() as two:
        headers = signed_in(one, "alice")
        created(one, headers)
        created(two, signed_in(two, "alice"))
        url = two.base_url + wire.PREFIX + wire.CALLS
        assert requests.get(url, headers=headers, timeout=30).status_code == 401


def test_arguments_are_checked_before_anything_starts() -> None:
    with pytest.raises(UTDInputError, match="ring_timeout"):
        local_engine(ring_timeout=0)
    with pytest.raises(UTDInputError, match="'embedded'"):
        local_engine("jitsi")
    engine = local_engine(webhook_url="http://127.0.0.1:1/")
    assert engine.webhook_secret
    assert engine.webhook_secret not in repr(engine)
    assert engine.app_key not in repr(engine)
    engine.close()


def test_what_fails_to_start_leaves_no_process(tmp_path: Path) -> None:
    engine = local_engine(db=tmp_path / "no" / "folder")
    with pytest.raises(ConnectionError), engine:
        pass
    assert not engine.process.running
    assert not engine.media.running
