// The members around their leader.

import { hue } from "./cluster.js";
import { svg } from "./dom.js";

const WIDTH = 320;
const RADIUS = { x: 112, y: 78 };
const TOP = 40;
const BELOW = 52;

export function drawRing(picture, members) {
  const leader = members.find((member) => member.role === "leader");
  const places = place(members);
  const links = svg("g", { class: "links" });
  const nodes = svg("g", { class: "nodes" });
  for (const member of members) {
    const { x, y } = places.get(member.name);
    if (leader && member !== leader) {
      const from = places.get(leader.name);
      links.append(
        svg("line", { x1: from.x, y1: from.y, x2: x, y2: y, "data-state": member.state }),
      );
      if (member.answers) {
        links.append(
          svg("line", { x1: from.x, y1: from.y, x2: x, y2: y, class: "beat" }),
        );
      }
    }
    const isLeader = member === leader;
    nodes.append(
      svg(
        "g",
        { "data-hue": hue(member.name), "data-state": member.state, "data-role": member.role },
        svg("circle", { cx: x, cy: y, r: isLeader ? 26 : 17 }),
        ...(isLeader ? [svg("circle", { cx: x, cy: y, r: 33, class: "halo" })] : []),
        svg("text", { x, y: y + (isLeader ? 50 : 36) }, member.name),
      ),
    );
  }
  const shape = members.map((m) => `${m.name} ${m.role} ${m.state}`).join("; ");
  if (picture.dataset.shape === shape) return; // a new picture would begin its motion anew
  picture.dataset.shape = shape;
  picture.setAttribute("aria-label", `The members: ${shape}`);
  const bottom = Math.max(...[...places.values()].map(({ y }) => y)) + BELOW;
  picture.setAttribute("viewBox", `0 0 ${WIDTH} ${bottom}`);
  picture.replaceChildren(links, nodes);
}

function place(members) {
  const places = new Map();
  const centre = { x: WIDTH / 2, y: TOP + RADIUS.y };
  if (members.length === 1) {
    places.set(members[0].name, centre);
    return places;
  }
  members.forEach((member, number) => {
    const angle = -Math.PI / 2 + (2 * Math.PI * number) / members.length;
    places.set(member.name, {
      x: centre.x + Math.cos(angle) * RADIUS.x,
      y: centre.y + Math.sin(angle) * RADIUS.y,
    });
  });
  return places;
}
