"""SIGTERM, which schedulers send before they kill, held back until a good moment."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

__all__ = ["held"]


@contextlib.contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """Within it, SIGTERM does nothing but turn what the yielded function returns to `True`.

    Afterwards the handler of before is back. In a thread other than the main one, where Python
    allows no handlers, the signal is left alone.

    Example:
      >>> with held() as terminated:
      ...     signal.raise_signal(signal.SIGTERM)
      ...     terminated()
      True
    """
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield received.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield received.is_set
    finally:
        # `None` is a handler that was not set from Python; it cannot be put back.
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
