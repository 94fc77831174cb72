// Where a pixel of the image lies on the map.
//
// "World" coordinates are Leaflet's projected pixels at zoom 0, so that world * 2 ** zoom is what a map shows. A plain image
// uses pixel / 2 ** depth. A georeferenced one is placed by a lattice of nodes whose longitude and latitude the server
// computed; between them the page is bilinear in Web Mercator.

const RADIANS = Math.PI / 180;

function mercator(longitude, latitude) {
  const sine = Math.sin(latitude * RADIANS);
  return [256 * (longitude / 360 + 0.5), 256 * (0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI))];
}

function unproject(u, v) {
  const y = (0.5 - v / 256) * 2 * Math.PI;
  return [(u / 256 - 0.5) * 360, (2 * Math.atan(Math.exp(y)) - Math.PI / 2) / RADIANS];
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
    this.u = new Float64Array(lon.length);
    this.v = new Float64Array(lon.length);
    for (let i = 0; i < lon.length; i++) [this.u[i], this.v[i]] = mercator(lon[i], lat[i]);
    this.inverse = this.#affine();
  }

  world(px, py) {
    const { x, y, u, v } = this;
    const i = interval(x, px);
    const j = interval(y, py);
    const s = (px - x[i]) / (x[i + 1] - x[i]);
    const t = (py - y[j]) / (y[j + 1] - y[j]);
    const a = j * x.length + i;
    const c = a + x.length;
    const mix = (w) => (w[a] * (1 - s) + w[a + 1] * s) * (1 - t) + (w[c] * (1 - s) + w[c + 1] * s) * t;
    return [mix(u), mix(v)];
  }

  /** The affine map through three corners, inverted: a first guess for `pixel`. */
  #affine() {
    const { x, y, u, v } = this;
    const right = x.length - 1;
    const low = (y.length - 1) * x.length;
    const width = x[right] - x[0];
    const height = y[y.length - 1] - y[0];
    const [a, b] = [(u[right] - u[0]) / width, (u[low] - u[0]) / height];
    const [c, d] = [(v[right] - v[0]) / width, (v[low] - v[0]) / height];
    const determinant = a * d - b * c;
    return [d / determinant, -b / determinant, -c / determinant, a / determinant];
  }

  pixel(u, v) {
    const [a, b, c, d] = this.inverse;
    let px = this.x[0] + a * (u - this.u[0]) + b * (v - this.v[0]);
    let py = this.y[0] + c * (u - this.u[0]) + d * (v - this.v[0]);
    // The placement is nearly affine, so two corrections leave less than a thousandth of a pixel.
    for (let step = 0; step < 3; step++) {
      const [gu, gv] = this.world(px, py);
      px += a * (u - gu) + b * (v - gv);
      py += c * (u - gu) + d * (v - gv);
    }
    return [px, py];
  }

  latlng(px, py) {
    const [longitude, latitude] = unproject(...this.world(px, py));
    return [latitude, longitude];
  }

  lonlat(px, py) {
    return unproject(...this.world(px, py));
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
