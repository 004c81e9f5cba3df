"""etcd, API server, controllers and scheduler, on one host."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.agents import wait_for
from tests.e2e.kube.lab.hosts import Host
from tests.e2e.kube.lab.pki import Authority, Tokens, kubeconfig

PORT = 443
SERVICE_NET = "10.96.0.0/24"
SERVICE_ADDRESS = "10.96.0.1"  # the service `kubernetes`, which pods dial
# After so long a node that does not answer is unreachable, and its pods may be replaced after as
# long again. The defaults, 40 s and 5 minutes, would only make the tests longer.
NODE_GRACE_S = 16
_PKI = "/lab/home/pki"


class ControlPlane:
    """On `host`, whose address in the lab's network is `address`."""

    def __init__(self, host: Host, address: str) -> None:
        self.host = host
        self.address = address
        self.tokens = Tokens()
        self._pki = host.files / "pki"
        self._pki.mkdir()

    def prepare(self, nodes: list[str]) -> None:
        """Keys, certificates and tokens for itself and for these nodes."""
        authority = Authority(self._pki)
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        authority.server("apiserver", names, ["127.0.0.1", SERVICE_ADDRESS, self.address])
        authority.client("kubelet-client", "system:masters")
        authority.signing_key("accounts")
        self.tokens.add("admin", "system:masters")
        self.tokens.add("system:kube-controller-manager")
        self.tokens.add("system:kube-scheduler")
        self.tokens.add("raft-operator")
        self.tokens.add("crowd", "crowd")  # the tests' own traffic
        for node in nodes:
            self.tokens.add(f"system:node:{node}", "system:nodes")
        (self._pki / "tokens.csv").write_text(self.tokens.table())
        for name, user in (
            ("admin", "admin"),
            ("controllers", "system:kube-controller-manager"),
            ("scheduler", "system:kube-scheduler"),
        ):
            (self.host.files / f"{name}.kubeconfig").write_text(self.kubeconfig(user))

    def kubeconfig(self, user: str, authority: str = f"{_PKI}/ca.crt") -> str:
        """For a host on which ca.crt is at `authority`."""
        return kubeconfig(f"https://{self.address}:{PORT}", Path(authority), self.tokens.of(user))

    def authority(self) -> str:
        """ca.crt."""
        return (self._pki / "ca.crt").read_text()

    def start(self) -> None:
        """The API server is ready when this returns."""
        etcd = "http://127.0.0.1:2379"
        self.host.start(
            *("etcd", "etcd", "--data-dir=/var/lib/etcd/lab"),
            *(f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}"),
            # A lab that lost its power is made anew.
            "--unsafe-no-fsync",
        )
        self.start_api()
        identities = [
            *("--authorization-kubeconfig=/lab/home/{0}.kubeconfig",),
            *("--authentication-kubeconfig=/lab/home/{0}.kubeconfig",),
            *("--kubeconfig=/lab/home/{0}.kubeconfig", "--leader-elect=false", "--port=0"),
            *("--bind-address=127.0.0.1", "--cert-dir=/run/{0}"),
        ]
        self.host.start(
            *("controllers", "kube-controller-manager"),
            *(option.format("controllers") for option in identities),
            f"--service-account-private-key-file={_PKI}/accounts.key",
            f"--root-ca-file={_PKI}/ca.crt",
            "--use-service-account-credentials=true",
            *("--node-monitor-period=1s", f"--node-monitor-grace-period={NODE_GRACE_S}s"),
        )
        self.host.start(
            *("scheduler", "kube-scheduler"),
            *(option.format("scheduler") for option in identities),
        )

    def start_api(self, *options: str) -> None:
        """`options`: more of kube-apiserver's."""
        self.host.start(
            *("apiserver", "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379"),
            *("--bind-address=0.0.0.0", f"--secure-port={PORT}", "--allow-privileged=true"),
            f"--advertise-address={self.address}",
            *(f"--tls-cert-file={_PKI}/apiserver.crt", "--authorization-mode=Node,RBAC"),
            *(f"--tls-private-key-file={_PKI}/apiserver.key", f"--client-ca-file={_PKI}/ca.crt"),
            f"--token-auth-file={_PKI}/tokens.csv",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={_PKI}/accounts.key",
            f"--service-account-signing-key-file={_PKI}/accounts.key",
            f"--service-cluster-ip-range={SERVICE_NET}",
            f"--kubelet-client-certificate={_PKI}/kubelet-client.crt",
            f"--kubelet-client-key={_PKI}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--default-not-ready-toleration-seconds={NODE_GRACE_S}",
            f"--default-unreachable-toleration-seconds={NODE_GRACE_S}",
            *options,
        )
        wait_for("the API server", self._is_ready, timeout_s=120)

    def stop_api(self) -> None:
        """Every watch ends, and nobody is answered."""
        self.host.stop("apiserver")

    def _is_ready(self) -> bool | None:
        log = self.host.log("apiserver")
        assert self.host.is_running("apiserver"), log.read_text()[-3000:]
        try:
            return True if self.kubectl("get", "--raw=/readyz") == "ok" else None
        except AssertionError:
            return None

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """The output of kubectl, called by an administrator; AssertionError when it fails."""
        command = ("kubectl", "--kubeconfig=/lab/home/admin.kubeconfig", *arguments)
        return self.host.run(*command, stdin=stdin)

    def apply(self, *documents: dict[str, object]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))
