// One pane: its Leaflet map, the layer over it, and what is known about its run.

import { boardsOf, boxOf } from "./boards.js";
import { brief, hundredths, percent, signed } from "./facts.js";
import { LONG } from "./legend.js";
import { paintMarks } from "./marks.js";
import { Overlay } from "./overlay.js";
import { difference, paint, presence } from "./painters.js";
import { LayerTiles } from "./tiles.js";
import { getAttention, getTokens, runUrl } from "./wire.js";

const GREY = ["Attention", "Scores", "Difference"];
const STRONG = 0.05; // values from five per cent on stand on the map in words

export class Pane {
  constructor(element, shared) {
    this.element = element;
    this.letter = element.dataset.pane;
    this.shared = shared; // state, info, geometry, palette, pane A, and the scales
    this.map = window[`map_${this.letter}`] || null;
    this.slot = element.querySelector(".slot");
    this.frame = element.querySelector(".map");
    this.attentions = new Map();
    this.tokens = null;
    this.tiles = null;
    if (!this.map) return;
    this.overlay = new Overlay("km-overlay", "km-overlay", (context, frame) => this.#paint(context, frame)).addTo(this.map);
    this.marks = new Overlay("km-marks", "km-marks", (context, frame) => this.#mark(context, frame)).addTo(this.map);
    this.note = document.createElement("span");
    this.note.className = "note";
    this.frame.append(this.note);
  }

  get facts() {
    return this.data ? this.data.facts : null;
  }

  /** Takes what the server says about the pane; returns whether its run is new. */
  async take(data) {
    const isNew = Boolean(data.facts) && !this.facts;
    const changed = !this.data || this.data.markup !== data.markup;
    this.data = data;
    this.element.dataset.state = data.state;
    if (data.run) this.element.dataset.run = data.run;
    this.element.querySelector(".cap .n").textContent = data.caption;
    if (changed) this.slot.innerHTML = data.markup; // escaped by the server, and without scripts by the page's policy
    this.element.classList.toggle("wait", data.state === "waiting" || data.state === "running");
    if (isNew && !data.facts.large) this.tokens = await getTokens(data.run);
    return isNew;
  }

  /** Takes the map away: a refused or failed pane has none. */
  drop(others) {
    if (!this.map) return;
    for (const other of others) {
      if (!other.map || other === this) continue;
      other.map.unsync(this.map);
      this.map.unsync(other.map);
    }
    this.map.remove();
    this.frame.remove();
    this.map = null;
  }

  get level() {
    if (!this.facts) return 0;
    const asked = this.shared.state.level;
    return asked !== null && asked < this.facts.levels.length ? asked : this.facts.level;
  }

  async attention(of, layer) {
    const recorded = this.facts && this.facts.attention[of];
    if (!recorded || layer === null || layer >= recorded.top.length) return null;
    const key = `${of}/${layer}`;
    if (!this.attentions.has(key)) this.attentions.set(key, getAttention(this.data.run, of, layer));
    return this.attentions.get(key);
  }

  /** Loads what the current layer needs and shows it. */
  async show() {
    const { state } = this.shared;
    const depth = state.depth;
    this.values = this.reference = null;
    if (this.tokens && depth.layer !== null) {
      const asked = `${depth.of}/${depth.layer}`;
      const first = this.shared.first();
      const [own, other] = await Promise.all([
        this.attention(depth.of, depth.layer),
        first && first.tokens ? first.attention(depth.of, depth.layer) : null,
      ]);
      if (asked !== `${state.depth.of}/${state.depth.layer}`) return; // another layer was asked for meanwhile
      this.values = own;
      this.reference = other;
    }
    if (!this.map) return;
    this.element.classList.toggle("grey", GREY.includes(state.layer) && Boolean(this.facts));
    this.note.textContent = this.#noteText();
    this.frame.setAttribute("aria-label", this.#label());
    this.#chooseTiles();
    this.fade();
    this.overlay.repaint();
    this.marks.repaint();
  }

  fade() {
    if (this.map) this.map.getPane("km-overlay").style.opacity = this.shared.state.opacity;
  }

  #chooseTiles() {
    const url = this.#tileUrl();
    if (url === this.url) return;
    this.url = url;
    const { zoom_most: deepest, lattice } = this.shared.info.image;
    this.tiles = url ? new LayerTiles(url, deepest, Boolean(lattice), () => this.#arrived()) : null;
  }

  /** Paints once for all tiles that come in the same moment. */
  #arrived() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (this.map) this.overlay.repaint();
    });
  }

  /** Address of the tiles of the current layer, "" where the canvas paints it. */
  #tileUrl() {
    const { state, scales } = this.shared;
    if (!this.facts || !this.facts.large || !scales || state.layer === "Image") return "";
    const theme = document.documentElement.classList.contains("dark") ? "dark" : "light";
    const query = { theme };
    if (this.facts.levels.length > 1) query.level = this.level;
    if (state.layer === "Scores") {
      const scale = scales.score(this);
      if (scale) query.scale = scale.join(",");
    }
    if (state.layer === "Attention") {
      if (!this.facts.attention[state.depth.of]) return "";
      Object.assign(query, { of: state.depth.of, layer: state.depth.layer, scale: scales.attention.join(",") });
    }
    if (state.layer === "Difference") {
      const first = this.shared.first();
      if (first === this || !this.#isComparable()) return "";
      Object.assign(query, { against: first.data.run, compared: state.depth.compared });
      if (state.depth.compared === "attention")
        Object.assign(query, { of: state.depth.of, layer: state.depth.layer, scale: scales.difference.join(",") });
    }
    return runUrl(this.data.run, `layers/${state.layer.toLowerCase()}/{z}/{x}/{y}.png`, query);
  }

  #isComparable() {
    const first = this.shared.first();
    const { compared, of } = this.shared.state.depth;
    if (!first || !first.facts || !this.facts || !this.facts.same_grid) return false;
    return compared === "retention" || Boolean(first.facts.attention[of] && this.facts.attention[of]);
  }

  /** Difference against pane A on the shared scale, in [-1, 1], of a token; null where there is nothing to compare. */
  #change() {
    const first = this.shared.first();
    if (!first || first === this || !first.tokens || !this.#isComparable()) return null;
    if (this.shared.state.depth.compared === "retention")
      return (token) => presence(this.tokens.fate[token]) - presence(first.tokens.fate[token]);
    if (!this.values || !this.reference) return null;
    const top = this.shared.scales.difference[1];
    return (token) => {
      const change = difference(this.values, this.reference, token);
      return top ? Math.sign(change) * Math.sqrt(Math.min(1, Math.abs(change) / top)) : 0;
    };
  }

  #paint(context, frame) {
    if (!this.facts) return;
    const { state, geometry, palette, scales } = this.shared;
    const edge = this.shared.corners.map(([x, y]) => {
      const [u, v] = geometry.world(x, y);
      return [u * frame.scale - frame.x, v * frame.scale - frame.y];
    });
    if (this.tiles) {
      const xs = edge.map(([x]) => x);
      const ys = edge.map(([, y]) => y);
      this.tiles.paint(context, frame, [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]);
      return;
    }
    if (!this.tokens || !scales) return; // a map may move before the panes have been measured together
    context.save();
    // Padded views reach over the image; what lies there is not on the picture.
    context.beginPath();
    edge.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.clip();
    paint(context, frame, state.layer, {
      boards: boardsOf(this.tokens, this.level, geometry, frame),
      level: this.level,
      tokens: this.tokens,
      palette,
      values: this.values,
      scale: state.layer === "Scores" ? scales.score(this) : scales.attention,
      change: state.layer === "Difference" ? this.#change() : null,
    });
    context.restore();
  }

  #labels() {
    const { state, info } = this.shared;
    const { of, layer, compared } = state.depth;
    const recorded = this.facts && this.facts.attention[of];
    if (!recorded || layer === null || layer >= recorded.top.length) return [];
    if (state.layer === "Attention")
      return recorded.strong[layer]
        .filter(([level]) => level === this.level)
        .map(([, left, top, right, bottom, value]) => ({ box: [left, top, right, bottom], text: percent(value) }));
    if (state.layer !== "Difference" || compared !== "attention" || !this.#isComparable() || !this.tokens) return [];
    if (!this.values || !this.reference || this === this.shared.first()) return [];
    const found = [];
    for (let token = 0; token < this.values.length; token++) {
      const change = difference(this.values, this.reference, token);
      if (Math.abs(change) < STRONG || this.tokens.place[token].level !== this.level) continue;
      found.push({ size: Math.abs(change), box: boxOf(this.tokens, token), text: signed(change, hundredths(change)) });
    }
    return found.sort((a, b) => b.size - a.size).slice(0, info.most_labels);
  }

  #mark(context, frame) {
    const { state, geometry, palette, info } = this.shared;
    const pointed = state.pointed || state.point;
    paintMarks(context, frame, {
      geometry,
      palette,
      whole: this.shared.whole,
      evidence: state.evidence ? info.evidence : [],
      turns: this.facts && state.layer !== "Image" ? this.facts.turns : [],
      pointed: pointed && this.facts ? pointed.box : null,
      labels: this.#labels(),
    });
  }

  #noteText() {
    const { state, scales } = this.shared;
    const { facts } = this;
    if (!facts) return "";
    const first = this.shared.first();
    switch (state.layer) {
      case "Clusters":
        return facts.merged ? "" : "merges nothing";
      case "Scores":
        if (facts.score) {
          const what = facts.score.what || "score";
          if (scales.sharedScore) return what.length > LONG ? what : "";
          return `${what}, ${brief(facts.score.low)} to ${brief(facts.score.high)}`;
        }
        if (!facts.dropped && !facts.merged) return "keeps everything, no score";
        return facts.ignores_image ? "places tokens without a score" : "gives no score";
      case "Attention":
        return facts.attention[state.depth.of] ? "" : "attention was not recorded";
      case "Streams":
        return facts.streams ? "" : "has no streams";
      case "Difference":
        if (this === first) return "reference: zero everywhere";
        if (!facts.same_grid) return "another grid of tokens, not comparable";
        return this.#isComparable() ? "" : "attention was not recorded";
      default:
        return "";
    }
  }

  #label() {
    const { state } = this.shared;
    const name = `Map ${this.letter}, ${this.data.title}`;
    if (!this.facts) return `${name}: ${this.data.state}.`;
    const { kept, merged, dropped } = this.facts;
    const note = this.#noteText();
    return (
      `${name}, ${state.layer.toLowerCase()}${note ? `, ${note}` : ""}: ${kept} kept, ${merged} merged, ${dropped} dropped. ` +
      "Arrow keys move between tokens, plus and minus zoom, shift with arrows pans."
    );
  }
}
