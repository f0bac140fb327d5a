"""The application: connects its receivers once everything is loaded."""

from __future__ import annotations

from django.apps import AppConfig


class Site(AppConfig):
    name = "tests.django_site"
    label = "site"
    verbose_name = "a site that calls"

    def ready(self) -> None:
        from . import receivers  # noqa: F401 - connects them; the module keeps them alive
