// One card per member.

import { hue } from "./cluster.js";
import { el, setFacts, setText } from "./dom.js";
import { count, span } from "./format.js";

const STATES = { healthy: "healthy", lagging: "lagging", unreachable: "unreachable" };

export class Members {
  #parent;
  #cards = new Map();

  constructor(parent) {
    this.#parent = parent;
  }

  draw(members) {
    const names = new Set(members.map((member) => member.name));
    for (const [name, card] of this.#cards) {
      if (names.has(name)) continue;
      card.remove();
      this.#cards.delete(name);
    }
    for (const member of members) this.#drawOne(member);
  }

  #drawOne(member) {
    let card = this.#cards.get(member.name);
    if (!card) {
      card = el(
        "article",
        { class: "card member", "data-member": member.name, "data-hue": hue(member.name) },
        el("header", {}, el("h3", {}, member.name), el("span", { class: "pill" })),
        el("dl", { class: "facts" }),
        el("p", { class: "detail" }),
      );
      this.#cards.set(member.name, card);
      this.#parent.append(card);
    }
    card.dataset.role = member.role;
    card.dataset.state = member.state;
    card.classList.toggle("self", member.isSelf);
    setText(card.querySelector(".pill"), member.role);
    setFacts(card.querySelector("dl"), [
      ["State", STATES[member.state] ?? member.state],
      ["Term", member.term === null ? "–" : count(member.term)],
      ["Lag", member.lag === null ? "–" : count(member.lag)],
      ["Last contact", contact(member)],
    ]);
    const own = member.isSelf ? "this node · " : "";
    setText(card.querySelector(".detail"), member.detail || `${own}${member.address}`);
  }
}

function contact(member) {
  if (member.isSelf) return "here";
  if (member.role === "leader") return "asks the others";
  if (member.last_contact_ms === null) return member.answers ? "connected" : "–";
  if (member.last_contact_ms < 1000) return `${member.last_contact_ms} ms ago`;
  return `${span(member.last_contact_ms)} ago`;
}
