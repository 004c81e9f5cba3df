"""What the documents ask of `helm`, done by Helm's own code: it has an SDK for Python on x86_64.

`python -m tests.e2e.kube.helm install NAME CHART --namespace N …`, with KUBECONFIG set.
"""

from __future__ import annotations

import argparse
import os
import sys

import helm_python as helm

PATIENCE_S = 180


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="helm", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    install = commands.add_parser("install")
    install.add_argument("name")
    install.add_argument("chart")
    install.add_argument("--create-namespace", action="store_true")
    install.add_argument("--set", action="append", default=[])
    install.add_argument("--wait", action="store_true")
    for name in ("test", "uninstall"):
        commands.add_parser(name).add_argument("name")
    for command in commands.choices.values():
        command.add_argument("--namespace", default="default")
    return made


def main() -> int:
    asked = parser().parse_args()
    with helm.Config(
        kubeconfig_path=os.environ["KUBECONFIG"], namespace=asked.namespace
    ) as cluster:
        try:
            if asked.command == "install":
                cluster.install(
                    asked.chart,
                    asked.name,
                    helm.parse_set_string(",".join(asked.set)) if asked.set else None,
                    namespace=asked.namespace,
                    create_namespace=asked.create_namespace,
                    wait="watcher" if asked.wait else None,
                    timeout=PATIENCE_S,
                )
            elif asked.command == "test":
                cluster.test(asked.name, timeout=PATIENCE_S)
            else:
                cluster.uninstall(asked.name, wait="watcher", timeout=PATIENCE_S)
        except helm.HelmError as error:
            print(f"helm {asked.command}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
