"""What can go wrong, as the exit statuses and error objects of the contract."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNKNOWN = 3
EXIT_NOT_FOUND = 4
EXIT_NOT_REACHABLE = 5
EXIT_NO_LEADER = 6

# Codes that raftctl adds to those of the protocol, because no agent was there to answer.
NOT_REACHABLE = "not_reachable"
FAILED = "failed"
NOT_IN_THIS_VERSION = "not_in_this_version"

_STATUS_OF_CODE = {
    "unknown_outcome": EXIT_UNKNOWN,
    "key_not_found": EXIT_NOT_FOUND,
    NOT_REACHABLE: EXIT_NOT_REACHABLE,
    "no_leader": EXIT_NO_LEADER,
    "no_quorum": EXIT_NO_LEADER,
}


class CommandError(Exception):
    """A command could not do its work.

    `error` is a sentence for people without a full stop, `code` a stable word (an
    `ErrorCode` of the protocol or one of this module), `hint` what to do next, `leader` a member's
    name; the last two may be empty.
    """

    def __init__(self, error: str, code: str = FAILED, hint: str = "", leader: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.code = code
        self.hint = hint
        self.leader = leader

    @property
    def exit_status(self) -> int:
        return _STATUS_OF_CODE.get(self.code, EXIT_FAILED)


def not_in_this_version(what: str) -> CommandError:
    """The answer of everything that a later version brings."""
    return CommandError(
        f"{what} is not in this version",
        NOT_IN_THIS_VERSION,
        "raftctl --help lists what this version can do",
    )
