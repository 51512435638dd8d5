"""From a request to a plain function and back: one wrapper for all routes, so that each is a few lines."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

from lib_dsm.api.security import Gate
from lib_dsm.api.service import ConflictError, ForbiddenError, MissingError, Service
from lib_dsm.errors import BusyError, DsmError, GuardError, StorageError
from lib_dsm.files import parse_json

logger = logging.getLogger("dsm.api")
BODY_LIMIT = 8 * 2**20
_PICTURE_HEADERS = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}

_WRONG_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES)
"""How systems say that the caller's path is at fault."""

_STATUS: tuple[tuple[type[DsmError], int], ...] = (
    (ForbiddenError, 403),
    (MissingError, 404),
    (ConflictError, 409),
    (BusyError, 409),
    (GuardError, 422),
    (StorageError, 507),
    (DsmError, 400),
)


@dataclass(frozen=True)
class Call:
    """What a request brought, as plain data; the readers raise InputError with the key at fault."""

    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)

    def _value(self, key: str) -> Any:
        for source in (self.path, self.body, self.query):
            if key in source:
                return source[key]
        return None

    def text(self, key: str, default: str | None = None) -> str:
        """A string; without a default it must be given."""
        value = self._value(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or "\0" in value:
            raise wrong(key, value, "text")
        return value

    def whole(self, key: str, default: int, minimum: int, maximum: int) -> int:
        """A whole number within bounds."""
        value = self._value(key)
        if value is None:
            return default
        try:
            number = int(value) if not isinstance(value, bool) else None
        except (TypeError, ValueError):
            number = None
        if number is None or not minimum <= number <= maximum:
            raise wrong(key, value, f"a whole number from {minimum} to {maximum}")
        return number

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self._value(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if value in ("true", "1", "false", "0"):
            return value in ("true", "1")
        raise wrong(key, value, "true or false")

    def texts(self, key: str, default: list[str] | None = None) -> list[str]:
        """A list of strings."""
        value = self._value(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise wrong(key, value, "a list of texts")
        return value

    def objects(self, key: str) -> list[dict[str, Any]]:
        """A list of objects with keys."""
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise wrong(key, value, "a list of objects")
        return value

    def object(self, key: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        """An object with keys."""
        value = self._value(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, dict):
            raise wrong(key, value, "an object")
        return value


def wrong(key: str, value: Any, expected: str) -> DsmError:
    """The error for a value of another kind than expected."""
    if value is None:
        return DsmError(f'The call lacks "{key}".', f"Give {expected}.")
    return DsmError(f'"{key}" is {str(value)[:80]!r}.', f"It must be {expected}.")


@dataclass(frozen=True)
class File:
    """An answer that is a file's content."""

    path: Path
    media_type: str


@dataclass(frozen=True)
class Bytes:
    """An answer that is made up of bytes."""

    content: bytes
    media_type: str


@dataclass(frozen=True)
class Route:
    """One route: its function gets the service and the call and returns plain data, a `File` or `Bytes`."""

    method: str
    path: str
    handler: Callable[[Service, Call], Any]

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]


def endpoint(route: Route, service: Service, gate: Gate) -> Callable[[Request], Awaitable[Response]]:
    """The route as Starlette wants it: gate, reading, a worker thread for the work, errors as sentences."""

    async def answer(request: Request) -> Response:
        query = dict(request.query_params)
        if not gate.admits(request.headers, query):
            return refusal(403, "This call has no valid token.", "Reload the page; programs use the API credentials.")
        try:
            body = await _body(request)
            call = Call(dict(request.path_params), query, body)
            result = await run_in_threadpool(route.handler, service, call)
        except ClientDisconnect:
            return refusal(400, "The caller left before the call was read.", "Call again.")  # nobody reads it
        except DsmError as error:
            status = next(code for kind, code in _STATUS if isinstance(error, kind))
            return refusal(status, error.problem, error.remedy)
        except OSError as error:
            if error.errno not in _WRONG_NAME:
                logger.exception("%s %s failed", route.method, route.path)
                return refusal(507, f"The disk refused: {error.strerror or error}.", "See the log.")
            name = str(error.filename or "")[-80:].encode("utf-8", "replace").decode("utf-8")
            return refusal(
                400, f'"…{name}" cannot be used: {error.strerror}.', "Give the path of a file that is there."
            )
        except Exception as error:
            logger.exception("%s %s failed", route.method, route.path)
            return refusal(500, f"Something unexpected went wrong: {type(error).__name__}: {error}.", "See the log.")
        if isinstance(result, File):
            return FileResponse(str(result.path), media_type=result.media_type, headers=_PICTURE_HEADERS)
        if isinstance(result, Bytes):
            return Response(result.content, media_type=result.media_type, headers=_PICTURE_HEADERS)
        return JSONResponse(result, headers={"Cache-Control": "no-store"})

    return answer


def refusal(status: int, problem: str, remedy: str) -> JSONResponse:
    """An error as the faces read it."""
    return JSONResponse({"error": {"problem": problem, "remedy": remedy}}, status_code=status)


def _is_text(content: bytearray, body: dict[str, Any]) -> bool:
    """Whether its texts can be paths, names and files: JSON can escape what no file system and no encoding takes."""
    if b"\\u" not in content:
        return True
    try:
        return "\\u0000" not in json.dumps(body, ensure_ascii=False).encode("utf-8").decode("utf-8")
    except (UnicodeEncodeError, RecursionError):
        return False


async def _body(request: Request) -> dict[str, Any]:
    if request.method == "GET":
        return {}
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > BODY_LIMIT:
            raise DsmError("The call is larger than 8 MB.", "Send less at once.")
    if not content:
        return {}
    try:
        body = parse_json(bytes(content))
    except ValueError:
        raise DsmError("The call's body is not JSON.", "Send an object as JSON.") from None
    if not isinstance(body, dict):
        raise DsmError("The call's body is no object.", "Send an object as JSON.")
    if not _is_text(content, body):
        raise DsmError("The call's body holds a zero or half of a character.", "Send whole texts.")
    return body
