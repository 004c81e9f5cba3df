"""`raft-agent`: reads the command line and the configuration, then runs the node.

Exit status: 0 ended as asked, 1 could not start or had to stop, 2 usage or configuration.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from raft_agent import __version__, logs
from raft_agent.config import Config, ConfigError, load

EXIT_FAILED = 1
EXIT_USAGE = 2

_NO_TLS = (
    "there is no [tls]: whoever reaches {} can read and change everything as a member does, and "
    "remote clients are not served; docs/security.md says how to set it up"
)

if TYPE_CHECKING:
    import asyncio

# For how long a thread that wants to run Python waits before the one that does is asked to pause.
# The log's thread wants it three times for each fsync, while the loop may be busy for long, and the
# loop wants it back while a thread encodes a snapshot. By default it would be 5 ms each time.
_SWITCH_INTERVAL_S = 0.0005

log = logging.getLogger("raft.agent")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = command_line().parse_args(argv)
    try:
        config = _with_kernel_options(
            load(Path(arguments.config), overrides=arguments.set, with_certificates=True),
            arguments,
        )
        if arguments.check:
            return _check(config)
    except ConfigError as error:
        print(f"raft-agent: the configuration is refused\n{error}", file=sys.stderr)
        return EXIT_USAGE
    context = logs.LogContext(node=config.server.node_id)
    logs.setup(
        config.server.log_level,
        on_top=os.environ.get("RAFT_LOG", ""),
        log_format=os.environ.get("RAFT_LOG_FORMAT", "").strip() or config.server.log_format,
        context=context,
    )
    return _run(config, context)


def command_line() -> argparse.ArgumentParser:
    """What `raft-agent` takes; docs/cli.md is written from it."""
    parser = argparse.ArgumentParser(
        prog="raft-agent",
        description="One node of a Raft cluster. Ends on SIGTERM, after handing over leadership; "
        "reads log levels and certificates again on SIGHUP.",
        epilog="RAFT_LOG=info,raft.transport=debug sets log levels; docs/configuration.md lists "
        "every key, which the environment can set too, as in RAFT_SERVER_NODE_ID.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="raft.toml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set one key, as in server.node_id=node-01; wins over file and environment; may be "
        "given several times",
    )
    parser.add_argument("--check", action="store_true", help="validate the configuration and end")
    parser.add_argument("--version", action="version", version=f"raft-agent {__version__}")
    parser.add_argument(
        "--bpf-object",
        metavar="FILE",
        help="the kernel part's program, in the place of the installed one",
    )
    parser.add_argument(
        "--enable-fault-injection",
        action="store_true",
        help="for tests: let raftctl fault lose packets in the kernel part, and turn bits in "
        "memory",
    )
    return parser


def _with_kernel_options(config: Config, arguments: argparse.Namespace) -> Config:
    notes = config.notes
    if arguments.bpf_object is not None and not config.ebpf.enabled:
        notes = (*notes, "--bpf-object has no effect: ebpf.enabled is false")
    return msgspec.structs.replace(
        config,
        bpf_object=arguments.bpf_object or "",
        fault_injection=arguments.enable_fault_injection,
        notes=notes,
    )


def _check(config: Config) -> int:
    names = ", ".join(peer.id for peer in config.peers)
    print(
        f"configuration ok: {config.server.node_id} listens at {config.server.listen_addr}, "
        + (f"peers {names}" if names else "no peers")
    )
    notes = list(config.notes)
    if not (config.peers or config.cluster.bootstrap or config.cluster.join):
        notes.append(
            "an empty data directory would wait to be joined: there are no [[peers]], and neither "
            "bootstrap nor join in [cluster]"
        )
    try:
        notes.append(f"others are told to dial {config.advertise_address()}")
    except ConfigError as error:  # not the file's fault: it may be checked on another machine
        notes.append(f"here and now {error.problems[0].text}")
    for note in notes:
        print(f"note: {note}")
    return 0


def _run(config: Config, context: logs.LogContext) -> int:
    # Imported here, so that --check and --version answer at once.
    import asyncio  # noqa: PLC0415

    from raft_agent.runtime import run  # noqa: PLC0415
    from raft_agent.storage.errors import StorageError  # noqa: PLC0415
    from raft_agent.tls.errors import TlsError  # noqa: PLC0415
    from raft_agent.versions import VersionError  # noqa: PLC0415

    log.info("raft-agent %s starts with %s", __version__, config.path)
    for note in config.notes:
        log.warning("%s", note)
    if config.tls.files is None:
        log.warning("%s", _NO_TLS.format(config.server.listen_addr))
    _raise_file_limit()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            status: int = runner.run(run(config, context))
            return status
    except KeyboardInterrupt:
        return 128 + 2  # as a shell reports SIGINT
    except (StorageError, VersionError, ConfigError, TlsError, OSError) as error:
        log.error("the agent ends: %s", _said(error), exc_info=log.isEnabledFor(logging.DEBUG))
        return EXIT_FAILED
    except Exception:
        # A broken invariant among them: nothing this process holds can be trusted any more.
        log.critical("the agent ends: this is a bug, please report it", exc_info=True)
        return EXIT_FAILED


def _said(error: Exception) -> str:
    """Errors that this program words itself need no "[Errno …]" in front."""
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror
    return str(error)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: half the cost per frame; asyncio's own loop elsewhere."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        log.warning("uvloop is not installed: the agent works, but slower")
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _raise_file_limit() -> None:
    """Every client is a file; the soft limit of 1024 is for programs that use select(2)."""
    import resource  # noqa: PLC0415

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS: "unlimited" as the hard limit is not taken at its word
        log.info("at most %d files can be open at once", soft)


if __name__ == "__main__":
    sys.exit(main())
