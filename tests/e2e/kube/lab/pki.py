"""Who is who in the lab: an authority, the API server's certificate, tokens for everybody else."""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)


class Authority:
    """Writes ca.crt and whatever else it makes into `home`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = self._builder(self._name, self._key.public_key())
        certificate = builder.add_extension(constraints, critical=True).sign(
            self._key, hashes.SHA256()
        )
        self._write("ca.crt", certificate)

    def server(self, name: str, names: list[str], addresses: list[str]) -> None:
        """NAME.crt and NAME.key of who is dialled under these names and addresses."""
        alternatives = x509.SubjectAlternativeName(
            [
                *(x509.DNSName(dns) for dns in names),
                *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
            ]
        )
        self._issue(name, [(NameOID.COMMON_NAME, name)], [alternatives])

    def client(self, name: str, group: str) -> None:
        """NAME.crt and NAME.key of a member of `group`."""
        subject = [(NameOID.ORGANIZATION_NAME, group), (NameOID.COMMON_NAME, name)]
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        self._issue(name, subject, [usage])

    def signing_key(self, name: str) -> None:
        """NAME.key, which signs the tokens of service accounts."""
        self._write_key(name, rsa.generate_private_key(public_exponent=65537, key_size=2048))

    def _issue(
        self,
        name: str,
        subject: list[tuple[x509.ObjectIdentifier, str]],
        extensions: list[x509.ExtensionType],
    ) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        attributes = [x509.NameAttribute(kind, text) for kind, text in subject]
        builder = self._builder(x509.Name(attributes), key.public_key())
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        self._write(f"{name}.crt", builder.sign(self._key, hashes.SHA256()))
        self._write_key(name, key)

    def _builder(self, subject: x509.Name, key: rsa.RSAPublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + 30 * _DAY)
        )

    def _write(self, name: str, certificate: x509.Certificate) -> None:
        (self._home / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _write_key(self, name: str, key: rsa.RSAPrivateKey) -> None:
        (self._home / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )


class Tokens:
    """A token for each user, as `kube-apiserver --token-auth-file` reads them."""

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[str, str]] = {}

    def add(self, user: str, group: str = "") -> None:
        self._tokens[user] = (secrets.token_hex(16), group)

    def table(self) -> str:
        return "".join(
            f'{token},{user},{user},"{group}"\n' if group else f"{token},{user},{user}\n"
            for user, (token, group) in self._tokens.items()
        )

    def of(self, user: str) -> str:
        return self._tokens[user][0]


def kubeconfig(server: str, authority: Path, token: str) -> str:
    """What a client needs to reach the API server `server` (https://HOST:PORT)."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "lab",
                    "cluster": {"server": server, "certificate-authority": str(authority)},
                }
            ],
            "users": [{"name": "lab", "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "current-context": "lab",
        }
    )
