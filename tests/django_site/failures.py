"""What a view answers when the SDK refuses or fails."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import JsonResponse

from utd_fsm import (
    UTDConnectionError,
    UTDInputError,
    UTDPermissionError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
    UTDWouldBlockError,
)

log = logging.getLogger(__name__)

STATUS = (
    (UTDInputError, 400),
    (UTDPermissionError, 403),
    (UTDStateError, 409),
    (UTDWouldBlockError, 500),  # a fault of the view; the message has the mend
    (UTDConnectionError, 503),
    (UTDTimeoutError, 504),
)


def refusal(error: UTDStreamException) -> JsonResponse:
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 502)
    if status >= 500:
        log.error("%s: %s", type(error).__name__, error)
    told = {"error": type(error).__name__, "message": str(error), "call_id": error.call_id}
    return JsonResponse(told, status=status)


def tells_failures(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view whose errors of the SDK become JSON. For ordinary and for asynchronous views."""
    if iscoroutinefunction(view):

        @functools.wraps(view)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            try:
                return await view(*args, **kwargs)
            except UTDStreamException as error:
                return refusal(error)

        return awaited

    @functools.wraps(view)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return view(*args, **kwargs)
        except UTDStreamException as error:
            return refusal(error)

    return called
