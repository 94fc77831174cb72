// The pointed-at token, by mouse, touch or keyboard: outlined in every pane, its facts shown in one.

import { boxOf, tokenAt } from "./boards.js";
import { describe, localFacts, remoteFacts } from "./facts.js";
import { getJson, runUrl } from "./wire.js";

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const PAN = 80; // screen pixels

export class Pointer {
  /** @param shared state, geometry, info; @param panes the panes; @param changed called when the pinned token changes */
  constructor(shared, panes, changed) {
    this.shared = shared;
    this.panes = panes;
    this.changed = changed;
    this.asked = 0;
    this.tip = document.getElementById("tip");
    this.live = document.getElementById("facts");
    this.maps = document.getElementById("maps");
  }

  bind(pane) {
    const { map, frame } = pane;
    map.on("mousemove", (event) => this.#hover(pane, event.latlng));
    map.on("mouseout", () => this.#leave());
    map.on("click", (event) => this.#pin(pane, event.latlng));
    map.on("zoomanim zoomstart dragstart", () => this.#hideTip());
    map.on("moveend zoomend", () => this.#placeTip());
    frame.addEventListener("mousedown", () => frame.focus({ preventScroll: true }));
    frame.addEventListener("keydown", (event) => this.#key(pane, event));
    // The wheel belongs to the page until the map is clicked, or Ctrl is held.
    const wheel = (event) => {
      if (frame.contains(document.activeElement) || event.ctrlKey || event.metaKey) map.scrollWheelZoom.enable();
      else map.scrollWheelZoom.disable();
    };
    frame.addEventListener("wheel", wheel, { capture: true, passive: true });
  }

  #pixel(pane, latlng) {
    const { map } = pane;
    const { x, y } = map.options.crs.latLngToPoint(latlng, 0);
    return this.shared.geometry.pixel(x, y);
  }

  /** Facts of the token of a pane under a pixel; null where there is none. */
  async #factsAt(pane, pixel) {
    const { state, geometry } = this.shared;
    if (!pane.facts) return null;
    if (pane.facts.large) return remoteFacts(pane.data.run, pixel, pane.level, state.depth);
    if (!pane.tokens) return null;
    const token = tokenAt(pane.tokens, pane.level, ...pixel);
    if (token < 0) return null;
    return localFacts(pane.tokens, token, pane.values || undefined, geometry);
  }

  async #point(pane, pixel) {
    const turn = ++this.asked;
    let facts = null;
    try {
      facts = await this.#factsAt(pane, pixel);
    } catch (_) {
      facts = null; // the server is away: the page stays usable without this tooltip
    }
    return turn === this.asked ? facts : undefined;
  }

  async #hover(pane, latlng) {
    const pixel = this.#pixel(pane, latlng);
    const shown = this.shared.state.pointed;
    const inside = shown && shown.pane === pane && contains(shown.box, pixel);
    if (inside) return;
    const facts = await this.#point(pane, pixel);
    if (facts === undefined) return;
    this.shared.state.pointed = facts && { pane, letter: pane.letter, token: facts.token, box: facts.box, facts };
    this.#show();
  }

  #leave() {
    this.asked++;
    this.shared.state.pointed = null;
    this.#show();
  }

  async #pin(pane, latlng) {
    const facts = await this.#point(pane, this.#pixel(pane, latlng));
    if (facts === undefined) return;
    const { point } = this.shared.state;
    const again = point && facts && point.pane === pane && point.token === facts.token;
    this.#set(again ? null : facts && { pane, letter: pane.letter, token: facts.token, box: facts.box, facts });
  }

  #set(point) {
    this.shared.state.point = point;
    this.shared.state.pointed = null;
    this.#show();
    this.#say();
    this.changed();
  }

  /** Points at a token of the address. */
  async restore({ letter, token }) {
    const pane = this.panes.find((one) => (letter ? one.letter === letter : true) && one.facts && one.map);
    if (!pane || token >= pane.facts.tokens) return;
    let pixel = null;
    if (pane.tokens) {
      const box = boxOf(pane.tokens, token);
      pixel = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
      if (pane.tokens.place[token].level !== pane.level) return;
    } else {
      const { tokens } = await getJson(runUrl(pane.data.run, "tokens", { token }));
      pixel = [(tokens[0].box[0] + tokens[0].box[2]) / 2, (tokens[0].box[1] + tokens[0].box[3]) / 2];
    }
    const facts = await this.#point(pane, pixel);
    if (facts) this.#set({ pane, letter: pane.letter, token: facts.token, box: facts.box, facts });
  }

  /** Reads the facts of the pinned token again: the layer has changed. */
  async refresh() {
    const { point } = this.shared.state;
    if (!point) return;
    const [left, top, right, bottom] = point.box;
    const facts = await this.#point(point.pane, [(left + right) / 2, (top + bottom) / 2]);
    if (facts === undefined) return;
    this.shared.state.point = facts && { ...point, token: facts.token, box: facts.box, facts };
    this.#show();
  }

  async #key(pane, event) {
    const step = STEPS[event.key];
    const { map } = pane;
    if (event.target !== pane.frame || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") map.zoomIn(1, { animate: false });
    else if (event.key === "-" || event.key === "_") map.zoomOut(1, { animate: false });
    else if (event.key === "Escape" && this.shared.state.point) this.#set(null);
    else if (step && event.shiftKey) map.panBy([step[0] * PAN, step[1] * PAN], { animate: false });
    else if (step) this.#step(pane, step);
    else return;
    event.preventDefault();
  }

  async #step(pane, [across, down]) {
    const { state, info } = this.shared;
    const from = state.pointed || state.point;
    let pixel;
    if (from) {
      const [left, top, right, bottom] = from.box;
      pixel = [(left + right) / 2 + across * (right - left), (top + bottom) / 2 + down * (bottom - top)];
    } else {
      pixel = this.#pixel(pane, pane.map.getCenter());
    }
    pixel = [Math.max(0, Math.min(info.image.width - 1e-3, pixel[0])), Math.max(0, Math.min(info.image.height - 1e-3, pixel[1]))];
    const facts = await this.#point(pane, pixel);
    if (!facts) return;
    this.#set({ pane, letter: pane.letter, token: facts.token, box: facts.box, facts });
    this.#reveal(pane, facts.box);
  }

  /** Pans so that a box is in view. */
  #reveal(pane, [left, top, right, bottom]) {
    const { map } = pane;
    const size = map.getSize();
    const at = map.latLngToContainerPoint(this.shared.geometry.latlng((left + right) / 2, (top + bottom) / 2));
    const pan = [0, 0];
    if (at.x < 12) pan[0] = at.x - 40;
    if (at.x > size.x - 12) pan[0] = at.x - size.x + 40;
    if (at.y < 12) pan[1] = at.y - 40;
    if (at.y > size.y - 12) pan[1] = at.y - size.y + 40;
    if (pan[0] || pan[1]) map.panBy(pan, { animate: false });
  }

  #show() {
    for (const pane of this.panes) if (pane.map) pane.marks.repaint();
    this.#placeTip();
  }

  #words() {
    const { state, info } = this.shared;
    const point = state.pointed || state.point;
    const { pane, facts } = point;
    const first = this.shared.first();
    const compares = state.layer === "Difference" && first && first !== pane && first.values && !pane.facts.large;
    return describe(facts, {
      several: pane.facts.views > 1,
      depth: state.depth,
      evidence: info.evidence,
      reference: compares ? first.values[facts.token] : null,
    });
  }

  #say() {
    const { point } = this.shared.state;
    if (!point) {
      this.live.textContent = "";
      return;
    }
    const { title, lines } = this.#words();
    this.live.textContent = `${point.letter}. ${title}. ${lines.join(", ")}.`;
  }

  #hideTip() {
    this.tip.hidden = true;
  }

  #placeTip() {
    const { state, geometry } = this.shared;
    const point = state.pointed || state.point;
    this.#hideTip();
    if (!point || !point.pane.map || document.body.classList.contains("busy")) return;
    const { title, lines } = this.#words();
    const heading = document.createElement("b");
    heading.textContent = title;
    this.tip.replaceChildren(
      heading,
      ...lines.map((line) => {
        const row = document.createElement("span");
        row.textContent = line;
        return row;
      }),
    );
    const frame = point.pane.frame.getBoundingClientRect();
    const area = this.maps.getBoundingClientRect();
    const [left, top, right, bottom] = point.box;
    const { map } = point.pane;
    const corners = [
      [left, top],
      [right, top],
      [right, bottom],
      [left, bottom],
    ].map(([x, y]) => map.latLngToContainerPoint(geometry.latlng(x, y)));
    const low = { x: Math.max(...corners.map((p) => p.x)), y: Math.max(...corners.map((p) => p.y)) };
    const high = { x: Math.min(...corners.map((p) => p.x)), y: Math.min(...corners.map((p) => p.y)) };
    if (low.x < 0 || low.y < 0 || high.x > frame.width || high.y > frame.height) return;
    this.tip.hidden = false;
    const width = this.tip.offsetWidth;
    const height = this.tip.offsetHeight;
    const origin = { x: frame.left - area.left, y: frame.top - area.top };
    let x = origin.x + low.x + 8;
    let y = origin.y + low.y + 8;
    // Below right of the token; above or to the left where it would leave the maps.
    if (x + width > area.width - 4) x = Math.max(4, origin.x + high.x - width - 8);
    if (y + height > area.height - 4) y = Math.max(4, origin.y + high.y - height - 8);
    this.tip.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
  }
}

function contains([left, top, right, bottom], [x, y]) {
  return x >= left && x < right && y >= top && y < bottom;
}
