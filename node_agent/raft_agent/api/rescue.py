"""Requests that save a cluster: a backup, and going on when a majority is lost.

Use them as members of `protocol`.
"""

from __future__ import annotations

import msgspec

from raft_agent.api.terms import BaseRequest


class SnapshotSave(BaseRequest, frozen=True, tag="snapshot_save"):
    """A stream of the bytes of a snapshot file: of all that was acknowledged before this request,
    and perhaps of more."""


class SnapshotPiece(msgspec.Struct, frozen=True):
    """The next bytes of the file; the last piece has `is_last`. `progress`: about which part of the
    whole is done then, from 0 to 1."""

    data: bytes
    progress: float = 0.0
    is_last: bool = False


class Recover(BaseRequest, frozen=True, tag="recover"):
    """Go on from this member alone. `accept_data_loss`: whoever asks knows that entries which only
    the lost members had are gone; without it nothing is done but to ask the other survivors."""

    accept_data_loss: bool = False


class SurveyedMember(msgspec.Struct, frozen=True):
    """One member, as this node finds it. `state`: "here", "survives", "unable" (its disk failed, or
    it was removed), "other_generation" or "unreachable"; `detail` says more. `term` and `index`: of
    the last entry of its log, 0 when it does not answer.
    """

    name: str
    id: str
    address: str
    state: str
    term: int = 0
    index: int = 0
    detail: str = ""


class RecoverResult(msgspec.Struct, frozen=True):
    """`best`: the survivor with the most complete log. `refusal`: why this member can't go on
    alone, and `hint` what to do; both empty when it can. `generation`: 16 hexadecimal digits of the
    new one that begins with the entry `index`; empty and 0 when nothing was done.
    """

    best: str
    members: list[SurveyedMember]
    refusal: str = ""
    hint: str = ""
    generation: str = ""
    index: int = 0
