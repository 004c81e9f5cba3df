// What a tick says of the cluster, in the words of the page.

const HUES = 8;

// Each member keeps its colour: by its place among all names that this page has seen.
const seen = [];

export function hue(name) {
  if (!name) return "none";
  if (!seen.includes(name)) {
    seen.push(name);
  }
  return String(seen.indexOf(name) % HUES);
}

export function meet(names) {
  for (const name of [...names].sort()) hue(name);
}

// The members as the leader sees them, or as this node does when no leader answers. A member that
// answers is in the term of who asks it.
export function members(tick) {
  const { status, health } = tick;
  const leader = health.leader ?? status.leader;
  return health.members.map((member) => {
    const answers = member.state !== "unreachable";
    const isSelf = member.name === status.node_id;
    let role = member.role === "learner" ? "learner" : "follower";
    if (member.name === leader) role = "leader";
    else if (isSelf) role = status.role;
    if (!answers) role = member.role;
    return { ...member, answers, isSelf, role, term: answers ? health.term : null };
  });
}

export function verdict(tick) {
  const { status, health } = tick;
  const voters = members(tick).filter((member) => status.voters.includes(member.name));
  const answering = voters.filter((member) => member.answers).length;
  const leader = health.leader ?? status.leader;
  if (!status.cluster_id) {
    return { state: "waiting", eyebrow: "No cluster yet", title: status.node_id, answering, voters };
  }
  if (!leader) {
    const eyebrow = 2 * answering > voters.length ? "Election" : "No quorum";
    return { state: "bad", eyebrow, title: "Nobody leads", answering, voters };
  }
  if (!health.quorum) {
    return { state: "bad", eyebrow: "No quorum", title: `${leader} can’t commit`, answering, voters };
  }
  const isWell = answering === voters.length && health.members.every((m) => m.state === "healthy");
  return {
    state: isWell ? "good" : "fair",
    eyebrow: isWell ? "Healthy" : "Quorum, but not all is well",
    title: `${leader} leads`,
    answering,
    voters,
  };
}
