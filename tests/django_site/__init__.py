"""A small Django project that makes calls, answers them, and hears webhooks. docs/django.md shows it."""
