"""Storage URLs and their passwords: a password stays in this process's memory and is written nowhere."""

import dataclasses
import os
import re
import sys
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, unquote, urlencode

PASSWORD_VARIABLE = "SWEEPER_STORAGE_PASSWORD"
_HIDDEN = "***"
_passwords: dict[
    str, str
] = {}  # by URL without password; this process's memory is the only place that holds them

_DATABASES = ("postgres", "mysql", "mariadb", "sqlite", "mssql", "oracle")
# As SQLAlchemy (2.0) cuts a URL, since it decides what is sent as the password: `#`, `/` and `?` may be in it. An `@`
# that is not quoted would end it there; here it reaches to the last one before the host.
_OF_DATABASE = re.compile(
    r"(?P<head>[^:/]*://)(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*(?:@[^@/?]*(?=@))*))?@)?(?P<place>[^?]*)(?P<query>\?.*)?",
    re.DOTALL,
)
_OF_ANOTHER = re.compile(
    r"(?P<head>[^:/]*://)(?:(?P<user>[^:/?#]*)(?::(?P<password>[^/?#]*))?@)?(?P<place>[^?]*)(?P<query>\?.*)?",
    re.DOTALL,
)


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
        rule = _OF_DATABASE if url.startswith(_DATABASES) else _OF_ANOTHER
        found = rule.fullmatch(url)
        return (
            cls(**found.groupdict())
            if found
            else cls(head="", user=None, password=None, place=url, query=None)
        )

    @property
    def options(self) -> list[tuple[str, str]]:
        return parse_qsl((self.query or "")[1:])

    def __str__(self) -> str:
        words = self.user or ""
        if self.password is not None:
            words = f"{words}:{self.password}"
        return f"{self.head}{words and words + '@'}{self.place}{self.query or ''}"


def password_of(url: str) -> str | None:
    """Return a URL's password as it is meant, not as it is quoted; None where it has none."""
    parts = _Url.cut(url)
    if parts.password is not None:
        return unquote(parts.password)
    return dict(parts.options).get("password")


def mask_url(url: str) -> str:
    """Return a storage URL with its password hidden, for messages."""
    return url if password_of(url) is None else _with_password(url, _HIDDEN)


def without_password(url: str) -> str:
    """Return a storage URL as a study keeps it: all but the password."""
    return url if password_of(url) is None else _with_password(url, None)


def keep_password(url: str | None) -> str | None:
    """Keep a URL's password in memory for `with_password`, and return the URL without it."""
    password = None if url is None else password_of(url)
    if url is None or password is None:
        return url
    public = without_password(url)
    _passwords[public] = password
    return public


def with_password(url: str) -> str:
    """Return a URL with the password that was kept for it, or that of the environment; else as it is.

    PostgreSQL's own ways, PGPASSWORD and ~/.pgpass, need no help: its library looks there itself.
    """
    if "://" not in url or password_of(url) is not None:
        return url
    parts = _Url.cut(url)
    names_user = parts.user is not None or "user" in dict(parts.options)
    password = _passwords.get(url) or (_given_password() if names_user else None)
    if password is None:
        return url
    if parts.user is not None:
        return _with_password(url, quote(password, safe=""))
    query = urlencode([*parts.options, ("password", password)])
    return str(dataclasses.replace(parts, query=f"?{query}"))


def _given_password() -> str | None:
    return _passwords.get("") or os.environ.get(PASSWORD_VARIABLE)


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


def hide(text: str, url: str) -> str:
    """Return a text, for example a driver's message, without the URL's password in any spelling."""
    password = password_of(url)
    spellings = {password, quote(password, safe=""), _Url.cut(url).password} if password else ()
    for spelling in sorted(filter(None, spellings), key=len, reverse=True):
        text = text.replace(spelling, _HIDDEN)
    return text


def _with_password(url: str, password: str | None) -> str:
    parts = _Url.cut(url)
    if parts.password is not None or "password" not in dict(parts.options):
        return str(dataclasses.replace(parts, password=password))
    kept = [(key, value) for key, value in parts.options if key != "password"]
    both = [*kept, ("password", password)] if password is not None else kept
    query = urlencode(both, safe="*/:")
    return str(dataclasses.replace(parts, query=f"?{query}" if query else None))


def hide_password_of_command_line(arguments: Sequence[str]) -> None:
    """Start this program again without the password that a storage URL on its command line holds.

    Every user of the machine can read the command line of every process, and Ray keeps the driver's. The
    password goes on in the environment, which only this user's processes can read, and from there into this
    process's memory. Returns where there is none.
    """
    found = [password_of(_url_in(word)) for word in arguments if _url_in(word)]
    password = next((one for one in found if one), None)
    if password is not None:
        os.environ[PASSWORD_VARIABLE] = password
        sys.stdout.flush()
        sys.stderr.flush()
        shown = [_without_password_word(word) for word in arguments]
        os.execv(sys.executable, [sys.executable, "-P", "-m", "sweeper.cli", *shown])
    given = os.environ.pop(PASSWORD_VARIABLE, None)
    if given is not None:
        _passwords[""] = given  # workers and other children need no storage, so they do not inherit it


def _url_in(word: str) -> str:
    """Return the storage URL in an argument: alone, or after `--storage=` or `storage=`."""
    place = word.find("://")
    if place < 0:
        return ""
    start = place
    while start > 0 and (word[start - 1].isalnum() or word[start - 1] in "+.-"):
        start -= 1
    return word[start:]


def _without_password_word(word: str) -> str:
    url = _url_in(word)
    return word.removesuffix(url) + without_password(url) if url else word
