// Reads what the server sends: panes, token facts packed as base64, attention as raw float16.

export async function getJson(url) {
  const answer = await fetch(url, { headers: { Accept: "application/json" } });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || `the server answered ${answer.status}`);
  return body;
}

const KINDS = { u1: Uint8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };

/** Address of something of a run; the comparison goes along, as its link shares the run. */
export function runUrl(run, path, values = {}) {
  const query = new URLSearchParams({ ...values, link: document.body.dataset.comparison });
  return `/runs/${run}/${path}?${query}`;
}

/** A typed array from {dtype, data}: base64 of little-endian values. */
export function unpack(packed) {
  if (!packed) return null;
  const text = atob(packed.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new KINDS[packed.dtype](bytes.buffer);
}

/** float16 bits -> Float32Array; NaN stays NaN. */
export function fromHalf(bits) {
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const sign = bits[i] & 0x8000 ? -1 : 1;
    const exponent = (bits[i] >> 10) & 31;
    const fraction = bits[i] & 1023;
    if (exponent === 31) values[i] = fraction ? NaN : sign * Infinity;
    else if (exponent === 0) values[i] = sign * fraction * 2 ** -24;
    else values[i] = sign * (1024 + fraction) * 2 ** (exponent - 25);
  }
  return values;
}

/** The tokens of a run, with one raster of token indices for each stretch of equal cells. */
export async function getTokens(run) {
  const raw = await getJson(runUrl(run, "tokens.json"));
  const tokens = {
    count: raw.tokens,
    views: raw.views,
    fate: unpack(raw.fate),
    target: unpack(raw.target),
    category: unpack(raw.category),
    scores: unpack(raw.scores),
    semantic: unpack(raw.semantic),
    path: unpack(raw.path),
    anchors: unpack(raw.anchors),
    levels: [],
    place: new Array(raw.tokens), // [level, raster, row, col, part]
  };
  raw.levels.forEach((level, levelIndex) => {
    const rasters = level.rasters.map(({ box, rows, cols, parts }, rasterIndex) => {
      const index = new Int32Array(rows * cols).fill(-1);
      for (const [view, start, viewRows, viewCols, row0, col0] of parts)
        for (let r = 0; r < viewRows; r++)
          for (let c = 0; c < viewCols; c++) {
            const token = start + r * viewCols + c;
            index[(row0 + r) * cols + col0 + c] = token;
            tokens.place[token] = { level: levelIndex, raster: rasterIndex, row: row0 + r, col: col0 + c, view, viewRow: r, viewCol: c };
          }
      return { box, rows, cols, index };
    });
    tokens.levels.push({ name: level.name, rasters });
  });
  return tokens;
}

/** Attention of one layer, Float32Array [tokens], NaN where a token was not there. */
export async function getAttention(run, of, layer) {
  const answer = await fetch(runUrl(run, `attention/${of}/${layer}`));
  if (!answer.ok) throw new Error(`attention of layer ${layer + 1} could not be loaded`);
  return fromHalf(new Uint16Array(await answer.arrayBuffer()));
}
