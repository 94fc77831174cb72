// Where a pixel of the image lies on the map.
//
// "World" coordinates are Leaflet's projected pixels at zoom 0, so that world * 2 ** zoom is what a map shows. A plain image
// uses pixel / 2 ** depth. A georeferenced one is placed by a lattice of nodes whose longitude and latitude the server
// computed; between them the page is bilinear in both, and the server says how many pixels that may be off.

import { unpack } from "./wire.js";

const RADIANS = Math.PI / 180;

function mercator(longitude, latitude) {
  const sine = Math.sin(latitude * RADIANS);
  return [256 * (longitude / 360 + 0.5), 256 * (0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI))];
}

/** Index of the interval of `nodes` that holds `value`; the outer ones reach to infinity. */
function interval(nodes, value) {
  let low = 0;
  let high = nodes.length - 2;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (nodes[middle] <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}

class Plain {
  constructor(image) {
    this.unit = 2 ** image.depth;
  }
  world(x, y) {
    return [x / this.unit, y / this.unit];
  }
  pixel(u, v) {
    return [u * this.unit, v * this.unit];
  }
  latlng(x, y) {
    return [-y / this.unit, x / this.unit];
  }
  lonlat() {
    return null;
  }
}

class Placed {
  constructor(image) {
    const { x, y, lon, lat } = image.lattice;
    this.x = x;
    this.y = y;
    this.lon = unpack(lon);
    this.lat = unpack(lat);
    this.inverse = this.#affine();
  }

  lonlat(px, py) {
    const { x, y, lon, lat } = this;
    const i = interval(x, px);
    const j = interval(y, py);
    const s = (px - x[i]) / (x[i + 1] - x[i]);
    const t = (py - y[j]) / (y[j + 1] - y[j]);
    const a = j * x.length + i;
    const c = a + x.length;
    const mix = (w) => (w[a] * (1 - s) + w[a + 1] * s) * (1 - t) + (w[c] * (1 - s) + w[c + 1] * s) * t;
    return [mix(lon), mix(lat)];
  }

  world(px, py) {
    return mercator(...this.lonlat(px, py));
  }

  /** The affine map through three corners, inverted: a first guess for `pixel`. */
  #affine() {
    const [left, right] = [this.x[0], this.x[this.x.length - 1]];
    const [top, bottom] = [this.y[0], this.y[this.y.length - 1]];
    const origin = this.world(left, top);
    const across = this.world(right, top);
    const down = this.world(left, bottom);
    this.origin = origin;
    const [a, b] = [(across[0] - origin[0]) / (right - left), (down[0] - origin[0]) / (bottom - top)];
    const [c, d] = [(across[1] - origin[1]) / (right - left), (down[1] - origin[1]) / (bottom - top)];
    const determinant = a * d - b * c;
    return [d / determinant, -b / determinant, -c / determinant, a / determinant];
  }

  pixel(u, v) {
    const [a, b, c, d] = this.inverse;
    const [originU, originV] = this.origin;
    let px = this.x[0] + a * (u - originU) + b * (v - originV);
    let py = this.y[0] + c * (u - originU) + d * (v - originV);
    // The placement is nearly affine: each correction leaves a small part of the error before it.
    for (let step = 0; step < 4; step++) {
      const [gu, gv] = this.world(px, py);
      px += a * (u - gu) + b * (v - gv);
      py += c * (u - gu) + d * (v - gv);
    }
    return [px, py];
  }

  latlng(px, py) {
    const [longitude, latitude] = this.lonlat(px, py);
    return [latitude, longitude];
  }
}

export function geometryOf(image) {
  return image.lattice ? new Placed(image) : new Plain(image);
}

/** The corners of a box as Leaflet bounds. */
export function boundsOf(geometry, [left, top, right, bottom]) {
  return L.latLngBounds([
    geometry.latlng(left, top),
    geometry.latlng(right, top),
    geometry.latlng(right, bottom),
    geometry.latlng(left, bottom),
  ]);
}
