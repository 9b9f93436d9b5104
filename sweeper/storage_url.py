"""Storage URLs and their passwords: a password stays in this process's memory and is written nowhere."""

import os
import sys
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

PASSWORD_VARIABLE = "SWEEPER_STORAGE_PASSWORD"
_HIDDEN = "***"
_passwords: dict[
    str, str
] = {}  # by URL without password; this process's memory is the only place that holds them


def password_of(url: str) -> str | None:
    """Return a URL's password as it is meant, not as it is quoted; None where it has none."""
    parts = urlsplit(url)
    if parts.password is not None:
        return unquote(parts.password)
    return dict(parse_qsl(parts.query)).get("password")


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
    parts = urlsplit(url)
    query = parse_qsl(parts.query)
    names_user = parts.username is not None or "user" in dict(query)
    password = _passwords.get(url) or (_given_password() if names_user else None)
    if password is None:
        return url
    if parts.username is not None:
        return _with_password(url, quote(password, safe=""))
    return urlunsplit(parts._replace(query=urlencode([*query, ("password", password)])))


def _given_password() -> str | None:
    return _passwords.get("") or os.environ.get(PASSWORD_VARIABLE)


def hide(text: str, url: str) -> str:
    """Return a text, for example a driver's message, without the URL's password in any spelling."""
    password = password_of(url)
    for spelling in {password, quote(password, safe=""), urlsplit(url).password} if password else ():
        if spelling:
            text = text.replace(spelling, _HIDDEN)
    return text


def _with_password(url: str, password: str | None) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    words = f"{user}:{password}" if password is not None else user
    netloc = f"{words}@{host}" if words else host
    if parts.password is None and "password" in dict(parse_qsl(parts.query)):
        netloc = parts.netloc
        kept = [(key, value) for key, value in parse_qsl(parts.query) if key != "password"]
        both = [*kept, ("password", password)] if password is not None else kept
        parts = parts._replace(query=urlencode(both, safe="*/:"))
    return urlunsplit(parts._replace(netloc=netloc))


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
