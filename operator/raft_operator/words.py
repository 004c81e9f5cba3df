"""Steps in words, for people who read conditions and events."""

from __future__ import annotations

from raft_operator import actions
from raft_operator.actions import Step


def words_of(step: Step) -> str:
    """What is about to be done, as a sentence without a full stop."""
    match step:
        case None:
            return "the cluster is as it should be"
        case actions.Wait(why):
            return why
        case actions.WriteObjects(names):
            return f"writes {', '.join(names)}"
        case actions.Remember(founds, cluster_id):
            if cluster_id:
                return f"the cluster has the id {cluster_id}"
            return "looks for a former cluster" if not founds else "lets the seed found a cluster"
        case actions.SetPods(count):
            return f"has {count} pods run"
        case actions.LabelPod(pod, _, role):
            return f"labels {pod} as {role or 'no member'}"
        case actions.NoteHome(ordinal, _, node):
            return f"notes that the volume of the member {ordinal} is at {node}"
        case actions.DropRescue():
            return "takes back the rescue that was asked for: a quorum answers"
        case actions.Rescue(cluster_id):
            return f"goes on from the best survivor of {cluster_id}"
        case _:
            return _words_of_members(step)


def _words_of_members(step: Step) -> str:
    match step:
        case actions.Join(member, address):
            return f"has {member} at {address} join"
        case actions.Promote(member):
            return f"makes {member} a voter"
        case actions.Move(member, address):
            return f"has {member} be dialled at {address}"
        case actions.Leave(member, _, why):
            return f"removes the member {member}: {why}"
        case actions.HandOver(leader, to):
            return f"has {leader} hand over to {to}"
        case actions.RestartPod(pod, _, why):
            return f"makes the pod {pod} anew: {why}"
        case actions.ReplacePod(pod=pod, why=why):
            return f"makes the pod {pod} and its volume anew: {why}"
        case actions.DeleteVolume(ordinal):
            return f"deletes the volume of the former member {ordinal}"
        case _:
            raise AssertionError(f"a step without words: {step}")
