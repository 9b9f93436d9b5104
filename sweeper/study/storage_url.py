"""Storage URLs and their passwords: a password stays in this process's memory and is written nowhere."""

import os
import sys
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

PASSWORD_VARIABLE = "SWEEPER_STORAGE_PASSWORD"
_HIDDEN = "***"


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


def with_password(url: str) -> str:
    """Return a URL with the password of this process's environment where it has none of its own.

    PostgreSQL's own ways, PGPASSWORD and ~/.pgpass, need no help: its library looks there itself.
    """
    password = os.environ.get(PASSWORD_VARIABLE)
    if password is None or "://" not in url or password_of(url) is not None or urlsplit(url).username is None:
        return url
    return _with_password(url, quote(password, safe=""))


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
    """Start this process again without the password that a storage URL on its command line holds.

    Every user of the machine can read the command line of every process, and Ray keeps the driver's. The
    password goes on in the environment, which only this user's processes can read. Returns where there is none.
    """
    shown = [_without_password_word(word) for word in arguments]
    found = [password_of(_url_in(word)) for word in arguments if _url_in(word)]
    password = next((one for one in found if one), None)
    if password is None:
        return
    os.environ[PASSWORD_VARIABLE] = password
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *_interpreter_words(), *shown])


def _interpreter_words() -> list[str]:
    """Return what stands between `python` and this program's own arguments."""
    words = sys.orig_argv
    own = len(sys.argv) - 1
    return words[1 : len(words) - own]


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
