"""Calls, and the moderation of rooms, from ordinary views."""

from __future__ import annotations

import json
import os
import threading

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET, require_POST

from .failures import tells_failures
from .models import Note
from .phones import client_for

_moderating = threading.Lock()


@require_POST
@tells_failures
def call(request: HttpRequest) -> JsonResponse:
    """Call somebody, wait for the answer, and hang up."""
    asked = json.loads(request.body)
    client = client_for(asked["from"])
    with client.call_session("audio_call") as session:
        session.start(asked["to"], idempotency_key=asked.get("key"))
        status = session.wait_for_answer(timeout=settings.UTD_ANSWER_TIMEOUT)
        # active: here it would play(…), listen(…) and record(…)
    return JsonResponse({"call_id": session.call_id.value, "status": status, "end_reason": session.end_reason})


@require_POST
@tells_failures
def end(request: HttpRequest, call_id: str) -> JsonResponse:
    """End a call that another request, or another worker, began."""
    record = client_for(json.loads(request.body)["as"]).end_call(call_id)
    return JsonResponse({"call_id": record.call_id, "status": record.status, "end_reason": record.end_reason})


@require_GET
@tells_failures
def calls(request: HttpRequest) -> JsonResponse:
    """The newest calls of an identity."""
    page = client_for(request.GET["of"]).calls(status=request.GET.get("status"), per_page=20)
    return JsonResponse({"calls": [[one.call_id, one.status] for one in page.calls], "total": page.total})


@require_POST
@tells_failures
def ban(request: HttpRequest, room: str) -> JsonResponse:
    """Ban somebody from an audio room, as the site's own moderator."""
    asked = json.loads(request.body)
    client = client_for(settings.UTD_MODERATOR)
    # One identity is in one room once: two requests that joined at the same moment would put each other out.
    with _moderating, client.join_audio_room(settings.UTD_MODERATOR, room, timeout=20) as session:
        ban = session.ban(asked["identity"], reason=asked.get("reason"), duration=asked.get("seconds"))
    return JsonResponse({"identity": ban.identity, "until": ban.expires_at})


def notes(request: HttpRequest) -> JsonResponse:
    """What receivers and the bot noted of a call."""
    found = Note.objects.filter(call_id=request.GET["call_id"])
    return JsonResponse({"notes": [[note.kind, note.text, note.thread] for note in found]})


def process(request: HttpRequest) -> JsonResponse:
    """Which worker this is, and what runs in it."""
    return JsonResponse({"pid": os.getpid(), "threads": sorted(thread.name for thread in threading.enumerate())})
