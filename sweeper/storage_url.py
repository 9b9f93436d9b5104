"""Storage URLs and their passwords: a password stays in this process's memory and is written nowhere."""

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlencode

PASSWORD_VARIABLE = "SWEEPER_STORAGE_PASSWORD"
_CARRIED = "SWEEPER_STORAGE_URLS"  # from a command line to the program that takes its place
_HIDDEN = "***"
_MIN_TELLING = 8  # characters of a password that no other text is likely to hold
_kept: dict[str, str] = {}  # whole URLs by their public spelling; this process's memory alone holds them
_given: list[str] = []  # what PASSWORD_VARIABLE held

_DATABASES = ("postgres", "mysql", "mariadb", "sqlite", "mssql", "oracle")
# As SQLAlchemy (2.0) cuts a URL, since it decides what is sent as the password: `#`, `/` and `?` may be in it. An `@`
# that is not quoted would end it there; here it reaches to the last one before the host.
_OF_DATABASE = re.compile(
    r"(?P<head>[^:/]*://)(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*(?:@[^@/?]*(?=@))*))?@)?(?P<place>[^?]*)(?P<query>\?.*)?",
    re.DOTALL,
)
# What follows `user:` up to an `@` is a password with `/`, `?` or `#` in it, unless it begins as a port does.
_OF_ANOTHER = re.compile(
    r"(?P<head>[^:/]*://)(?:(?P<user>(?!\[)[^:/?#]*)"
    r"(?::(?P<password>[^/?#]*(?=@)|(?!\d+[/?#])[^@]*(?:@[^@/?]*(?=@))*))?@)?(?P<place>[^?]*)(?P<query>\?.*)?",
    re.DOTALL,
)
_SECRET_OPTION = re.compile(r"(?:passw(?:or)?d|pwd)", re.IGNORECASE)
_LOGIN_OPTION = re.compile(r"passw(?:or)?d|pwd", re.IGNORECASE)
_IN_OPTION = re.compile(r"(?:password|pwd)\s*=\s*(?P<secret>[^;]+)", re.IGNORECASE)  # of ODBC, in one option


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Url:
    """A URL in parts, each as it is spelled."""

    head: str  # up to `://`
    user: str | None
    password: str | None
    place: str  # host, port and database
    query: str | None  # with its `?`

    @classmethod
    def cut(cls, url: str) -> "_Url":
        rule = _OF_DATABASE if url.strip().lower().startswith(_DATABASES) else _OF_ANOTHER
        found = rule.fullmatch(url)
        return (
            cls(**found.groupdict())
            if found
            else cls(head="", user=None, password=None, place=url, query=None)
        )

    @property
    def options(self) -> list[str]:
        """Return the query's `key=value`, as they are spelled."""
        return (self.query or "")[1:].split("&") if self.query else []

    @property
    def is_none(self) -> bool:
        """Whether this is no URL, though it looks as if a password were in it."""
        return not self.head and ("@" in self.place or _SECRET_OPTION.search(self.place) is not None)

    @property
    def secrets(self) -> list[str]:
        """Return every password, as it is spelled."""
        own = [] if self.password is None else [self.password]
        return own + [option.partition("=")[2] for option in self.options if _is_secret(option)]

    @property
    def logs_in(self) -> bool:
        """Whether a password of the user is in it; that of a key of TLS is not."""
        return self.password is not None or any(
            _LOGIN_OPTION.fullmatch(unquote_plus(key)) or _IN_OPTION.search(unquote_plus(value))
            for key, _, value in (option.partition("=") for option in self.options)
        )

    def with_options(self, options: Sequence[str]) -> "_Url":
        """Return the URL with another query."""
        return dataclasses.replace(self, query=f"?{'&'.join(options)}" if options else None)

    def __str__(self) -> str:
        words = self.user or ""
        if self.password is not None:
            words = f"{words}:{self.password}"
        return f"{self.head}{words and words + '@'}{self.place}{self.query or ''}"


def _is_secret(option: str) -> bool:
    key, equals, value = option.partition("=")
    text = unquote_plus(value)
    return bool(equals) and bool(_SECRET_OPTION.search(unquote_plus(key)) or _IN_OPTION.search(text))


def database_problem(url: str) -> str | None:
    """Say what is wrong with a storage URL that names none of the databases that Optuna keeps studies in."""
    if url.startswith(("postgresql", "mysql", "sqlite")) and "://" in url:
        return None
    return (
        f"`storage` must start with postgresql://, mysql:// or sqlite:///, but got {mask_url(url) or 'empty text'}. "
        "Leave it out to keep the study in a journal file in its directory."
    )


def password_of(url: str) -> str | None:
    """Return a URL's password as it is meant, not as it is quoted; None where it has none."""
    parts = _Url.cut(url)
    if parts.password is not None:
        return unquote(parts.password)
    return unquote_plus(parts.secrets[0]) if parts.secrets else None


def mask_url(url: str) -> str:
    """Return a storage URL with its passwords hidden, for messages; of what is no URL, not what may be one."""
    parts = _Url.cut(url)
    if parts.is_none:
        return f"{url.partition(':')[0]}:{_HIDDEN}" if ":" in url else _HIDDEN
    if not parts.secrets:
        return url
    shown = [f"{one.partition('=')[0]}={_HIDDEN}" if _is_secret(one) else one for one in parts.options]
    password = None if parts.password is None else _HIDDEN
    return str(dataclasses.replace(parts.with_options(shown), password=password))


def without_password(url: str) -> str:
    """Return a storage URL as a study keeps it: all but the passwords."""
    parts = _Url.cut(url)
    if not parts.secrets:
        return url
    public = [option for option in parts.options if not _is_secret(option)]
    return str(dataclasses.replace(parts.with_options(public), password=None))


def keep_password(url: str | None) -> str | None:
    """Keep a URL's password in memory for `with_password`, and return the URL without it."""
    if url is None or password_of(url) is None:
        return url
    public, parts = without_password(url), _Url.cut(url)
    if parts.password is not None:  # quoted, since SQLAlchemy ends it at an `@`
        parts = dataclasses.replace(parts, password=quote(unquote(parts.password), safe=""))
    _kept[public] = str(parts)
    return public


def with_password(url: str) -> str:
    """Return a URL with the password that was kept for it, or that of the environment; else as it is.

    PostgreSQL's own ways, PGPASSWORD and ~/.pgpass, need no help: its library looks there itself.
    """
    url = _kept.get(url, url)
    parts = _Url.cut(url)
    if not parts.head or parts.logs_in:
        return url
    names_user = parts.user is not None or "user" in dict(parse_qsl((parts.query or "")[1:]))
    password = (_given[-1] if _given else os.environ.get(PASSWORD_VARIABLE)) if names_user else None
    if not password:
        return url
    if parts.user is not None:
        return str(dataclasses.replace(parts, password=quote(password, safe="")))
    return str(parts.with_options([*parts.options, urlencode({"password": password})]))


def absolute_storage(url: str | None) -> str | None:
    """Return a URL whose SQLite file, if it names one, is the same whatever directory it is read in.

    >>> absolute_storage("sqlite:////var/s.db"), absolute_storage("sqlite://")
    ('sqlite:////var/s.db', 'sqlite://')
    """
    if url is None or not url.startswith("sqlite"):
        return url
    parts = _Url.cut(url)
    path = parts.place.removeprefix("/")
    if not path or path.startswith(("/", ":memory:", "file:")):
        return url
    here = os.getcwd().replace("%", "%25").replace("?", "%3F")  # SQLAlchemy reads the path as quoted
    return str(dataclasses.replace(parts, place=f"/{here.rstrip('/')}/{path}"))


def sqlite_file(url: str) -> Path | None:
    """Return the file that a URL of SQLite names; None where it names none.

    >>> sqlite_file("sqlite:////var/s.db"), sqlite_file("sqlite://"), sqlite_file("postgresql://host/db")
    (PosixPath('/var/s.db'), None, None)
    """
    path = unquote(_Url.cut(url).place.removeprefix("/"))
    if not url.startswith("sqlite") or not path or path.startswith((":memory:", "file:")):
        return None
    return Path(path)


def hide(text: str, url: str) -> str:
    """Return a text, for example a driver's message, without the URL's passwords in any spelling."""
    spellings = {spelling for secret in _Url.cut(url).secrets for spelling in _spellings(secret)}
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, _HIDDEN)
    return text


def holds_password(text: str) -> bool:
    """Whether a text, for example a file's, holds a password that this process keeps.

    A short one, which may be a word like any other, counts only where it stands as a password does.
    """
    secrets = [secret for url in _kept.values() for secret in _Url.cut(url).secrets]
    spellings = {spelling for secret in (*secrets, *_given) for spelling in _spellings(secret)}
    return any(one in text if len(one) >= _MIN_TELLING else _stands_in(text, one) for one in spellings)


def _stands_in(text: str, password: str) -> bool:
    rule = rf":{re.escape(password)}@|{_SECRET_OPTION.pattern}\W{{1,5}}{re.escape(password)}"
    return re.search(rule, text, re.IGNORECASE) is not None


def _spellings(secret: str) -> Iterator[str]:
    for meant in {unquote(secret), unquote_plus(secret)}:
        within = [found["secret"] for found in _IN_OPTION.finditer(meant)]
        for one in filter(None, (meant, *within)):
            yield from (one, quote(one, safe=""))
    if secret:
        yield secret


def hide_password_of_command_line(arguments: Sequence[str]) -> None:
    """Start this program again without the passwords that the storage URLs on its command line hold.

    Every user of the machine can read the command line of every process, and Ray keeps the driver's. The URLs go
    on in the environment, which only this user's processes can read, and from there into this process's memory,
    each password for its own URL alone. Returns where there is none.
    """
    words = [_StorageWord.of(word, before) for before, word in zip(["", *arguments], arguments, strict=False)]
    secret = [word.url for word in words if password_of(word.url) is not None]
    if secret:
        os.environ[_CARRIED] = json.dumps(secret)
        sys.stdout.flush()
        sys.stderr.flush()
        shown = [f"{word.head}{without_password(word.url)}{word.tail}" for word in words]
        os.execv(sys.executable, [sys.executable, "-P", "-m", "sweeper.cli", *shown])
    # Workers and other children need no storage, so they inherit none of this.
    for url in json.loads(os.environ.pop(_CARRIED, "[]")):
        keep_password(url)
        keep_password(absolute_storage(url))
    given = os.environ.pop(PASSWORD_VARIABLE, None)
    if given is not None:
        _given.append(given)


@dataclasses.dataclass(frozen=True)
class _StorageWord:
    """An argument, cut around the storage URL in it; one without is all head."""

    head: str
    url: str = ""
    tail: str = ""

    @classmethod
    def of(cls, word: str, before: str) -> "_StorageWord":
        if before == "--storage":
            return cls("", word)
        found = re.fullmatch(
            r"(--storage=|\s*storage\s*=\s*(?P<mark>[\"']?))(.*?)((?(mark)(?P=mark))\s*)", word
        )
        return cls(word) if found is None else cls(found[1], found[3], found[4])
