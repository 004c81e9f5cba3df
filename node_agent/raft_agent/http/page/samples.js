// The node's numbers of the last minutes: counters become what happened between two samples.

export const WINDOW_S = 120;
const MAX_GAP_S = 10;

export class Samples {
  #columns = [];
  #last = null;

  // A sample of the node's counters. Those of another start of the agent begin at nothing.
  add(vitals) {
    const at = Date.parse(vitals.time) / 1000;
    const last = this.#last;
    if (last && at <= last.at) return;
    if (last && at - last.at < 0.5) return; // an extra one, because something happened
    this.#last = { at, vitals };
    if (!last || last.vitals.started !== vitals.started) return;
    const seconds = at - last.at;
    if (seconds > MAX_GAP_S) return;
    const latencies = {};
    for (const [name, now] of Object.entries(vitals.latencies)) {
      const before = last.vitals.latencies[name];
      latencies[name] = now.buckets.map((number, place) => number - before.buckets[place]);
    }
    const committed = Math.max(0, vitals.commit_index - last.vitals.commit_index);
    this.#columns.push({ at, seconds, latencies, rate: committed / seconds });
    while (this.#columns.length && this.#columns[0].at < at - WINDOW_S) this.#columns.shift();
  }

  get columns() {
    return this.#columns;
  }

  get now() {
    return this.#last ? this.#last.at : 0;
  }

  // The counts of the last `seconds`, added up, and for how long they were counted.
  recent(name, seconds) {
    const total = [];
    let counted = 0;
    for (const column of this.#columns) {
      if (column.at <= this.now - seconds) continue;
      counted += column.seconds;
      column.latencies[name].forEach((number, place) => {
        total[place] = (total[place] ?? 0) + number;
      });
    }
    return { buckets: total, seconds: counted };
  }
}

// The duration in µs that a share of all stay under, between the bounds of its bucket by its place
// among those in there; null without any.
export function percentile(buckets, share) {
  const total = buckets.reduce((sum, number) => sum + number, 0);
  if (!total) return null;
  let rank = share * total;
  for (let place = 0; place < buckets.length; place++) {
    if (buckets[place] && rank <= buckets[place]) {
      return 2 ** (place - 1 + rank / buckets[place]);
    }
    rank -= buckets[place];
  }
  return 2 ** (buckets.length - 1);
}
