// Tiles of a layer on one canvas, for runs with too many tokens to paint here. Tiles end on whole device pixels, so that their
// half transparent colours neither overlap nor leave gaps at zooms between two whole ones.

const SIDE = 256;
const MOST = 256; // decoded tiles kept for a pane
const ROUNDING = 1e-6; // of a tile: an image that ends with a tile does not need the next one
const COARSER = 4; // zooms to look up for something to show while a tile is on its way

export class LayerTiles {
  /**
   * @param url address with {z}, {x} and {y}; @param deepest last zoom with tiles;
   * @param wraps whether tiles go on around the Earth; @param arrived called when a tile is there
   */
  constructor(url, deepest, wraps, arrived) {
    this.url = url;
    this.deepest = deepest;
    this.wraps = wraps;
    this.arrived = arrived;
    this.tiles = new Map();
  }

  #tile(z, column, y, wanted) {
    const x = this.wraps ? ((column % 2 ** z) + 2 ** z) % 2 ** z : column;
    const key = `${z}/${x}/${y}`;
    let tile = this.tiles.get(key);
    if (tile) {
      this.tiles.delete(key); // the one used last goes to the end
      this.tiles.set(key, tile);
      return tile;
    }
    if (!wanted) return null;
    tile = new Image();
    tile.decoding = "async";
    tile.onload = () => this.arrived();
    tile.src = this.url.replace("{z}", z).replace("{x}", x).replace("{y}", y);
    this.tiles.set(key, tile);
    if (this.tiles.size > MOST) this.tiles.delete(this.tiles.keys().next().value);
    return tile;
  }

  /** Draws what there is and asks for what is missing; `whole` is the image's [left, top, right, bottom] on the screen. */
  paint(context, frame, whole) {
    const z = Math.max(0, Math.min(this.deepest, Math.round(Math.log2(frame.scale))));
    const side = (SIDE * frame.scale) / 2 ** z;
    const snap = (value) => Math.round(value * frame.ratio) / frame.ratio;
    const left = Math.floor((Math.max(0, whole[0]) + frame.x) / side + ROUNDING);
    const top = Math.floor((Math.max(0, whole[1]) + frame.y) / side + ROUNDING);
    const right = Math.ceil((Math.min(frame.width, whole[2]) + frame.x) / side - ROUNDING);
    const bottom = Math.ceil((Math.min(frame.height, whole[3]) + frame.y) / side - ROUNDING);
    for (let y = top; y < bottom; y++)
      for (let x = left; x < right; x++) {
        const [x0, y0] = [snap(x * side - frame.x), snap(y * side - frame.y)];
        const [x1, y1] = [snap((x + 1) * side - frame.x), snap((y + 1) * side - frame.y)];
        const tile = this.#tile(z, x, y, true);
        if (isThere(tile)) context.drawImage(tile, x0, y0, x1 - x0, y1 - y0);
        else this.#standIn(context, z, x, y, [x0, y0, x1 - x0, y1 - y0]);
      }
  }

  /** Shows the part of a coarser tile until the right one is there. */
  #standIn(context, z, x, y, place) {
    for (let up = 1; up <= Math.min(COARSER, z); up++) {
      const tile = this.#tile(z - up, x >> up, y >> up, false);
      if (!tile || !isThere(tile)) continue;
      const part = SIDE / 2 ** up;
      const mask = 2 ** up - 1;
      context.drawImage(tile, (x & mask) * part, (y & mask) * part, part, part, ...place);
      return;
    }
  }
}

const isThere = (tile) => tile.complete && tile.naturalWidth > 0;
