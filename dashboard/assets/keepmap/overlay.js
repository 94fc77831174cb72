// A Leaflet layer that is one canvas: it covers the view and half a view around it, and is painted anew when the view rests.

const MARGIN = 0.5; // of the view on each side; a drag inside it costs no painting

export const Overlay = L.Layer.extend({
  initialize(pane, className, draw) {
    this._paneName = pane;
    this._className = className;
    this._draw = draw;
  },

  onAdd(map) {
    this._canvas = L.DomUtil.create("canvas", `${this._className} leaflet-zoom-animated`, map.getPane(this._paneName));
    this._canvas.setAttribute("aria-hidden", "true");
    map.on("moveend zoomend viewreset resize", this.repaint, this);
    map.on("move", this._follow, this);
    map.on("zoomanim", this._animate, this);
    this.repaint();
  },

  onRemove(map) {
    map.off("moveend zoomend viewreset resize", this.repaint, this);
    map.off("move", this._follow, this);
    map.off("zoomanim", this._animate, this);
    this._canvas.remove();
  },

  repaint() {
    const map = this._map;
    if (!map) return;
    const size = map.getSize();
    if (!size.x || !size.y) return;
    const ratio = window.devicePixelRatio || 1;
    const margin = size.multiplyBy(MARGIN).round();
    const full = size.add(margin.multiplyBy(2));
    const corner = map.containerPointToLayerPoint([-margin.x, -margin.y]).round();
    const canvas = this._canvas;
    const [width, height] = [Math.round(full.x * ratio), Math.round(full.y * ratio)];
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      canvas.style.width = `${full.x}px`;
      canvas.style.height = `${full.y}px`;
    }
    L.DomUtil.setPosition(canvas, corner);
    this._corner = corner;
    this._zoom = map.getZoom();
    this._covered = L.bounds(corner, corner.add(full));
    this._topLeft = map.layerPointToLatLng(corner);
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.scale(ratio, ratio);
    const origin = map.getPixelOrigin().add(corner);
    this._draw(context, {
      scale: 2 ** map.getZoom(),
      x: origin.x,
      y: origin.y,
      width: full.x,
      height: full.y,
      ratio,
      view: { left: margin.x, top: margin.y, width: size.x, height: size.y },
    });
  },

  _follow() {
    const map = this._map;
    const size = map.getSize();
    const corner = map.containerPointToLayerPoint([0, 0]);
    const seen = L.bounds(corner, corner.add(size));
    if (map.getZoom() !== this._zoom || !this._covered || !this._covered.contains(seen)) this.repaint();
  },

  _animate(event) {
    const map = this._map;
    const scale = map.getZoomScale(event.zoom, this._zoom);
    const offset = map._latLngToNewLayerPoint(this._topLeft, event.zoom, event.center);
    L.DomUtil.setTransform(this._canvas, offset, scale);
  },
});
