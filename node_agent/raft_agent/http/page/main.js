// The status page: takes what the agent pushes and has each part drawn.

import { members as membersOf, meet, verdict } from "./cluster.js";
import { follow } from "./connection.js";
import { byId, setFacts, setText } from "./dom.js";
import { clock, count, span } from "./format.js";
import { Log } from "./log.js";
import { Members } from "./members.js";
import { Pictures } from "./pictures.js";
import { drawRate } from "./rate.js";
import { drawRing } from "./ring.js";
import { Samples } from "./samples.js";
import { Timeline } from "./timeline.js";

const samples = new Samples();
const members = new Members(byId("members"));
const log = new Log();
const pictures = new Pictures(byId("pictures"));
const timeline = new Timeline();

let tick = null;
let due = false;

function draw() {
  due = false;
  if (!tick) return;
  const known = membersOf(tick);
  meet(known.map((member) => member.name));
  drawHead(known);
  members.draw(known);
  drawRing(byId("ring"), known);
  log.draw(tick, known);
  drawRate(samples);
  pictures.draw(samples, whyEmpty());
  timeline.draw(Date.parse(tick.vitals.time), tick.status.node_id);
}

function drawSoon() {
  if (due || document.hidden) return;
  due = true;
  requestAnimationFrame(draw);
}

function drawHead(known) {
  const { status, vitals } = tick;
  const now = verdict(tick);
  const hero = document.querySelector(".hero");
  hero.dataset.state = now.state;
  document.title = `${status.node_id}: ${now.title}`;
  setText(byId("node"), status.node_id);
  setText(byId("cluster"), status.cluster_id ? `cluster ${status.cluster_id.slice(0, 8)}` : "");
  setText(byId("quorum"), now.eyebrow);
  setText(byId("verdict"), now.title);
  const learners = status.learners.length;
  const others = learners ? `, ${learners} learner${learners > 1 ? "s" : ""}` : "";
  setText(byId("detail"), known.length
    ? `${now.answering} of ${now.voters.length} voters answer${others}`
    : "");
  const note = status.note || tick.not_ready;
  byId("note").hidden = !note;
  setText(byId("note"), note);
  setFacts(byId("facts"), [
    ["Term", count(status.term)],
    ["Role here", status.role],
    ["Keys", count(vitals.counts.keys)],
    ["Clients", count(vitals.counts.clients)],
    ["Watches", count(vitals.counts.watches)],
    ["Sessions", count(vitals.counts.sessions)],
    ["Waiting", count(Object.values(vitals.queues).reduce((sum, number) => sum + number, 0))],
    ["Up for", span(Date.parse(vitals.time) - Date.parse(vitals.started))],
  ]);
  setText(byId("about"), `raft-ebpf ${status.version}, eBPF ${status.ebpf.state}, ` +
    `cluster ${status.cluster_id || "none"}`);
}

function whyEmpty() {
  const { status } = tick;
  if (status.role === "leader") {
    return {
      commit: "Nothing was proposed in the last two minutes",
      fsync: "Nothing was written in the last two minutes",
    };
  }
  const leader = status.leader ?? "the leader";
  return {
    commit: `Nothing was proposed here; writes go to ${leader}`,
    fsync: "Nothing was written in the last two minutes",
    wire: `Only a leader measures it: ${leader}`,
  };
}

function connected(fresh) {
  tick = fresh;
  document.body.dataset.connection = "live";
  setText(byId("connection"), "live");
  samples.add(fresh.vitals);
  drawSoon();
}

follow({
  onHello(hello) {
    for (const vitals of hello.history) samples.add(vitals);
    timeline.begin(hello.events);
    connected(hello.tick);
  },
  onTick: connected,
  onEvent(event) {
    timeline.add(event);
    drawSoon();
  },
  onLost() {
    if (document.body.dataset.connection === "lost") return;
    document.body.dataset.connection = "lost";
    setText(byId("connection"), `no contact since ${clock(Date.now())}, trying again`);
  },
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawSoon);
addEventListener("resize", drawSoon);
document.addEventListener("visibilitychange", drawSoon);
