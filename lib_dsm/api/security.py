"""Who may call the routes: the page that was given the token, or a program with the host's own API credentials."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TOKEN_HEADER = "x-dsm-token"
TOKEN_QUERY = "token"  # for pictures, which a page cannot fetch with a header; see `endpoint`


def new_token() -> str:
    """An unguessable token, one for each process."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Gate:
    """The rule by which calls are let in. `credentials` maps a user to the password; empty lets no program in."""

    token: str
    credentials: Mapping[str, str] = field(default_factory=dict)

    def admits(self, headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
        """Whether a call with these headers (lower case) and this query is let in."""
        if comes_from_elsewhere(headers):
            return False
        given = headers.get(TOKEN_HEADER) or query.get(TOKEN_QUERY, "")
        return _same(given, self.token) or self._basic(headers.get("authorization", ""))

    def _basic(self, header: str) -> bool:
        kind, _, encoded = header.partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        expected = self.credentials.get(user)
        return bool(colon) and expected is not None and _same(password, expected)


def comes_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a foreign page makes the call (Fetch Metadata, else the Origin header).

    Behind a proxy the Host header may be the proxy's own name for us, so that X-Forwarded-Host counts too; a foreign
    page can set neither.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    return urlsplit(origin).netloc not in {headers.get("host"), headers.get("x-forwarded-host")}


def _same(given: str, expected: str) -> bool:
    return bool(expected) and hmac.compare_digest(given.encode("utf-8"), expected.encode("utf-8"))
