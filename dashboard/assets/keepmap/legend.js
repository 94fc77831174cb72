// The legend: every layer in words, with the same textures and end values as on the maps.

import { brief, hundredths, percent, signed } from "./facts.js";
import { hatchLines } from "./painters.js";

/** Names of scores that are longer than this stand on the maps, not in the legend. */
export const LONG = 48;

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Text in which *stars* of the template, never of a value, mark what is printed bold. */
function rich(strings, ...values) {
  const span = document.createElement("span");
  let bold = null;
  strings.forEach((string, i) => {
    string.split("*").forEach((part, j) => {
      if (j) {
        bold = bold ? null : element("b", "");
        if (bold) span.append(bold);
      }
      (bold || span).append(part);
    });
    if (i < values.length) (bold || span).append(String(values[i]));
  });
  return span;
}

const item = (swatch, words) => element("span", "it", ...(swatch ? [swatch] : []), words);

function ramp(kind, low, high) {
  return element("span", "it num scale-row", element("span", "", low), element("span", `ramp ${kind}`), element("span", "", high));
}

/** Buttons of which one is pressed. */
function pick(name, options, chosen, choose, className = "") {
  const row = element("span", `pick ${className}`, element("span", "", name));
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", name);
  for (const [value, text, label] of options) {
    const button = element("button", "mini", text);
    button.type = "button";
    button.setAttribute("aria-pressed", String(value === chosen));
    if (label) button.setAttribute("aria-label", label);
    button.dataset.value = value;
    button.addEventListener("click", () => choose(value));
    row.append(button);
  }
  return row;
}

/** Steps through layers: buttons for a few, a menu between two arrows for many. */
function stepper(name, count, chosen, choose) {
  if (count <= 8)
    return pick(name, Array.from({ length: count }, (_, i) => [i, String(i + 1), `${name} ${i + 1}`]), chosen, choose, "push depth");
  const row = element("span", "pick push depth", element("span", "", name));
  const button = (text, label, value) => {
    const made = element("button", "mini", text);
    made.type = "button";
    made.disabled = value < 0 || value >= count;
    made.setAttribute("aria-label", label);
    made.dataset.step = label;
    made.addEventListener("click", () => choose(value));
    return made;
  };
  const menu = element("select", "mini");
  menu.setAttribute("aria-label", name);
  for (let i = 0; i < count; i++) menu.add(new Option(`${i + 1} of ${count}`, i, false, i === chosen));
  menu.addEventListener("change", () => choose(Number(menu.value)));
  row.append(button("\u2039", "previous layer", chosen - 1), menu, button("\u203a", "next layer", chosen + 1));
  return row;
}

function swatch(kind, palette, picture) {
  const size = 22;
  const canvas = element("canvas");
  canvas.width = canvas.height = size * 2;
  canvas.style.width = canvas.style.height = `${size}px`;
  canvas.setAttribute("aria-hidden", "true");
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  const draw = () => {
    if (picture && picture.complete && picture.naturalWidth) {
      const side = Math.min(picture.naturalWidth, picture.naturalHeight) / 6;
      context.drawImage(picture, picture.naturalWidth * 0.3, picture.naturalHeight * 0.6, side, side, 0, 0, size, size);
    } else {
      context.fillStyle = "#6f8f6a";
      context.fillRect(0, 0, size, size);
    }
    if (kind !== "kept") {
      context.fillStyle = kind === "merged" ? palette.merged : palette.veil;
      context.fillRect(0, 0, size, size);
    }
    if (kind === "merged") hatchLines(context, { width: size, height: size, x: 0, y: 0 }, palette.hatch);
    context.strokeStyle = palette.line;
    context.lineWidth = kind === "merged" ? 2.4 : 1.2;
    context.strokeRect(0.6, 0.6, size - 1.2, size - 1.2);
    if (kind !== "merged") return;
    for (const [radius, colour] of [
      [3.8, palette.casing],
      [2.4, palette.ink],
    ]) {
      context.beginPath();
      context.arc(size / 2, size / 2, radius, 0, 7);
      context.fillStyle = colour;
      context.fill();
    }
  };
  if (picture && !picture.complete) picture.addEventListener("load", draw, { once: true });
  draw();
  return canvas;
}

const SEMANTIC = '<svg width="26" height="14" aria-hidden="true"><rect x="2" y="2" width="10" height="10" fill="none" stroke="var(--km-semantic)" stroke-width="2.2"/></svg>';
const GEOMETRIC = '<svg width="26" height="14" aria-hidden="true"><path d="M3 10 10 4 23 8" fill="none" stroke="var(--km-geometric)" stroke-width="2.5"/><circle cx="3" cy="10" r="2.6" fill="var(--km-geometric)"/><circle cx="23" cy="8" r="2.6" fill="var(--km-geometric)"/></svg>';

const LOOKED = '<svg width="26" height="14" aria-hidden="true"><rect x="2" y="2" width="22" height="10" fill="none" stroke="currentColor" stroke-width="1.6"/><rect x="2" y="2" width="9" height="10" fill="currentColor"/></svg>';

function aboutTurns({ panes, state }) {
  const zooms = panes.filter((pane) => pane.facts && pane.facts.turns.length).map((pane) => pane.letter);
  if (!zooms.length || state.layer === "Image") return [];
  return [item(drawing(LOOKED), rich`*Where ${zooms.join(", ")} looked*, by turn; dashed: not shown to the model`)];
}

function drawing(svg) {
  const span = element("span");
  span.innerHTML = svg;
  return span;
}

const number = (value) => value.toLocaleString("en");

function aboutImage({ image, panes }) {
  const pane = panes.find((one) => one.facts);
  const size = `${number(image.width)} \u00d7 ${number(image.height)} px`;
  if (!pane) return [item(null, rich`The image, ${size}`)];
  const { views, rows, cols, cell } = pane.facts;
  const metres = image.metres_per_pixel ? `, ${brief(image.metres_per_pixel * cell[0])} m` : "";
  const cut = views > 1 ? `${number(views)} views of ` : "";
  const token = `${brief(cell[0])} \u00d7 ${brief(cell[1])} px${metres}`;
  return [item(null, rich`The image, ${size}. The model reads it as *${cut}${rows} \u00d7 ${cols} visual tokens*, each of ${token}`)];
}

function aboutRetention({ palette, picture }) {
  return [
    item(swatch("kept", palette, picture), rich`*Kept*, clear`),
    item(swatch("merged", palette, picture), rich`*Merged*, one outline with its target (dot)`),
    item(swatch("dropped", palette, picture), rich`*Dropped*, veiled`),
  ];
}

function aboutClusters({ panes }) {
  const merging = panes.filter((pane) => pane.facts && pane.facts.merged);
  if (!merging.length) return [item(null, rich`No strategy of this comparison merges tokens`)];
  return [item(null, rich`Tokens of one colour became *one* token, the dot; lines lead from each token to it. The rest is kept or dropped alone.`)];
}

function aboutScores({ panes, sharedScore }) {
  const scored = panes.filter((pane) => pane.facts && pane.facts.score);
  if (!scored.length) return [item(null, rich`No strategy of this comparison ranks tokens by a score`)];
  if (sharedScore) {
    const all = scored.map((pane) => pane.letter).join(", ");
    const verb = scored.length > 1 ? "rank" : "ranks";
    const { what } = scored[0].facts.score;
    return [
      ramp("seq", brief(sharedScore[0]), `${brief(sharedScore[1])}, square-root scale${scored.length > 1 ? ", shared" : ""}`),
      what.length > LONG ? item(null, rich`The score by which ${all} ${verb} tokens`) : item(null, rich`${all} ${verb} tokens by *${what || "a score"}*`),
    ];
  }
  return [
    ramp("seq", "lowest", "highest, square-root scale; ends on each map"),
    item(null, rich`Each ranks by *its own score*: compare places, not values`),
  ];
}

function sourcePick({ state, sources, set }) {
  if (sources.length < 2) return null;
  const row = pick("From the", [["answer", "answer"], ["question", "question"]], state.depth.of, (of) => set({ of }));
  row.append(element("span", "", "to each token"));
  return row;
}

function aboutAttention(context) {
  const { state, attentionScale, layers, set } = context;
  if (!layers) return [item(null, rich`Attention was not recorded in this comparison`)];
  const from = state.depth.of === "question" ? "From the question\u2019s words, on average, to each token" : "From the answer to each token";
  return [
    sourcePick(context) || item(null, rich`${from}`),
    ramp("seq", "0", `${percent(attentionScale[1])}, square-root scale, shared`),
    stepper("Layer", layers, state.depth.layer, (layer) => set({ layer })),
  ];
}

function aboutStreams({ panes }) {
  const pane = panes.find((one) => one.facts && one.facts.streams);
  if (!pane) return [item(null, rich`No strategy of this comparison has streams`)];
  const { semantic, geometric, anchors } = pane.facts.streams;
  const numbers = anchors ? `; numbers mark ${number(anchors)} anchors` : "";
  return [
    item(drawing(SEMANTIC), rich`*Semantic*, ${number(semantic)} cluster${semantic === 1 ? "" : "s"}, outlined`),
    item(drawing(GEOMETRIC), rich`*Geometric*, ${number(geometric)} token${geometric === 1 ? "" : "s"}, traced in path order${numbers}`),
  ];
}

function aboutDifference(context) {
  const { state, panes, differenceScale, layers, set } = context;
  const parts = [];
  const compared = state.depth.compared;
  if (layers)
    parts.push(pick("Of", [["attention", "attention"], ["retention", "retention"]], compared, (value) => set({ compared: value })));
  if (compared === "retention") {
    parts.push(ramp("div", signed(-1, "1"), "+1 against A"), item(null, rich`kept is 1, merged \u00bd, dropped 0`));
  } else {
    const end = hundredths(differenceScale[1]);
    parts.push(ramp("div", signed(-1, end), `+${end} points against A`));
  }
  const overlaps = panes.filter((pane, i) => i && pane.facts && pane.facts.overlap !== null);
  if (overlaps.length) {
    const values = overlaps.map((pane) => `A\u2013\u2060${pane.letter}\u00a0${pane.facts.overlap.toFixed(2)}`).join(", ");
    parts.push(item(null, rich`Kept sets, Jaccard: ${values}`));
  }
  if (compared === "attention" && layers) parts.push(stepper("Layer", layers, state.depth.layer, (layer) => set({ layer })));
  return parts;
}

const ABOUT = {
  Image: aboutImage,
  Retention: aboutRetention,
  Clusters: aboutClusters,
  Scores: aboutScores,
  Attention: aboutAttention,
  Streams: aboutStreams,
  Difference: aboutDifference,
};

function partsOf(context) {
  const { levels, level, state, set } = context;
  const parts = [...ABOUT[state.layer](context), ...aboutTurns(context)];
  if (levels.length > 1 && state.layer !== "Image")
    parts.push(pick("Views", levels.map((name, i) => [i, name]), level, (value) => set({ level: value }), "views"));
  return parts;
}

/** Writes the legend of the current layer into an element, keeping the focus where it was. */
export function writeLegend(target, context) {
  const held = target.contains(document.activeElement) ? document.activeElement : null;
  const mark = held && (held.dataset.value || held.dataset.step || held.tagName);
  target.replaceChildren(...partsOf(context));
  if (!mark) return;
  const again = [...target.querySelectorAll("button, select")].find(
    (one) => (one.dataset.value || one.dataset.step || one.tagName) === mark && !one.disabled,
  );
  if (again) again.focus();
}

/** Reserves the room of the tallest legend, so that the maps do not jump when the layer changes. */
export function reserveRoom(target, context) {
  target.style.minHeight = "";
  if (!target.offsetParent) return;
  const trial = target.cloneNode(false);
  trial.removeAttribute("id");
  trial.removeAttribute("aria-live");
  trial.className = "legend trial";
  trial.setAttribute("aria-hidden", "true");
  target.after(trial);
  let most = 0;
  for (const layer of Object.keys(ABOUT)) {
    trial.replaceChildren(...partsOf({ ...context, state: { ...context.state, layer } }));
    most = Math.max(most, trial.offsetHeight);
  }
  trial.remove();
  target.style.minHeight = `${most}px`;
}
