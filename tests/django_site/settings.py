"""Settings of the project; what differs from one run to the next comes from the environment."""

from __future__ import annotations

import os

SECRET_KEY = "of no use to anybody"
ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
ROOT_URLCONF = "tests.django_site.urls"
WSGI_APPLICATION = "tests.django_site.wsgi.application"
INSTALLED_APPS = ["tests.django_site.apps.Site"]
MIDDLEWARE: list[str] = []
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SITE_DATABASE"],
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
        "CONN_MAX_AGE": int(os.environ.get("SITE_CONN_MAX_AGE", "0")),
        "TEST": {"NAME": os.environ["SITE_DATABASE"] + ".test"},
    }
}

UTD_ENGINE = os.environ["SITE_ENGINE"]
UTD_APP_ID = os.environ["SITE_APP_ID"]
UTD_APP_KEY = os.environ["SITE_APP_KEY"]
UTD_WEBHOOK_SECRET = os.environ["SITE_WEBHOOK_SECRET"]
UTD_MODERATOR = "moderator"
UTD_ANSWER_TIMEOUT = float(os.environ.get("SITE_ANSWER_TIMEOUT", "40"))
"""Seconds; above the engine's ring timeout, below gunicorn's --timeout and --graceful-timeout."""

SITE_EAGER = os.environ.get("SITE_EAGER", "")
"""An identity to sign in while the application is loaded: what one should not do, and what works all the same."""
SITE_FAIL_ONCE = os.environ.get("SITE_FAIL_ONCE", "")
"""The webhook whose first delivery a receiver fails for."""
