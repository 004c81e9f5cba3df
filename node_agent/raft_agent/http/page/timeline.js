// Who led when, what happened in between, and the events in words.

import { hue } from "./cluster.js";
import { byId, el, svg } from "./dom.js";
import { clock, span } from "./format.js";

const KEPT = 500;
const LISTED = 60;
// What to call it, how many seconds, and how many between two marks of the axis.
const RANGES = [["5 min", 300, 60], ["1 h", 3600, 900], ["24 h", 86400, 21600]];
const NARROW = 520;
const LANES = ["Leader", "Elections", "Members", "Snapshots", "Trouble"];
const LANE_HEIGHT = 26;
const LEFT = 76;
const AXIS = 22;

const KINDS = {
  Elections: ["pre_vote_started", "election_started", "election_deferred", "leader_elected",
    "leader_found", "transfer_started", "transfer_failed"],
  Members: ["cluster_founded", "cluster_adopted", "cluster_joined", "configuration_changes",
    "configuration_in_force", "catching_up", "learner_promoted", "address_moved", "removed",
    "join_asked"],
  Snapshots: ["snapshot_taken", "snapshot_offered", "snapshot_sent", "snapshot_arrives",
    "snapshot_installed", "log_compacted"],
  Trouble: ["leader_lost", "stepped_down", "quorum_lost", "disk_stalls", "storage_failed",
    "snapshot_failed", "snapshot_refused", "snapshot_damaged", "warning", "address_refused",
    "join_refused", "log_lost", "log_truncated", "malformed_append", "impossible_reply"],
};
const LANE_OF = new Map(
  Object.entries(KINDS).flatMap(([lane, kinds]) => kinds.map((kind) => [kind, lane])),
);

export class Timeline {
  #events = [];
  #range = 0; // 0: as far back as the last change of the leader asks for
  #listed = "";

  constructor() {
    for (const [label, seconds] of RANGES) {
      const button = el("button", { type: "button", "aria-pressed": "false" }, label);
      button.addEventListener("click", () => {
        this.#range = this.#range === seconds ? 0 : seconds;
        this.redraw();
      });
      button.dataset.seconds = seconds;
      byId("ranges").append(button);
    }
  }

  // What an agent remembers, after this page has lost it or seen it start: earlier ones stay.
  begin(events) {
    const first = events.length ? Date.parse(events[0].time) : Infinity;
    const earlier = this.#events.filter((event) => event.at < first);
    this.#events = [...earlier, ...events.map(dated)].slice(-KEPT);
  }

  add(event) {
    this.#events.push(dated(event));
    if (this.#events.length > KEPT) this.#events.shift();
  }

  draw(now, node) {
    this.now = now;
    this.node = node;
    this.redraw();
  }

  redraw() {
    if (!this.now) return;
    const seconds = this.#range || this.#fitting();
    for (const button of byId("ranges").children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.seconds) === seconds));
    }
    this.#drawPicture(seconds);
    this.#drawList();
  }

  // The shortest range that shows a change of the leader.
  #fitting() {
    const last = this.#events.findLast((event) => KINDS.Elections.includes(event.kind));
    const age = last ? (this.now - last.at) / 1000 : 0;
    return (RANGES.find(([, seconds]) => age < seconds * 0.9) ?? RANGES.at(-1))[1];
  }

  #drawPicture(seconds) {
    const picture = byId("timeline");
    const width = Math.max(picture.clientWidth, 200);
    const height = LANES.length * LANE_HEIGHT + AXIS;
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.style.height = `${height}px`;
    const from = this.now - seconds * 1000;
    const x = (at) => LEFT + ((at - from) / (seconds * 1000)) * (width - LEFT - 4);
    const parts = [];
    LANES.forEach((lane, row) => {
      const y = row * LANE_HEIGHT;
      parts.push(
        svg("text", { class: "lane", x: 0, y: y + LANE_HEIGHT / 2 }, lane),
        svg("line", { class: "rule", x1: LEFT, x2: width, y1: y + LANE_HEIGHT, y2: y + LANE_HEIGHT }),
      );
    });
    for (const part of this.#reigns(from)) {
      const left = x(Math.max(part.from, from));
      const wide = Math.max(x(part.to) - left, 2);
      const bar = svg("rect", {
        class: "reign", "data-hue": hue(part.leader), x: left, y: 4, width: wide,
        height: LANE_HEIGHT - 8, rx: 4,
      }, svg("title", {}, `${part.leader}, term ${part.term}`));
      parts.push(bar);
      const label = `${part.leader} · term ${part.term}`;
      if (wide > label.length * 6.6) {
        parts.push(
          svg("text", { class: "reign-name", x: left + 8, y: LANE_HEIGHT / 2 }, label),
        );
      }
    }
    for (const event of this.#events) {
      const lane = LANE_OF.get(event.kind);
      if (event.at < from || !lane) continue;
      const y = LANES.indexOf(lane) * LANE_HEIGHT + LANE_HEIGHT / 2;
      parts.push(
        svg("circle", { class: "mark", "data-lane": lane, cx: x(event.at), cy: y, r: 4 },
          svg("title", {}, `${clock(event.at)} ${event.text}`)),
      );
    }
    const step = RANGES.find(([, range]) => range === seconds)[2] * (width < NARROW ? 2 : 1);
    for (let ago = 0; ago <= seconds; ago += step) {
      const label = ago ? `−${span(ago * 1000).replace(" 0 min", "")}` : "now";
      const anchor = ago === 0 ? "end" : ago === seconds ? "start" : "middle";
      const at = x(this.now - ago * 1000);
      parts.push(
        svg("text", { class: "axis", x: at, y: height - 6, "text-anchor": anchor }, label),
      );
    }
    picture.replaceChildren(...parts);
  }

  // Who led from when to when, as this node saw it.
  #reigns() {
    const found = [];
    let open = null;
    const close = (at) => {
      if (open) found.push({ ...open, to: at });
      open = null;
    };
    for (const event of this.#events) {
      if (event.kind === "leader_elected" || event.kind === "leader_found") {
        const leader = event.kind === "leader_found" ? String(event.facts.leader) : this.node;
        close(event.at);
        open = { leader, term: event.term, from: event.at };
      } else if (["leader_lost", "stepped_down", "quorum_lost", "started"].includes(event.kind)) {
        close(event.at);
      }
    }
    close(this.now);
    return found;
  }

  #drawList() {
    const shown = this.#events.slice(-LISTED).reverse();
    const mark = `${shown.length} ${shown[0]?.time} ${shown[0]?.kind}`;
    if (mark === this.#listed) return;
    this.#listed = mark;
    byId("events").replaceChildren(
      ...shown.map((event) =>
        el(
          "li",
          { "data-lane": LANE_OF.get(event.kind) ?? "Agent", "data-kind": event.kind },
          el("time", { datetime: event.time, title: event.time }, clock(event.at)),
          el("span", { class: "term" }, `term ${event.term}`),
          el("span", { class: "text" }, event.text),
        ),
      ),
    );
  }
}

const dated = (event) => ({ ...event, at: Date.parse(event.time) });
