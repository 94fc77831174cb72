// What lies over every layer: corner brackets around the evidence, where a zoom looked, the outline of the pointed-at token,
// strong values in words.

function corners(geometry, frame, [left, top, right, bottom]) {
  return [
    [left, top],
    [right, top],
    [right, bottom],
    [left, bottom],
  ].map(([x, y]) => {
    const [u, v] = geometry.world(x, y);
    return [u * frame.scale - frame.x, v * frame.scale - frame.y];
  });
}

/** The axis-parallel screen rectangle around a box, grown by `grow` pixels. */
function around(geometry, frame, box, grow) {
  const points = corners(geometry, frame, box);
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  return [Math.min(...xs) - grow, Math.min(...ys) - grow, Math.max(...xs) + grow, Math.max(...ys) + grow];
}

function bracket(context, [left, top, right, bottom], palette) {
  const arm = Math.max(4, Math.min(9, (right - left) * 0.28, (bottom - top) * 0.28));
  context.beginPath();
  for (const [x, y, sx, sy] of [
    [left, top, 1, 1],
    [right, top, -1, 1],
    [left, bottom, 1, -1],
    [right, bottom, -1, -1],
  ]) {
    context.moveTo(x + sx * arm, y);
    context.lineTo(x, y);
    context.lineTo(x, y + sy * arm);
  }
  context.lineCap = "butt";
  context.lineJoin = "miter";
  context.strokeStyle = palette.casing;
  context.lineWidth = 4.5;
  context.stroke();
  context.strokeStyle = palette.ink;
  context.lineWidth = 2;
  context.stroke();
}

function words(context, text, x, y, palette) {
  context.lineJoin = "round";
  context.lineWidth = 3.5;
  context.strokeStyle = palette.casing;
  context.strokeText(text, x, y);
  context.fillStyle = palette.ink;
  context.fillText(text, x, y);
}

/** Values in words beside their tokens; one that would lie on an earlier one, or over the border, looks for another side. */
function label(context, geometry, frame, labels, palette) {
  context.font = `600 12px ${palette.sans}`;
  context.textBaseline = "middle";
  context.textAlign = "left";
  const taken = [];
  const { left, top, width, height } = frame.view;
  for (const { box, text } of labels) {
    const [x0, y0, x1, y1] = around(geometry, frame, box, 6);
    const wide = context.measureText(text).width;
    const middle = (y0 + y1) / 2;
    const places = [
      [x1, middle],
      [x0 - wide, middle],
      [(x0 + x1 - wide) / 2, y0 - 6],
      [(x0 + x1 - wide) / 2, y1 + 6],
    ];
    const place = places.find(([x, y]) => {
      const inside = x >= left + 2 && x + wide <= left + width - 2 && y >= top + 8 && y <= top + height - 8;
      return inside && taken.every((other) => x + wide < other[0] || x > other[2] || y + 7 < other[1] || y - 7 > other[3]);
    });
    if (!place) continue;
    words(context, text, place[0], place[1], palette);
    taken.push([place[0], place[1] - 7, place[0] + wide, place[1] + 7]);
  }
}

function outline(context, points, palette, ink) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
  context.lineJoin = "miter";
  context.strokeStyle = palette.casing;
  context.lineWidth = 4;
  context.stroke();
  context.strokeStyle = ink;
  context.lineWidth = 2;
  context.stroke();
}

/** Where a zoom looked: polygons with the number of the turn, dashed where the box was not taken. */
function turn(context, geometry, frame, [number, left, top, right, bottom, isAccepted], palette, edge) {
  const box = [left, top, right, bottom];
  if (!isAccepted) context.setLineDash([5, 4]);
  outline(context, corners(geometry, frame, box), palette, palette.ink);
  context.setLineDash([]);
  const [x0, y0] = around(geometry, frame, box, 0);
  const text = String(number);
  context.font = `600 12px ${palette.sans}`;
  context.textBaseline = "middle";
  context.textAlign = "center";
  const wide = Math.max(16, context.measureText(text).width + 8);
  // Beside the border of the image the number comes in, so that it stays whole.
  const x = Math.min(x0, edge[2] - wide + 1);
  const y = Math.min(y0, edge[3] - 15);
  context.fillStyle = isAccepted ? palette.ink : palette.casing;
  context.fillRect(x - 1, y - 1, wide, 16);
  context.fillStyle = isAccepted ? palette.casing : palette.ink;
  context.fillText(text, x - 1 + wide / 2, y + 7.5);
}

/** Marks over one map; `whole` is the box of the image that the map shows. */
export function paintMarks(context, frame, { geometry, palette, whole, evidence, turns, pointed, labels }) {
  // The boxes that were taken lie over those that were not.
  const edge = around(geometry, frame, whole, 0);
  for (const one of turns.filter((each) => !each[5])) turn(context, geometry, frame, one, palette, edge);
  for (const one of turns.filter((each) => each[5])) turn(context, geometry, frame, one, palette, edge);
  if (labels.length) label(context, geometry, frame, labels, palette);
  const [left, top, right, bottom] = around(geometry, frame, whole, -2);
  for (const box of evidence) {
    // Beside the border of the image the brackets come in, so that they stay whole.
    const [x0, y0, x1, y1] = around(geometry, frame, box, 3);
    bracket(context, [Math.max(left, x0), Math.max(top, y0), Math.min(right, x1), Math.min(bottom, y1)], palette);
  }
  if (!pointed) return;
  outline(context, corners(geometry, frame, pointed), palette, palette.accent);
}
