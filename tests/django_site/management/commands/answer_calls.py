"""A bot: ``manage.py answer_calls desk``."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import close_old_connections

from tests.django_site.receivers import note
from utd_fsm import UTDCall, UTDStreamClient, UTDStreamException
from utd_fsm.media import Tone

log = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Answers calls, one after the other, until it is told to stop (SIGTERM, Ctrl-C)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("identity")

    def handle(self, *args: Any, identity: str, **options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # leave the with: that hangs up
        with UTDStreamClient(settings.UTD_APP_ID, settings.UTD_APP_KEY, base_url=settings.UTD_ENGINE) as client:
            client.authenticate(identity)
            for incoming in client.incoming_calls:
                close_old_connections()  # nobody else does, in a process that runs for weeks
                try:
                    self.answer(client, incoming)
                except UTDStreamException:
                    log.exception("call %s", incoming.call_id)  # cancelled, taken elsewhere, lost

    def answer(self, client: UTDStreamClient, incoming: UTDCall) -> None:
        with client.call_session(incoming.type, microphone=Tone(440)) as call:
            call.accept(incoming)
            note("bot", incoming.call_id, f"answered {incoming.caller_identity}")
            call.wait_until_ended()
