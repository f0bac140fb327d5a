"""Where everything is."""

from __future__ import annotations

from django.urls import path

from . import async_views, views, webhook

urlpatterns = [
    path("call/", views.call),
    path("calls/", views.calls),
    path("calls/<str:call_id>/end/", views.end),
    path("rooms/<str:room>/ban/", views.ban),
    path("async/call/", async_views.call),
    path("async/call-and-block/", async_views.call_and_block),
    path("hooks/utd/", webhook.webhook),
    path("notes/", views.notes),
    path("process/", views.process),
]
