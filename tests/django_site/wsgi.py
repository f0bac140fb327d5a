"""For gunicorn. With --preload this is loaded once, in the process that the workers are forked from."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django_site.settings")
application = get_wsgi_application()

from django.conf import settings  # noqa: E402 - they can be read from here on

if settings.SITE_EAGER:
    from .phones import client_for

    client_for(settings.SITE_EAGER)
