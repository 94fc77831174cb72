// Token cells on the screen. A board is one raster of equal cells: its nodes in screen pixels and its tokens.

const worlds = new WeakMap();

/** World coordinates of the (rows + 1) x (cols + 1) nodes of a raster, computed once. */
function worldNodes(raster, geometry) {
  let nodes = worlds.get(raster);
  if (nodes) return nodes;
  const { box, rows, cols } = raster;
  const [left, top, right, bottom] = box;
  nodes = new Float64Array(2 * (rows + 1) * (cols + 1));
  let at = 0;
  for (let r = 0; r <= rows; r++)
    for (let c = 0; c <= cols; c++) {
      const [u, v] = geometry.world(left + ((right - left) * c) / cols, top + ((bottom - top) * r) / rows);
      nodes[at++] = u;
      nodes[at++] = v;
    }
  worlds.set(raster, nodes);
  return nodes;
}

export class Board {
  constructor(raster, geometry, frame, snap) {
    const world = worldNodes(raster, geometry);
    const nodes = new Float64Array(world.length);
    const { scale, x, y, ratio } = frame;
    for (let i = 0; i < world.length; i += 2) {
      nodes[i] = world[i] * scale - x;
      nodes[i + 1] = world[i + 1] * scale - y;
    }
    // Axis-parallel cells end on whole device pixels; slanted ones keep their place and are antialiased.
    if (snap) for (let i = 0; i < nodes.length; i++) nodes[i] = Math.round(nodes[i] * ratio) / ratio;
    this.raster = raster;
    this.nodes = nodes;
    this.stride = raster.cols + 1;
    this.frame = frame;
    const width = Math.hypot(world[2] - world[0], world[3] - world[1]) * scale;
    const below = 2 * this.stride;
    const height = Math.hypot(world[below] - world[0], world[below + 1] - world[1]) * scale;
    this.unit = Math.min(width, height);
    this.reach = Math.max(width, height);
  }

  /** Calls `visit(token, row, col)` for each token whose cell may be seen. */
  each(visit) {
    const { rows, cols, index } = this.raster;
    const { width, height } = this.frame;
    const pad = 2 * this.reach;
    for (let r = 0; r < rows; r++)
      for (let c = 0; c < cols; c++) {
        const token = index[r * cols + c];
        if (token < 0) continue;
        const at = 2 * (r * this.stride + c);
        const x = this.nodes[at];
        const y = this.nodes[at + 1];
        if (x > width + pad || y > height + pad || x < -pad || y < -pad) continue;
        visit(token, r, c);
      }
  }

  token(row, col) {
    const { rows, cols, index } = this.raster;
    return row < 0 || col < 0 || row >= rows || col >= cols ? -1 : index[row * cols + col];
  }

  /** Adds the outline of a cell to the current path. */
  trace(context, row, col) {
    const n = this.nodes;
    const a = 2 * (row * this.stride + col);
    const b = a + 2 * this.stride;
    context.moveTo(n[a], n[a + 1]);
    context.lineTo(n[a + 2], n[a + 3]);
    context.lineTo(n[b + 2], n[b + 3]);
    context.lineTo(n[b], n[b + 1]);
    context.closePath();
  }

  centre(row, col) {
    const n = this.nodes;
    const a = 2 * (row * this.stride + col);
    const b = a + 2 * this.stride;
    return [(n[a] + n[a + 2] + n[b] + n[b + 2]) / 4, (n[a + 1] + n[a + 3] + n[b + 1] + n[b + 3]) / 4];
  }

  /** Adds the edges between neighbours for which `differs(one, other)`. */
  edges(context, differs) {
    const n = this.nodes;
    this.each((token, r, c) => {
      const right = this.token(r, c + 1);
      const below = this.token(r + 1, c);
      const a = 2 * (r * this.stride + c);
      const b = a + 2 * this.stride;
      if (right >= 0 && differs(token, right)) {
        context.moveTo(n[a + 2], n[a + 3]);
        context.lineTo(n[b + 2], n[b + 3]);
      }
      if (below >= 0 && differs(token, below)) {
        context.moveTo(n[b], n[b + 1]);
        context.lineTo(n[b + 2], n[b + 3]);
      }
    });
  }
}

/** The boards of one level of a run's tokens. */
export function boardsOf(tokens, level, geometry, frame) {
  return tokens.levels[level].rasters.map((raster) => new Board(raster, geometry, frame, !geometry.lonlat(0, 0)));
}

/** The token of a level under a pixel of the image, or -1. */
export function tokenAt(tokens, level, x, y) {
  for (const { box, rows, cols, index } of tokens.levels[level].rasters) {
    const [left, top, right, bottom] = box;
    const c = Math.floor(((x - left) / (right - left)) * cols);
    const r = Math.floor(((y - top) / (bottom - top)) * rows);
    if (r >= 0 && c >= 0 && r < rows && c < cols && index[r * cols + c] >= 0) return index[r * cols + c];
  }
  return -1;
}

/** The box of a token in pixels of the image. */
export function boxOf(tokens, token) {
  const { level, raster, row, col } = tokens.place[token];
  const { box, rows, cols } = tokens.levels[level].rasters[raster];
  const width = (box[2] - box[0]) / cols;
  const height = (box[3] - box[1]) / rows;
  const [left, top] = [box[0] + col * width, box[1] + row * height];
  return [left, top, left + width, top + height];
}
