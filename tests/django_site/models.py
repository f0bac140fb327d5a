"""What the site remembers of its calls."""

from __future__ import annotations

from django.db import models


class Note(models.Model):
    """Something that happened to a call, and the thread that heard of it."""

    call_id: models.CharField[str, str] = models.CharField(max_length=64, db_index=True)
    kind: models.CharField[str, str] = models.CharField(max_length=20)
    text: models.CharField[str, str] = models.CharField(max_length=80)
    thread: models.CharField[str, str] = models.CharField(max_length=80)

    class Meta:
        app_label = "site"
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"{self.kind} {self.text} of {self.call_id}"
