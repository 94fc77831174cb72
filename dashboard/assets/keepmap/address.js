// The address is the state: read from this page's own query, written to it and to the page around the frame.

export const LAYERS = ["Image", "Retention", "Clusters", "Scores", "Attention", "Streams", "Difference"];

/** Depth in the address: "3" is layer 3 from the answer, "q3" from the question, "retention" a difference of retention. */
function readDepth(text) {
  const found = /^(q?)(\d{1,3})$/.exec(text || "");
  return {
    of: found && found[1] ? "question" : "answer",
    layer: found ? Number(found[2]) - 1 : null,
    compared: text === "retention" ? "retention" : "attention",
  };
}

function writeDepth(state) {
  if (state.layer === "Difference" && state.depth.compared === "retention") return "retention";
  if (!["Attention", "Difference"].includes(state.layer) || state.depth.layer === null) return null;
  return `${state.depth.of === "question" ? "q" : ""}${state.depth.layer + 1}`;
}

/**
 * View in the address: zoom/latitude/longitude as the map has them, or "all" for the whole image; then the level of views
 * where there are several and another than the finest is shown.
 */
function readView(text) {
  const whole = /^all\/(\d{1,3})$/.exec(text || "");
  if (whole) return { view: null, level: Number(whole[1]) };
  const parts = (text || "").split("/").map(Number);
  if (parts.length < 3 || parts.length > 4 || !parts.every(Number.isFinite)) return { view: null, level: null };
  return { view: { zoom: parts[0], centre: [parts[1], parts[2]] }, level: parts.length === 4 ? parts[3] : null };
}

function readToken(text) {
  const found = /^([A-D]?)(\d{1,7})$/.exec(text || "");
  return found ? { letter: found[1] || null, token: Number(found[2]) } : null;
}

export function readState() {
  const query = new URLSearchParams(location.search);
  const layer = LAYERS.find((name) => name.toLowerCase() === (query.get("layer") || "").toLowerCase());
  const opacity = Number(query.get("opacity"));
  return {
    layer: layer || "Retention",
    depth: readDepth(query.get("depth")),
    ...readView(query.get("view")),
    token: readToken(query.get("token")),
    opacity: query.has("opacity") && opacity >= 0 && opacity <= 1 ? opacity : 1,
    evidence: query.get("evidence") !== "0",
  };
}

function put(url, prefix, values) {
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === "") url.searchParams.delete(prefix + name);
    else url.searchParams.set(prefix + name, value);
  }
}

/** Writes the state; `view` is null while the whole image is in view. */
export function writeState(state, view) {
  const level = state.level === null ? "" : `/${state.level}`;
  const digits = (value) => Number(value.toFixed(6));
  const values = {
    layer: state.layer === "Retention" ? null : state.layer,
    depth: writeDepth(state),
    view: view
      ? `${Number(view.zoom.toFixed(3))}/${digits(view.centre[0])}/${digits(view.centre[1])}${level}`
      : level && `all${level}`,
    token: state.point ? `${state.point.letter}${state.point.token}` : null,
  };
  const own = new URL(location.href);
  put(own, "", { ...values, opacity: state.opacity === 1 ? null : state.opacity, evidence: state.evidence ? null : "0" });
  history.replaceState(null, "", own);
  try {
    if (window.parent === window) return;
    const outer = new URL(window.parent.location.href);
    put(outer, "km_", values);
    window.parent.history.replaceState(window.parent.history.state, "", outer);
  } catch (_) {
    // Another origin embeds the page: its address is not ours to write.
  }
}
