// A scale bar under the first map: metres on Earth, or pixels of the image.

import { brief } from "./facts.js";

export const Scale = L.Control.extend({
  options: { position: "bottomright" },
  initialize(image) {
    this._image = image;
  },
  onAdd(map) {
    this._box = L.DomUtil.create("div", "scale num");
    this._box.setAttribute("aria-hidden", "true");
    map.on("move zoomend resize", this._update, this);
    map.whenReady(this._update, this);
    return this._box;
  },
  onRemove(map) {
    map.off("move zoomend resize", this._update, this);
  },
  _update() {
    const map = this._map;
    const size = map.getSize();
    if (!size.x) return;
    const most = Math.min(90, size.x * 0.3);
    const middle = size.divideBy(2);
    const one = map.containerPointToLatLng(middle);
    const other = map.containerPointToLatLng(middle.add([most, 0]));
    const isPlaced = Boolean(this._image.lattice);
    const length = isPlaced ? map.distance(one, other) : (other.lng - one.lng) * 2 ** this._image.depth;
    if (!(length > 0)) return;
    const ten = 10 ** Math.floor(Math.log10(length));
    const round = [5, 2, 1].map((step) => step * ten).find((value) => value <= length);
    const words = isPlaced ? (round >= 1000 ? `${round / 1000} km` : round < 1 ? `${brief(round * 100)} cm` : `${round} m`) : `${round.toLocaleString("en")} px`;
    const bar = document.createElement("i");
    bar.style.width = `${(most * round) / length}px`;
    this._box.replaceChildren(words, bar);
  },
});

