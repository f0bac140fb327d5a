"""What the engine tells the site."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseForbidden
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from utd_fsm import UTDPermissionError, UTDProtocolError, signals, webhooks


@csrf_exempt
@require_POST
def webhook(request: HttpRequest) -> HttpResponse:
    try:
        told = webhooks.parse(request.body, request.headers, settings.UTD_WEBHOOK_SECRET)
    except UTDPermissionError:
        return HttpResponseForbidden()  # not signed with our secret
    except UTDProtocolError:
        return HttpResponseBadRequest()  # signed, and not a webhook
    # Outside the try: what a receiver raises, of whatever kind, becomes a 500, and the engine tries again.
    signals.webhook_received.send(told.event, webhook=told)
    return HttpResponse(status=204)
