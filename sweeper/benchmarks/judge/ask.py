"""Asks a judge, some requests at a time, and keeps every usable reply on disk. Here alone is openai imported."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Self

from sweeper.config.benchmark_models import JudgedBenchmark
from sweeper.errors import ConfigError, SweeperError
from sweeper.extras import install_command
from sweeper.files import write_text

logger = logging.getLogger(__name__)

EXTRA = "judge"
_LOOK_S = 0.5  # how often is looked whether a reply has come
_OLD_NAME, _NEW_NAME = (
    "max_tokens",
    "max_completion_tokens",
)  # of the limit; each is refused by some endpoints

Messages = list[dict[str, str]]


def check_client() -> None:
    """Refuse to go on without the client.

    Raises:
        ConfigError: With the extra that brings it.
    """
    if importlib.util.find_spec("openai") is None:
        raise ConfigError(
            "`benchmarks.judged` needs the client of OpenAI-compatible endpoints, which is not installed. Install it "
            f"with `{install_command(EXTRA)}` where the benchmarks run, or leave the judge out."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Reply:
    """What an endpoint answered."""

    text: str | None = None  # None where it is no chat completion, or an empty one
    is_cut: bool = False  # it reached the limit of tokens


class Judge:
    """One judge. What it once replied is read from the cache, so a second run asks nothing.

    A context manager, which closes its connections.

    Args:
        entry: Endpoint, model, and how patient to be. The client tries 429, 5xx, lost connections and time-outs again:
            after `Retry-After` where the server sends it (up to two minutes), else after 0.5 s, doubled up to 8 s.
        cache: Directory of replies.
        is_usable: Whether a reply says what was asked for; others are asked for again and not kept.
    """

    def __init__(self, entry: JudgedBenchmark, *, cache: Path, is_usable: Callable[[str], bool]) -> None:
        import openai

        self._entry = entry
        self._cache = cache
        self._is_usable = is_usable
        self._key = "none" if entry.api_key_env is None else os.environ.get(entry.api_key_env, "")
        self._client = openai.OpenAI(
            base_url=entry.base_url,
            api_key=self._key,
            timeout=entry.timeout_s,
            max_retries=entry.attempts - 1,
        )
        self._name_of_limit = _OLD_NAME

    def ask_all(self, requests: Sequence[Messages]) -> list[str | None]:
        """Return the reply to each; None where none of the attempts gave a usable one.

        Raises:
            SweeperError: If the endpoint refuses or cannot be reached; replies that came before are kept.
        """
        todo: queue.SimpleQueue[tuple[Future[str | None], Messages]] = queue.SimpleQueue()
        futures: list[Future[str | None]] = [Future() for _ in requests]
        for one in zip(futures, requests, strict=True):
            todo.put(one)
        # Not a pool's threads: Python waits for those before it ends.
        n_threads = min(self._entry.concurrency, len(requests))
        threads = [
            threading.Thread(target=self._work, args=(todo,), name="judge", daemon=True)
            for _ in range(n_threads)
        ]
        for thread in threads:
            thread.start()
        try:
            return [_answer(future) for future in futures]
        except BaseException as error:
            for future in futures:
                future.cancel()
            if isinstance(error, Exception):  # what is on its way is paid for, and kept; not after Ctrl-C
                for thread in threads:
                    thread.join()
            raise

    def _work(self, todo: "queue.SimpleQueue[tuple[Future[str | None], Messages]]") -> None:
        """Ask until there is nothing left to ask."""
        with contextlib.suppress(queue.Empty):
            while True:
                future, messages = todo.get_nowait()
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(self._ask(messages))
                except BaseException as error:  # noqa: BLE001 - whoever waits for it meets it
                    future.set_exception(error)

    def close(self) -> None:
        """Close the connections; nothing can be asked any more."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, messages: Messages) -> str | None:
        body = self._body(messages)
        path = self._path(body)
        known = _read(path)
        if known is not None and self._is_usable(known):
            return known
        for _ in range(self._entry.attempts):
            reply = self._request(body)
            if reply.text is not None and self._is_usable(reply.text):
                write_text(path, json.dumps({"request": body, "reply": reply.text}, ensure_ascii=False))
                return reply.text
            if reply.is_cut:
                logger.warning(
                    "The judge's reply was cut off at `max_tokens` = %s, before it said what was asked for: %.200r. "
                    "Raise it, or set it to null.", self._entry.max_tokens, reply.text,
                )  # fmt: skip
                return None
            logger.warning("The judge's reply cannot be used and is asked for again: %.200r", reply.text)
        return None

    def _body(self, messages: Messages) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._entry.model, "messages": messages}
        if self._entry.temperature is not None:
            body["temperature"] = self._entry.temperature
        if self._entry.max_tokens is not None:
            body[_OLD_NAME] = self._entry.max_tokens
        return body

    def _request(self, body: dict[str, Any]) -> _Reply:
        import openai

        try:
            raw = self._send(body)
        except openai.APIStatusError as error:
            raise SweeperError(
                f"The judge `{self._entry.model}` at {self._entry.base_url} refuses with status {error.status_code} "
                f"after {self._entry.attempts} attempts: {self._shown(error.message):.300}. Check `base_url`, "
                "`model` and the key in `api_key_env`; `temperature: null` and `max_tokens: null` leave these "
                "out. What it answered so far is kept."
            ) from error
        except openai.APIConnectionError as error:
            raise SweeperError(
                f"The judge at {self._entry.base_url} cannot be reached after {self._entry.attempts} attempts "
                f"({self._shown(str(error.__cause__ or error))}). Check `base_url` and `timeout_s`; what it "
                "answered so far is kept."
            ) from error
        try:
            choice = json.loads(raw.text)["choices"][0]
            content, is_cut = choice["message"]["content"], choice.get("finish_reason") == "length"
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return _Reply()
        return _Reply(text=content if isinstance(content, str) else None, is_cut=is_cut)

    def _shown(self, text: str) -> str:
        """Return what the endpoint or the client says without the key, which some repeat."""
        return text if self._entry.api_key_env is None or not self._key else text.replace(self._key, "***")

    def _send(self, body: dict[str, Any]) -> Any:
        """Send a request, with the limit of tokens under the name that the endpoint wants."""
        import openai

        name = self._name_of_limit
        create = self._client.chat.completions.with_raw_response.create
        try:
            return create(**_renamed(body, name))
        except openai.BadRequestError as error:
            if name != _OLD_NAME or _OLD_NAME not in body or _NEW_NAME not in error.message:
                raise
            self._name_of_limit = _NEW_NAME
            return create(**_renamed(body, _NEW_NAME))

    def _path(self, body: dict[str, Any]) -> Path:
        asked = json.dumps([self._entry.base_url, body], sort_keys=True)
        return self._cache / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.json"


def _answer(future: Future[str | None]) -> str | None:
    # Again and again: a wait without end misses a Ctrl-C that comes just as it begins (Python 3.11).
    while not future.done():
        wait([future], timeout=_LOOK_S)
    return future.result()


def _renamed(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {name if key == _OLD_NAME else key: value for key, value in body.items()}


def _read(path: Path) -> str | None:
    """Return a kept reply; None where there is none, or it was damaged: it is then asked for again."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["reply"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("The kept reply %s cannot be read and is asked for again: %s", path, error)
        return None
