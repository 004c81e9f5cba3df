"""What can go wrong, as the exit statuses and error objects of the contract."""

from __future__ import annotations

import re
from collections.abc import Sequence

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNKNOWN = 3
EXIT_NOT_FOUND = 4
EXIT_NOT_REACHABLE = 5
EXIT_NO_LEADER = 6
EXIT_INTERRUPTED = 130  # what shells make of Ctrl+C: 128 + SIGINT

# Codes that raftctl adds to those of the protocol, because no agent was there to answer.
NOT_REACHABLE = "not_reachable"
FAILED = "failed"
USAGE = "usage"
LOCK_LOST = "lock_lost"
NOT_IN_THIS_VERSION = "not_in_this_version"

# Commands that talk to an agent and, in a hint, mean the agent that was just asked.
_ASKING = (
    "status|health|send|messages|watch|propose|lease|lock|join|leave|member|leader|settings|events"
    "|doctor|bench|top|recover|rebuild|export|kernel|fault"
)
_BARE_CALL = re.compile(
    rf"\braftctl (?!rebuild --data-dir)"
    rf"(?=(?:--timeout \S+ |--forward |(?:-o|--output) \S+ )*(?:{_ASKING})\b)"
)

_STATUS_OF_CODE = {
    "unknown_outcome": EXIT_UNKNOWN,
    # What the command did last may not have been protected.
    LOCK_LOST: EXIT_UNKNOWN,
    "key_not_found": EXIT_NOT_FOUND,
    NOT_REACHABLE: EXIT_NOT_REACHABLE,
    USAGE: EXIT_USAGE,
    "no_leader": EXIT_NO_LEADER,
}


class CommandError(Exception):
    """A command could not do its work.

    `error` is a sentence for people without a full stop, `code` a stable word (an
    `ErrorCode` of the protocol or one of this module), `hint` what to do next, `leader` a member's
    name; the last two may be empty. `details`: lines for people between error and hint.
    `other_way`: another way out, told only to people at a terminal.
    """

    other_way = ""

    def __init__(
        self,
        error: str,
        code: str = FAILED,
        hint: str = "",
        leader: str = "",
        details: Sequence[str] = (),
    ) -> None:
        super().__init__(error)
        self.error = error
        self.code = code
        self.hint = hint
        self.leader = leader
        self.details = details

    @property
    def exit_status(self) -> int:
        return _STATUS_OF_CODE.get(self.code, EXIT_FAILED)


def paste_ready(hint: str, call: str) -> str:
    """`hint` with `call` ("raftctl --node NAME") where it says raftctl without saying which agent:
    pasted as it was, it would ask another one.
    """
    return _BARE_CALL.sub(lambda _match: f"{call} ", hint)
