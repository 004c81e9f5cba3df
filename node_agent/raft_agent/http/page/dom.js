// Elements are made here and filled with text only: names and messages come from elsewhere.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// <dt> and <dd> pairs of a <dl>; only what has changed is touched.
export function setFacts(list, facts) {
  while (list.children.length > facts.length) list.lastElementChild.remove();
  facts.forEach(([name, value], place) => {
    let pair = list.children[place];
    if (!pair) {
      pair = el("div", {}, el("dt"), el("dd"));
      list.append(pair);
    }
    setText(pair.children[0], name);
    setText(pair.children[1], value);
  });
}

// A canvas that is as sharp as the screen; its context with CSS pixels as units.
export function prepare(canvas, height) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width };
}

// The colour that a custom property stands for in the scheme of the moment.
const holder = document.createElement("i");

export function color(name) {
  if (!holder.isConnected) {
    holder.hidden = true;
    document.body.append(holder);
  }
  holder.style.color = `var(${name})`;
  return getComputedStyle(holder).color;
}
