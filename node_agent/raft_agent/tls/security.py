"""TLS for all connections of one agent."""

from __future__ import annotations

import asyncio
import functools

from raft_agent.tls.channel import Channel
from raft_agent.tls.credentials import Credentials
from raft_agent.tls.errors import CertificateRefused
from raft_agent.tls.handshakes import Handshakes
from raft_agent.tls.identity import Kind
from raft_agent.tls.layer import Count, Layer
from raft_agent.wire import FrameError


class Security:
    """Puts TLS under the protocols of connections, with the credentials in force at that moment.

    A connection that stands outlives the certificates that it was made with: those that have
    expired since, or whose authority is no longer trusted, are refused at the next connection. One
    whose certificate was revoked ends with `check_again`.
    """

    def __init__(self, credentials: Credentials, *, clear_headers: bool) -> None:
        """Call in the event loop."""
        self.credentials = credentials
        self._clear_headers = clear_headers
        self._handshakes = Handshakes(asyncio.get_running_loop())
        self._layers: set[Layer] = set()

    def accepted(self, protocol: asyncio.Protocol, count: Count) -> asyncio.Protocol:
        """The protocol for a connection that was accepted, over which `protocol` speaks frames.
        `count` as for Layer.
        """
        channel = Channel(
            self.credentials.server_context(), server_side=True, clear_headers=self._clear_headers
        )
        return Layer(
            channel,
            protocol,
            self.credentials.check,
            handshakes=self._handshakes,
            among=self._layers,
            count=count,
        )

    def dialled(self, protocol: asyncio.Protocol, name: str, count: Count) -> asyncio.Protocol:
        """The protocol for a connection to the node `name`, "" for any node."""
        channel = Channel(
            self.credentials.client_context(), server_side=False, clear_headers=self._clear_headers
        )
        check = functools.partial(self.credentials.check, kind=Kind.NODE, name=name)
        return Layer(channel, protocol, check, among=self._layers, count=count)

    def check_again(self) -> None:
        """The credentials were read anew: end the connections whose certificates are revoked."""
        for layer in list(self._layers):
            if layer.peer is None:
                continue
            try:
                self.credentials.check_again(layer.peer)
            except CertificateRefused as refused:
                layer.fail(FrameError(f"tls_{refused.reason}", refused.text))
