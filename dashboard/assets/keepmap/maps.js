// The maps page: reads what the comparison has, keeps the maps in step, and follows a comparison that still runs.

import { readState, writeState } from "./address.js";
import { boundsOf, geometryOf } from "./geometry.js";
import { reserveRoom, writeLegend } from "./legend.js";
import { readPalette } from "./palette.js";
import { Pane } from "./pane.js";
import { Pointer } from "./pointer.js";
import { Scale } from "./scale.js";
import { getJson } from "./wire.js";

const POLL = 1000; // milliseconds between two looks at a running comparison
const comparison = document.body.dataset.comparison;
const state = { ...readState(), point: null, pointed: null };
const shared = { comparison, state, info: null, geometry: null, palette: readPalette(), scales: null, bounds: null, whole: null, corners: [] };
let panes = [];
let pointer = null;
let fitZoom = null;
let picture = null;
let legendContext = null;

shared.first = () => panes.find((pane) => pane.letter === "A" && pane.facts) || null;

// ---------------------------------------------------------------- scales and legend

function recorded(of) {
  return panes.filter((pane) => pane.facts && pane.facts.attention[of]);
}

/** Layers and scales that all panes share. */
function measure() {
  const sources = ["answer", "question"].filter((of) => recorded(of).length);
  if (sources.length && !sources.includes(state.depth.of)) state.depth.of = sources[0];
  const holders = recorded(state.depth.of);
  const layers = Math.max(0, ...holders.map((pane) => pane.facts.attention[state.depth.of].top.length));
  if (!layers) state.depth.layer = null;
  else if (state.depth.layer === null) state.depth.layer = mostLooking(holders, layers);
  else state.depth.layer = Math.max(0, Math.min(layers - 1, state.depth.layer));
  if (!layers) state.depth.compared = "retention";
  const at = (name) => Math.max(0, ...holders.map((pane) => pane.facts.attention[state.depth.of][name][state.depth.layer] || 0));
  const scored = panes.filter((pane) => pane.facts && pane.facts.score);
  const isSame = scored.length > 0 && scored.every((pane) => pane.facts.score.what === scored[0].facts.score.what);
  const sharedScore = isSame
    ? [Math.min(...scored.map((pane) => pane.facts.score.low)), Math.max(...scored.map((pane) => pane.facts.score.high))]
    : null;
  shared.layers = layers;
  shared.sources = sources;
  shared.scales = {
    attention: [0, at("top")],
    difference: [0, at("change")],
    sharedScore,
    score: (pane) => sharedScore || (pane.facts.score ? [pane.facts.score.low, pane.facts.score.high] : null),
  };
}

/** The layer at which the compared runs attend most to the image. */
function mostLooking(holders, layers) {
  let best = 0;
  let most = -1;
  for (let layer = 0; layer < layers; layer++) {
    const sum = holders.reduce((total, pane) => total + (pane.facts.attention[state.depth.of].mass[layer] || 0), 0);
    if (sum > most) [best, most] = [layer, sum];
  }
  return best;
}

function legends() {
  // The first of those with the most views: a zoom has an overview and crops where the others have one view.
  const most = Math.max(0, ...panes.map((pane) => (pane.facts ? pane.facts.levels.length : 0)));
  const leading = panes.find((pane) => pane.facts && pane.facts.levels.length === most);
  const context = {
    state,
    image: shared.info.image,
    panes: panes.map(({ letter, data }) => ({ letter, title: data.title, facts: data.facts })),
    palette: shared.palette,
    picture,
    layers: shared.layers,
    sources: shared.sources,
    levels: leading ? leading.facts.levels : [],
    level: leading ? leading.level : 0,
    attentionScale: shared.scales.attention,
    differenceScale: shared.scales.difference,
    sharedScore: shared.scales.sharedScore,
    set: change,
  };
  for (const id of ["legend", "maps-key"]) writeLegend(document.getElementById(id), context);
  legendContext = context;
}

const reserve = () => legendContext && reserveRoom(document.getElementById("legend"), legendContext);

/** Something that the legend or the switch chose. */
async function change({ layer, of, compared, level, name }) {
  if (layer !== undefined) state.depth.layer = layer;
  if (of !== undefined) state.depth.of = of;
  if (compared !== undefined) state.depth.compared = compared;
  if (level !== undefined) state.level = level;
  if (name !== undefined) state.layer = name;
  await showAll();
  await pointer.refresh();
  remember();
}

/** On a narrow screen the switch scrolls sideways: the chosen layer stays in sight. */
function showChosen() {
  const strip = document.querySelector("#layers .seg");
  const label = strip.querySelector("input:checked").parentElement;
  const [left, right] = [label.offsetLeft - strip.offsetLeft, label.offsetLeft - strip.offsetLeft + label.offsetWidth];
  if (left < strip.scrollLeft) strip.scrollLeft = left - 8;
  else if (right > strip.scrollLeft + strip.clientWidth) strip.scrollLeft = right - strip.clientWidth + 8;
}

async function showAll() {
  document.body.dataset.layer = state.layer;
  showChosen();
  measure();
  legends();
  await Promise.all(panes.map((pane) => pane.show()));
}

// ---------------------------------------------------------------- the maps

const live = () => panes.filter((pane) => pane.map);

function fit(map) {
  const zoom = map.getBoundsZoom(shared.bounds, false);
  fitZoom = zoom;
  for (const pane of live()) {
    pane.map.options.minZoom = zoom;
    pane.map.options.maxBounds = shared.bounds;
  }
  map.setView(shared.bounds.getCenter(), zoom, { animate: false });
  hold();
}

const isWhole = () => live().length === 0 || live()[0].map.getZoom() <= fitZoom + 0.01;

/** With the whole image in view there is nothing to drag: a finger then scrolls the page. */
function hold() {
  const whole = isWhole();
  for (const { map } of live()) {
    if (whole) map.dragging.disable();
    else map.dragging.enable();
    map.fire("zoomlevelschange");
  }
}

function resize() {
  reserve();
  const [first] = live();
  if (!first || !first.map.getContainer().clientWidth) return;
  const whole = fitZoom === null || isWhole();
  for (const { map } of live()) map.invalidateSize({ animate: false, pan: false });
  if (whole) fit(first.map);
  else {
    fitZoom = first.map.getBoundsZoom(shared.bounds, false);
    for (const { map } of live()) map.options.minZoom = fitZoom;
  }
  for (const { overlay, marks } of live()) {
    overlay.repaint();
    marks.repaint();
  }
}

function dress(pane, isFirst) {
  const { map } = pane;
  if (isFirst) {
    pane.element.classList.add("has-zoom");
    L.control.zoom({ position: "topright", zoomInTitle: "Zoom in, all maps", zoomOutTitle: "Zoom out, all maps" }).addTo(map);
    new Scale(shared.info.image).addTo(map);
    map.on("moveend", remember);
    map.on("zoomend", hold);
  }
  map.options.maxBoundsViscosity = 1;
  map.scrollWheelZoom.disable();
  pointer.bind(pane);
}

let writing = 0;
function remember() {
  clearTimeout(writing);
  writing = setTimeout(() => {
    const [first] = live();
    const centre = first && first.map.getCenter();
    const view = first && !isWhole() ? { zoom: first.map.getZoom(), centre: [centre.lat, centre.lng] } : null;
    writeState(state, view);
  }, 250);
}

// ---------------------------------------------------------------- panes that fill one by one

async function take(info) {
  let news = false;
  for (const data of info.panes) {
    const pane = panes.find((one) => one.letter === data.letter);
    news = (await pane.take(data)) || news;
    if (!data.has_map && pane.map) {
      const wasFirst = live()[0] === pane;
      pane.drop(panes);
      if (wasFirst && live().length) dress(live()[0], true);
    }
  }
  if (news || !shared.scales) {
    await showAll();
    reserve();
  }
  return news;
}

async function follow() {
  try {
    const info = await getJson(`/maps/${comparison}/panes.json`);
    shared.info = info;
    await take(info);
  } catch (_) {
    // The server is away for a moment: look again.
  }
  if (shared.info.state === "running") setTimeout(follow, POLL);
}

// ---------------------------------------------------------------- start

function bindSwitch() {
  for (const radio of document.querySelectorAll("#layers input[name=layer]")) {
    radio.checked = radio.value === state.layer;
    radio.addEventListener("change", () => change({ name: radio.value }));
  }
  const evidence = document.getElementById("evidence");
  evidence.checked = state.evidence;
  evidence.addEventListener("change", () => {
    state.evidence = evidence.checked;
    for (const { marks } of live()) marks.repaint();
    remember();
  });
  const opacity = document.getElementById("opacity");
  const slide = () => {
    state.opacity = Number(opacity.value) / 100;
    opacity.style.setProperty("--v", `${opacity.value}%`);
    for (const pane of panes) pane.fade();
  };
  opacity.value = String(Math.round(state.opacity * 100));
  slide();
  opacity.addEventListener("input", slide);
  opacity.addEventListener("change", remember);
}

/** A refused pane offers the lowest budget; the page around the frame knows how to use it. */
function bindOffers() {
  document.getElementById("plates").addEventListener("click", (event) => {
    const offer = event.target.closest("button[data-budget]");
    if (!offer || window.parent === window) return;
    const { pane, strategy, budget } = offer.dataset;
    window.parent.postMessage(
      { type: "keepmap:budget", comparison, pane: "ABCD".indexOf(pane), strategy, budget: Number(budget) },
      location.origin,
    );
  });
}

function loadPicture() {
  picture = new Image();
  picture.src = `/comparisons/${comparison}/thumbnail.png`;
  picture.decode().catch(() => {});
}

async function start() {
  bindSwitch();
  bindOffers();
  loadPicture();
  const info = await getJson(`/maps/${comparison}/panes.json`);
  shared.info = info;
  shared.geometry = geometryOf(info.image);
  shared.whole = info.image.window || [0, 0, info.image.width, info.image.height];
  const [left, top, right, bottom] = shared.whole;
  shared.corners = [
    [left, top],
    [right, top],
    [right, bottom],
    [left, bottom],
  ];
  shared.bounds = boundsOf(shared.geometry, shared.whole);
  if (!info.image.is_kept) trouble("The image is not kept here any more: the layers are shown without it.");
  panes = [...document.querySelectorAll(".plate")].map((element) => new Pane(element, shared));
  pointer = new Pointer(shared, panes, remember);
  live().forEach((pane, i) => dress(pane, i === 0));
  if (live().length) {
    fit(live()[0].map);
    const { view } = state;
    if (view) live()[0].map.setView(view.centre, Math.max(view.zoom, fitZoom), { animate: false });
    hold();
  }
  document.body.dataset.fitted = "true";
  await take(info);
  if (state.token) await pointer.restore(state.token);
  const watcher = new ResizeObserver(resize);
  for (const { frame } of live()) watcher.observe(frame);
  window.addEventListener("km-theme", () => {
    shared.palette = readPalette();
    showAll();
  });
  document.body.dataset.ready = "true";
  if (info.state === "running") setTimeout(follow, POLL);
}

function trouble(text) {
  const notice = document.getElementById("trouble");
  notice.textContent = text;
  notice.hidden = false;
}

start().catch((error) => trouble(`The maps could not be loaded: ${error.message} Reload the page to try again.`));
