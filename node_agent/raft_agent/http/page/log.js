// How far the log is, and how far each member is behind its end.

import { hue } from "./cluster.js";
import { byId, el, setFacts, setText } from "./dom.js";
import { count } from "./format.js";

// The end of a track stands for so many entries and more.
const FARTHEST = 1e6;
const MARKS = [[0, "0"], [10, "10"], [1e3, "1 k"], [1e5, "100 k"]];

export class Log {
  #tracks = new Map();

  draw(tick, members) {
    const { vitals } = tick;
    setFacts(byId("indexes"), [
      ["Committed", count(vitals.commit_index)],
      ["Applied", count(vitals.applied_index)],
      ["On disk", count(vitals.persisted_index)],
      ["Last entry", count(vitals.last_index)],
      ["Snapshot", vitals.snapshot_index ? count(vitals.snapshot_index) : "none"],
      ["Log begins", count(vitals.first_index)],
    ]);
    const parent = byId("tracks");
    if (!parent.children.length) parent.append(scale());
    const names = new Set(members.map((member) => member.name));
    for (const [name, track] of this.#tracks) {
      if (names.has(name)) continue;
      track.remove();
      this.#tracks.delete(name);
    }
    for (const member of members) this.#drawOne(parent, member);
  }

  #drawOne(parent, member) {
    let track = this.#tracks.get(member.name);
    if (!track) {
      track = el(
        "div",
        { class: "track", "data-hue": hue(member.name) },
        el("span", { class: "name" }, member.name),
        el("span", { class: "rail" }, el("i", { class: "fill" }), el("i", { class: "dot" })),
        el("span", { class: "number" }),
      );
      this.#tracks.set(member.name, track);
      parent.append(track);
    }
    const known = member.lag !== null;
    track.classList.toggle("unknown", !known);
    track.querySelector(".rail").style.setProperty("--at", `${known ? position(member.lag) : 0}%`);
    setText(track.querySelector(".number"), known ? count(member.lag) : "not known");
  }
}

// Where a lag stands on the track, in percent: by its digits, and 0 at the right end.
function position(lag) {
  const share = Math.log10(1 + Math.min(lag, FARTHEST)) / Math.log10(1 + FARTHEST);
  return (100 * (1 - share)).toFixed(2);
}

function scale() {
  const rail = el("span", { class: "rail" });
  for (const [lag, label] of MARKS) {
    const mark = el("b", {}, label);
    mark.style.setProperty("--at", `${position(lag)}%`);
    rail.append(mark);
  }
  return el("div", { class: "track scale", "aria-hidden": "true" }, el("span"), rail, el("span"));
}
