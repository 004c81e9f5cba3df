"""What is wrong with certificates and keys, in words for people."""

from __future__ import annotations


class TlsError(Exception):
    """`file` is the path that it is about, or "". str() is a sentence that says what is wrong and
    what would be right.
    """

    def __init__(self, text: str, file: str = "") -> None:
        super().__init__(f"{file}: {text}" if file else text)
        self.text = text
        self.file = file


class CertificateRefused(TlsError):  # noqa: N818  (a decision, not a fault of this program)
    """The other side's certificate is not one to trust; `reason` is a short stable word for
    counters: "certificate" (it names nobody of ours), "revoked", "role" (a client where a node
    should be, or the other way round), "name".
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
