"""Loading what is needed later while something else is waited for."""

import contextlib
import importlib
import logging
import threading
from collections.abc import Iterator, Sequence

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def loading_meanwhile(modules: Sequence[str]) -> Iterator[None]:
    """Import modules in a thread while the block runs; its end waits for them.

    One that cannot be imported is no error yet: whoever needs it imports it again and meets the cause there.
    """
    thread = threading.Thread(target=_load, args=(modules,), name="loading", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()  # Python may not end while a thread is half through an import


def _load(modules: Sequence[str]) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is met again where the module is used
            logger.debug("%s could not be loaded ahead: %s", name, error)
