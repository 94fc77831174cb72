// Runs before the first paint: takes theme and width from the page around the frame, if there is one.
(function () {
  "use strict";
  const root = document.documentElement;
  let outer = null;
  try {
    if (window.parent !== window && window.parent.document.body) outer = window.parent;
  } catch (_) {
    outer = null; // another origin embeds the page: it stands alone
  }

  function theme() {
    const asked = new URLSearchParams(location.search).get("theme");
    const dark = outer ? outer.document.body.classList.contains("dark") : asked === "dark";
    if (root.classList.contains("dark") === dark) return;
    root.classList.toggle("dark", dark);
    window.dispatchEvent(new Event("km-theme"));
  }

  function width() {
    const count = Number(root.dataset.n);
    const wide = outer ? outer.innerWidth : window.innerWidth;
    root.classList.toggle("narrow", wide <= 860);
    root.classList.toggle("two", count === 4 && wide <= 1180);
    root.classList.toggle("even", count % 2 === 0);
  }

  root.classList.toggle("framed", outer !== null);
  theme();
  width();
  window.addEventListener("resize", width);
  if (outer) {
    new MutationObserver(theme).observe(outer.document.body, { attributes: true, attributeFilter: ["class"] });
    outer.addEventListener("resize", width);
    window.addEventListener("pagehide", () => outer.removeEventListener("resize", width));
    document.addEventListener("DOMContentLoaded", () => {
      const fit = () => {
        const frame = window.frameElement;
        if (!frame) return;
        frame.style.height = `${Math.ceil(document.body.getBoundingClientRect().height)}px`;
        const room = frame.parentElement.getBoundingClientRect();
        const bleeds = room.left >= 8 && outer.innerWidth - room.right >= 8;
        root.classList.toggle("bleed", bleeds);
        frame.style.marginInline = bleeds ? "-8px" : "0";
        frame.style.width = bleeds ? "calc(100% + 16px)" : "100%";
      };
      new ResizeObserver(fit).observe(document.body);
      fit();
    });
  }
})();
