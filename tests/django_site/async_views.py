"""Calls, from asynchronous views."""

from __future__ import annotations

import json

from django.conf import settings
from django.http import HttpRequest, JsonResponse

from .failures import tells_failures
from .phones import client_for, client_to_await_for


@tells_failures
async def call(request: HttpRequest) -> JsonResponse:
    """Call somebody, await the answer, and hang up. A browser that goes away hangs up too (ASGI)."""
    asked = json.loads(request.body)
    client = await client_to_await_for(asked["from"])
    async with client.call_session("audio_call") as session:
        await session.start(asked["to"])
        status = await session.wait_for_answer(timeout=settings.UTD_ANSWER_TIMEOUT)
    return JsonResponse({"call_id": session.call_id.value, "status": status, "end_reason": session.end_reason})


@tells_failures
async def call_and_block(request: HttpRequest) -> JsonResponse:
    """The mistake: the blocking client in a coroutine. It is refused at once, and the message says what to do."""
    asked = json.loads(request.body)
    with client_for(asked["from"]).call_session("audio_call") as session:
        session.start(asked["to"])
    return JsonResponse({})
