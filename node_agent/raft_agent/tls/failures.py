"""What went wrong in TLS, as one line for people and a short stable word for counters.

Numbers are those of x509_vfy.h, names those of OpenSSL's reasons.
"""

from __future__ import annotations

import ssl

from raft_agent.wire import FrameError

_FOREIGN = ("tls_foreign", "its certificate was not signed by an authority of this cluster")
_EXPIRED = ("tls_expired", "its certificate has expired")
_OTHER_HOST = (
    "tls_name",
    "its certificate is for other hosts: dial one that it names, or say by --server-name which "
    "node is meant",
)
_BY_VERIFY_CODE = {
    2: _FOREIGN,
    18: _FOREIGN,
    19: _FOREIGN,
    20: _FOREIGN,
    21: _FOREIGN,
    7: ("tls_foreign", "its certificate bears a false signature"),
    9: ("tls_not_yet_valid", "its certificate is not valid yet: do the clocks differ?"),
    10: _EXPIRED,
    23: ("tls_revoked", "its certificate was revoked"),
    3: ("tls_crl", "tls.crl has no list of revoked certificates of its authority"),
    11: ("tls_crl", "the list of revoked certificates is not valid yet: do the clocks differ?"),
    12: ("tls_crl", "the list of revoked certificates in tls.crl has expired: make it anew"),
    26: ("tls_purpose", "its certificate is not for this purpose (extended key usage)"),
    62: _OTHER_HOST,
    64: _OTHER_HOST,
}

# What the other side says of our certificate (RFC 8446 §6.2).
_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority of this side's certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it finds this side's certificate expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it finds this side's certificate revoked",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept this side's certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "this side's certificate is not for this purpose",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept this side's certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "it lets this side's certificate do nothing",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a certificate, and this side has none",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS 1.3",
}
_VERSIONS = frozenset({"UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "WRONG_SSL_VERSION"})


def of_handshake(error: ssl.SSLError) -> FrameError:
    """Why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason, text = _BY_VERIFY_CODE.get(
            error.verify_code, ("tls_certificate", f"its certificate: {error.verify_message}")
        )
        return FrameError(reason, text)
    name = error.reason or ""
    if name == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return FrameError("tls_no_certificate", "it shows no certificate")
    if name in _VERSIONS:
        return FrameError("tls_version", "it speaks no TLS 1.3")
    return of_records(error)


def of_records(error: ssl.SSLError) -> FrameError:
    """Why records can't be read."""
    name = error.reason or ""
    if name in _ALERTS:
        return FrameError("tls_refused", _ALERTS[name])
    words = name.replace("_", " ").lower() or str(error)
    if "ALERT" in name:
        return FrameError("tls_refused", f"it refuses this side: {words}")
    return FrameError("tls_records", f"TLS records that can't be read ({words})")
