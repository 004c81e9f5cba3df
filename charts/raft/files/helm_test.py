"""What `helm test` runs, in the operator's image: is the operator ready, is a RaftCluster taken?"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PATIENCE_S = 120


def ask(path: str, body: str | None = None) -> dict:
    """The API server's answer. Ends the test with its words when it refuses."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    request = urllib.request.Request(  # https and no other
        f"https://{f'[{host}]' if ':' in host else host}:{port}{path}",
        data=body and body.encode(),
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}",
            "Content-Type": "application/json",
        },
    )
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, context=trust, timeout=30) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"{path}: {error.code} {error.read().decode(errors='replace')}")


namespace, deployment = os.environ["NAMESPACE"], os.environ["DEPLOYMENT"]
give_up_at = time.monotonic() + PATIENCE_S
while True:
    found = ask(f"/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}")
    if found.get("status", {}).get("availableReplicas", 0) >= 1:
        break
    if time.monotonic() > give_up_at:
        sys.exit(f"the operator is not ready: kubectl -n {namespace} describe deploy {deployment}")
    time.sleep(1)
print("the operator is ready")

path = f"/apis/raft-ebpf.dev/v1alpha1/namespaces/{namespace}/raftclusters?dryRun=All"
ask(path, os.environ["CLUSTER"])
print("the API server takes a RaftCluster")
