"""The site's own tests, as its authors would write them: ``manage.py test``."""

from __future__ import annotations

from django.test import AsyncClient, TransactionTestCase, override_settings

from utd_fsm import signals
from utd_fsm.testing import LocalEngine, local_engine


class CallTests(TransactionTestCase):  # not TestCase: receivers have connections of their own
    engine: LocalEngine

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.engine = cls.enterClassContext(local_engine(media="embedded"))
        settings = override_settings(
            UTD_ENGINE=cls.engine.base_url, UTD_APP_ID=cls.engine.app_id, UTD_APP_KEY=cls.engine.app_key
        )
        cls.enterClassContext(settings)

    def test_a_call_that_is_answered(self) -> None:
        with self.engine.peer("bob"):
            answer = self.client.post("/call/", {"from": "alice", "to": "bob"}, "application/json")
        assert answer.json()["status"] == "active"
        signals.drain()  # until every receiver has run
        told = self.client.get("/notes/", {"call_id": answer.json()["call_id"]}).json()["notes"]
        # Bob is in this process too: the signals of his session have been heard as well.
        assert {text for _, text, _ in told} == {"initiating", "ringing", "active", "ended"}

    async def test_an_asynchronous_view(self) -> None:
        client = AsyncClient()
        asked = {"from": "carol", "to": "nobody-there"}
        with override_settings(UTD_ANSWER_TIMEOUT=0.2):
            answer = await client.post("/async/call/", asked, "application/json")
        assert (answer.status_code, answer.json()["error"]) == (504, "UTDTimeoutError")

    async def test_blocking_in_an_asynchronous_view_is_refused(self) -> None:
        answer = await AsyncClient().post("/async/call-and-block/", {"from": "dan", "to": "x"}, "application/json")
        assert answer.status_code == 500
        assert "utd_fsm.aio" in answer.json()["message"]
