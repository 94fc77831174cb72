// The colours of tokens.css as numbers, for canvases.

const SEQUENTIAL = [0, 1, 2, 3, 4, 5, 6].map((i) => `--km-seq-${i}`);
const DIVERGING = ["neg-2", "neg-1", "0", "pos-1", "pos-2"].map((name) => `--km-div-${name}`);

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** Linear interpolation between equally spaced stops, t in [0, 1]. */
function ramp(stops) {
  return (t) => {
    const at = Math.max(0, Math.min(1, t)) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(at));
    return stops[low].map((value, i) => Math.round(value + (stops[low + 1][i] - value) * (at - low)));
  };
}

export function readPalette() {
  const style = getComputedStyle(document.body);
  const read = (name) => style.getPropertyValue(name).trim();
  return {
    veil: read("--km-veil"),
    merged: read("--km-veil-merged"),
    hatch: read("--km-hatch"),
    ink: read("--km-map-ink"),
    casing: read("--km-map-casing"),
    semantic: read("--km-semantic"),
    geometric: read("--km-geometric"),
    accent: read("--km-accent"),
    line: read("--km-ink"),
    sans: read("--km-sans"),
    categories: [1, 2, 3, 4, 5, 6].map((i) => read(`--km-cat-${i}`)),
    sequential: ramp(SEQUENTIAL.map((name) => rgb(read(name)))),
    diverging: ramp(DIVERGING.map((name) => rgb(read(name)))),
  };
}
