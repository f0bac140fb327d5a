"""What the site does when something happens to a call. Module-level functions: signals hold their receivers weakly."""

from __future__ import annotations

import threading
from typing import Any

from django.conf import settings

from utd_fsm import UTDCallStatus, UTDWebhook, signals

from .models import Note


@signals.call_status_changed.connect
def note_status(session: Any, *, value: UTDCallStatus | None, **extra: Any) -> None:
    """On the signals thread, whose database connections the SDK looks after as Django does around a request."""
    if value is not None:
        note("status", session.call_id.value, value)


@signals.webhook_received.connect
def note_webhook(event: str, *, webhook: UTDWebhook, **extra: Any) -> None:
    """In the request's thread, inside the webhook's view. The same webhook may come again."""
    if event == settings.SITE_FAIL_ONCE and webhook.attempt == 1:
        raise RuntimeError("the database is away")
    note("webhook", webhook.call.get("call_id", ""), f"{event} {webhook.attempt}")


def note(kind: str, call_id: str, text: str) -> None:
    Note.objects.create(kind=kind, call_id=call_id, text=text, thread=threading.current_thread().name)
