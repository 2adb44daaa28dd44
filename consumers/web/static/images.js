// One image of a series at a time: the slider, the keys, a swipe. Without it the links turn the pages.
"use strict";
const list = [...document.querySelectorAll("#images li")];
const figure = document.getElementById("image");
const slider = document.getElementById("f-image");
if (figure && slider) {
  const image = figure.querySelector("img");
  const label = figure.querySelector("figcaption");
  const rtl = document.documentElement.dir === "rtl";
  let window_ = "";
  const address = (n) => list[n - 1].dataset.src + (window_ ? "&window=" + window_ : "");
  const show = (wanted) => {
    const n = Math.min(Math.max(wanted, 1), list.length);
    slider.value = n;
    image.src = address(n);
    image.alt = label.textContent = list[n - 1].dataset.label;
    if (n < list.length) new Image().src = address(n + 1);
  };
  const turn = (by) => show(Number(slider.value) + by);
  let waiting = 0;
  slider.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => show(Number(slider.value)), 60);
  });
  for (const [rel, by] of [["prev", -1], ["next", 1]])
    document.querySelector(`a[rel=${rel}]`).addEventListener("click", (e) => { e.preventDefault(); turn(by); });
  let from = null;
  figure.addEventListener("pointerdown", (e) => { from = e.clientX; });
  figure.addEventListener("pointerup", (e) => {
    const moved = from === null ? 0 : e.clientX - from;
    from = null;
    if (Math.abs(moved) > 40) turn((moved < 0) !== rtl ? 1 : -1);
  });
  figure.addEventListener("wheel", (e) => { e.preventDefault(); turn(e.deltaY > 0 ? 1 : -1); }, { passive: false });
  const buttons = [...document.querySelectorAll("button[data-window]")];
  for (const button of buttons)
    button.addEventListener("click", () => {
      window_ = button.dataset.window;
      for (const other of buttons) {
        other.setAttribute("aria-pressed", String(other === button));
        other.classList.toggle("second", other !== button);
      }
      turn(0);
    });
}
