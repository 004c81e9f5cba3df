"""Handshakes of TLS in memory."""

from __future__ import annotations

import ssl


class Ends:
    """A server's and a client's end, wired to each other."""

    def __init__(
        self, server: ssl.SSLContext, client: ssl.SSLContext, hostname: str | None = None
    ) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(to_server, to_client, server_side=True)
        self.client = client.wrap_bio(to_client, to_server, server_hostname=hostname)

    def shake(self) -> Ends:
        """Until both are done. Raises ssl.SSLError of whoever refuses first."""
        waiting = [self.client, self.server]
        for _ in range(10):
            for end in list(waiting):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                waiting.remove(end)
            if not waiting:
                return self
        raise AssertionError("the handshake has no end")

    def exchange(self) -> None:
        """A byte there and one back, which tells each that the other has accepted it."""
        self.client.write(b"?")
        assert self.server.read(1) == b"?"
        self.server.write(b"!")
        assert self.client.read(1) == b"!"
