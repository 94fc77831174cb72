// What each layer looks like. The rules are the same as in the tiles that the server draws for many tokens (layers.py).

export const KEPT = 0;
export const MERGED = 1;
export const DROPPED = 2;
/** Cells smaller than this many screen pixels get no outline, dot or line: they would hide what they mark. */
export const DETAIL = 6;
const HATCH = 4;
const SIGNED = 0.25; // share of the difference scale from which a token is marked

function fill(context, boards, styleOf) {
  const cells = new Map();
  for (const board of boards)
    board.each((token, r, c) => {
      const style = styleOf(token);
      if (!style) return;
      if (!cells.has(style)) cells.set(style, []);
      cells.get(style).push([board, r, c]);
    });
  context.save();
  // Antialiased neighbours add up to full cover, so that no seam of the image shines through between cells.
  context.globalCompositeOperation = "lighter";
  for (const [style, list] of cells) {
    context.fillStyle = style;
    context.beginPath();
    for (const [board, r, c] of list) board.trace(context, r, c);
    context.fill();
  }
  context.restore();
}

/** Lines of x + y = 0 modulo four screen pixels, counted over the whole map so that they stay with it. */
export function hatchLines(context, frame, colour) {
  const { width, height, x, y } = frame;
  const first = -((((x + y) % HATCH) + HATCH) % HATCH);
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.beginPath();
  for (let sum = first; sum < width + height; sum += HATCH) {
    context.moveTo(sum, 0);
    context.lineTo(sum - height, height);
  }
  context.stroke();
}

function hatch(context, boards, frame, colour, chosen) {
  context.save();
  context.beginPath();
  for (const board of boards) board.each((token, r, c) => chosen(token) && board.trace(context, r, c));
  context.clip();
  hatchLines(context, frame, colour);
  context.restore();
}

function cased(context, width, ink, casing) {
  context.lineCap = "square";
  context.lineJoin = "round";
  context.strokeStyle = casing;
  context.lineWidth = width + 2;
  context.stroke();
  context.strokeStyle = ink;
  context.lineWidth = width;
  context.stroke();
}

function dot(context, [x, y], radius, ink, casing) {
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.fillStyle = casing;
  context.fill();
  context.beginPath();
  context.arc(x, y, Math.max(0.8, radius - 1.4), 0, 7);
  context.fillStyle = ink;
  context.fill();
}

function outline(context, boards, differs, width, ink, casing) {
  context.beginPath();
  for (const board of boards) board.edges(context, differs);
  cased(context, width, ink, casing);
}

function thinLine(context, boards, differs, colour, alpha) {
  context.save();
  context.beginPath();
  for (const board of boards) board.edges(context, differs);
  context.globalAlpha = alpha;
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.stroke();
  context.restore();
}

const withAlpha = (hex, alpha) => `rgb(${[1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(" ")} / ${alpha})`;

/** The group that a token shares an outline with: its target where that took other tokens too, else -1. */
const group = (tokens) => (token) => (tokens.category[token] ? tokens.target[token] : -1);

function veils(palette, fate) {
  return (token) => (fate[token] === DROPPED ? palette.veil : fate[token] === MERGED ? palette.merged : null);
}

const isDetailed = (boards) => boards.length > 0 && boards[0].unit >= DETAIL;
const scaled = (boards, radius) => Math.min(radius, boards[0].unit * 0.3);

function centreOf(boards, tokens, token) {
  const place = tokens.place[token];
  return boards[place.raster].centre(place.row, place.col);
}

function isVisible([x, y], frame) {
  return x > -20 && y > -20 && x < frame.width + 20 && y < frame.height + 20;
}

function targets(boards, tokens) {
  const found = [];
  for (const board of boards)
    board.each((token) => {
      if (tokens.category[token] && tokens.target[token] === token) found.push(token);
    });
  return found;
}

function paintRetention(context, frame, { boards, tokens, palette }) {
  const { fate } = tokens;
  const of = group(tokens);
  fill(context, boards, veils(palette, fate));
  hatch(context, boards, frame, palette.hatch, (token) => fate[token] === MERGED);
  if (!isDetailed(boards)) return;
  thinLine(context, boards, (a, b) => (fate[a] === DROPPED) !== (fate[b] === DROPPED), palette.ink, 0.55);
  outline(context, boards, (a, b) => of(a) !== of(b), 1.5, palette.ink, palette.casing);
  for (const token of targets(boards, tokens))
    dot(context, centreOf(boards, tokens, token), scaled(boards, 4.2), palette.ink, palette.casing);
}

function paintClusters(context, frame, { boards, tokens, palette }) {
  const { fate, category, target } = tokens;
  const of = group(tokens);
  const veil = veils(palette, fate);
  const tints = palette.categories.map((colour) => withAlpha(colour, 0.62));
  fill(context, boards, (token) => (category[token] ? tints[category[token] - 1] : veil(token)));
  if (!isDetailed(boards)) return;
  outline(context, boards, (a, b) => of(a) !== of(b), 1.5, palette.ink, palette.casing);
  context.save();
  context.beginPath();
  for (const board of boards)
    board.each((token, r, c) => {
      if (!category[token] || target[token] === token) return;
      if (tokens.place[target[token]].level !== tokens.place[token].level) return;
      context.moveTo(...centreOf(boards, tokens, target[token]));
      context.lineTo(...board.centre(r, c));
    });
  context.globalAlpha = 0.85;
  context.strokeStyle = palette.casing;
  context.lineWidth = 0.9;
  context.stroke();
  context.restore();
  for (const token of targets(boards, tokens))
    dot(context, centreOf(boards, tokens, token), scaled(boards, 5), palette.ink, palette.casing);
}

/** t in [0, 1] of a value on the shared square-root scale. */
export const sqrtScale = (value, low, high) => (high > low ? Math.sqrt(Math.max(0, Math.min(1, (value - low) / (high - low)))) : 0);

function sequential(palette) {
  const styles = Array.from({ length: 129 }, (_, i) => {
    const t = i / 128;
    return `rgb(${palette.sequential(t).join(" ")} / ${0.5 + 0.42 * t})`;
  });
  return (t) => styles[Math.round(t * 128)];
}

function paintScores(context, frame, { boards, tokens, palette, scale }) {
  if (!tokens.scores || !scale) {
    fill(context, boards, () => palette.merged);
    return;
  }
  const style = sequential(palette);
  fill(context, boards, (token) =>
    Number.isNaN(tokens.scores[token]) ? palette.veil : style(sqrtScale(tokens.scores[token], scale[0], scale[1])),
  );
}

function paintAttention(context, frame, { boards, tokens, palette, values, scale }) {
  if (!values) return;
  const style = sequential(palette);
  fill(context, boards, (token) => (Number.isNaN(values[token]) ? palette.veil : style(sqrtScale(values[token], 0, scale[1]))));
  if (!isDetailed(boards)) return;
  thinLine(context, boards, (a, b) => Number.isNaN(values[a]) !== Number.isNaN(values[b]), palette.ink, 0.35);
}

/** Difference against the first pane, in [-1, 1] of the shared scale; 0 is see-through. */
export function difference(values, reference, token) {
  const own = values[token];
  const other = reference[token];
  return (Number.isNaN(own) ? 0 : own) - (Number.isNaN(other) ? 0 : other);
}

/** How much of a token is left: kept 1, merged 1/2, dropped 0. */
export const presence = (fate) => [1, 0.5, 0][fate];

function paintDifference(context, frame, { boards, palette, change }) {
  if (!change) return;
  const styles = new Map();
  fill(context, boards, (token) => {
    const t = Math.round(change(token) * 64) / 64;
    if (!styles.has(t))
      styles.set(t, `rgb(${palette.diverging((t + 1) / 2).join(" ")} / ${t ? Math.min(0.95, 0.15 + 0.95 * Math.abs(t)) : 0.1})`);
    return styles.get(t);
  });
  if (!isDetailed(boards) || boards[0].unit < 12) return;
  // More is marked by a plus, so that colour is not alone.
  context.save();
  context.lineCap = "round";
  context.beginPath();
  for (const board of boards)
    board.each((token, r, c) => {
      if (change(token) < SIGNED) return;
      const [x, y] = board.centre(r, c);
      const arm = Math.min(4, board.unit * 0.2);
      context.moveTo(x - arm, y);
      context.lineTo(x + arm, y);
      context.moveTo(x, y - arm);
      context.lineTo(x, y + arm);
    });
  cased(context, 1.5, palette.ink, palette.casing);
  context.restore();
}

function paintStreams(context, frame, { boards, tokens, palette, level }) {
  const { fate, semantic } = tokens;
  fill(context, boards, veils(palette, fate));
  if (!semantic) return;
  const path = [...tokens.path].filter((token) => tokens.place[token].level === level);
  const anchors = [...tokens.anchors].filter((token) => tokens.place[token].level === level);
  hatch(context, boards, frame, palette.hatch, (token) => fate[token] === MERGED);
  if (!isDetailed(boards)) {
    const traced = new Set(path);
    const tint = withAlpha(palette.geometric, 0.75);
    const held = withAlpha(palette.semantic, 0.5);
    fill(context, boards, (token) => (traced.has(token) ? tint : semantic[token] >= 0 ? held : null));
    return;
  }
  outline(context, boards, (a, b) => semantic[a] !== semantic[b], 2, palette.semantic, palette.casing);
  context.save();
  context.beginPath();
  let previous = -1;
  for (const token of path) {
    const centre = centreOf(boards, tokens, token);
    if (previous >= 0 && isStep(tokens, previous, token)) context.lineTo(...centre);
    else context.moveTo(...centre);
    previous = token;
  }
  context.lineCap = "round";
  context.lineJoin = "round";
  context.strokeStyle = palette.casing;
  context.lineWidth = 4.5;
  context.stroke();
  context.strokeStyle = palette.geometric;
  context.lineWidth = 2.5;
  context.stroke();
  for (const token of path) {
    const centre = centreOf(boards, tokens, token);
    if (isVisible(centre, frame)) dot(context, centre, scaled(boards, 3.2), palette.geometric, palette.casing);
  }
  context.font = `700 9px ${palette.sans}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  anchors.forEach((token, i) => {
    const centre = centreOf(boards, tokens, token);
    if (!isVisible(centre, frame)) return;
    const radius = Math.min(7.5, boards[0].unit * 0.45);
    dot(context, centre, radius, palette.geometric, palette.casing);
    if (radius < 6) return;
    context.fillStyle = "#14201d";
    context.fillText(String(i + 1), centre[0], centre[1] + 0.5);
  });
  context.restore();
}

/** Whether two tokens of the path touch: a leg may end and the next begin elsewhere. */
function isStep(tokens, one, other) {
  const a = tokens.place[one];
  const b = tokens.place[other];
  return a.level === b.level && a.raster === b.raster && Math.max(Math.abs(a.row - b.row), Math.abs(a.col - b.col)) <= 1;
}

const PAINTERS = {
  Retention: paintRetention,
  Clusters: paintClusters,
  Scores: paintScores,
  Attention: paintAttention,
  Streams: paintStreams,
  Difference: paintDifference,
};

/** Paints a layer of one run; `scene` has boards, tokens, palette and what the layer needs besides. */
export function paint(context, frame, layer, scene) {
  const painter = PAINTERS[layer];
  if (painter) painter(context, frame, scene);
}
