"""Errors as answers: an HTTP status and OpenAI's error object, which clients turn into their own exceptions.

{"error": {"message": "…", "type": "invalid_request_error", "param": "temperature", "code": null}}
"""

from typing import Any, Iterable, Mapping

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from lib.errors import nearest, one_line

#: The error types of OpenAI's API by status; clients choose their exception by the status alone.
_TYPES = {401: "authentication_error", 403: "permission_error", 503: "overloaded_error"}


class ApiError(Exception):
    """What a client reads: an HTTP `status`, a message of one line, and the field `param` that is wrong, if it is one."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(one_line(message))
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def to_json(self) -> dict[str, Any]:
        """OpenAI's error object."""
        fallback = "invalid_request_error" if self.status < 500 else "server_error"
        kind = _TYPES.get(self.status, fallback)
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.to_json(), self.status, self.headers)


def invalid(param: str | None, message: str) -> ApiError:
    """The field `param` has a value that cannot be used: 400."""
    return ApiError(400, message, param=param)


def unknown_model(name: str, known: Iterable[str]) -> ApiError:
    """No model called `name` is served: 404 with the names that are."""
    message = f"the model {name[:100]!r} is not served here; {nearest(name[:100], known)}"
    return ApiError(404, message, param="model", code="model_not_found")


def as_api_error(error: Exception) -> ApiError:
    """Any exception as an answer; of those that no handler expected, a client reads nothing about this machine."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, error.detail, headers=error.headers)
    return ApiError(500, "the server failed to answer; its log says why")
