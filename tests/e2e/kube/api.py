"""The API server as tests ask it: JSON over the socket of a `kubectl proxy`, which has rights."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.e2e.agents import wait_for

T = TypeVar("T")
_PAUSE_S = 0.2
Object = dict[str, Any]

CLUSTERS = "/apis/raft-ebpf.dev/v1alpha1/namespaces/{}/raftclusters"
PODS = "/api/v1/namespaces/{}/pods"


class ApiError(Exception):
    """The API server refused, or is away; `status` is that of HTTP, 0 when there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float = 30) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Api:
    """`path`: the socket of `kubectl proxy --unix-socket`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
    ) -> Object:
        """The answer. Raises ApiError."""
        connection = _Connection(self._path)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": content_type})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(0, repr(error)) from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiError(answer.status, text.decode(errors="replace"))
        found: Object = json.loads(text)
        return found

    def get(self, path: str) -> Object | None:
        """None when there is no such object."""
        try:
            return self.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str) -> list[Object]:
        found: list[Object] = self.request("GET", path)["items"]
        return found

    def changes(self, path: str, since: str, seconds: int) -> list[Object]:
        """What becomes of the objects at `path` in so many seconds after the version `since`.
        AssertionError when the API server does not watch for as long."""
        began = time.monotonic()
        connection = _Connection(self._path, seconds + 30)
        query = f"watch=true&resourceVersion={since}&timeoutSeconds={seconds}"
        try:
            connection.request("GET", f"{path}?{query}")
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            found = [json.loads(line) for line in answer.read().splitlines()]
        finally:
            connection.close()
        assert time.monotonic() - began > seconds - 1, f"the watch was cut off after {found}"
        return found

    def create(self, path: str, body: Object) -> Object:
        return self.request("POST", path, body)

    def merge(self, path: str, change: Object) -> Object:
        """What `kubectl patch --type=merge` does."""
        return self.request("PATCH", path, change, "application/merge-patch+json")

    def delete(self, path: str, **options: object) -> None:
        """Asks for it; an object that is gone already is fine."""
        try:
            self.request("DELETE", path, options or None)
        except ApiError as error:
            if error.status != 404:
                raise

    def wait(self, what: str, probe: Callable[[], T | None], timeout_s: float) -> T:
        """`wait_for`, for which an API server that is away is one that has nothing to tell yet."""

        def ask() -> T | None:
            # Each question is work for the API server, which others wait for, too.
            time.sleep(_PAUSE_S)
            try:
                return probe()
            except ApiError:
                return None

        return wait_for(what, ask, timeout_s)
