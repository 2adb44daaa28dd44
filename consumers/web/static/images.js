// The images of a series, one at a time: the slider, the keys, a swipe; drawn by the server, so that the first is there
// at once and any browser can show them. Where there is WebGL, cornerstone3D (slices.js) then takes the place of the
// drawn image, with light and zoom at the fingers; what it cannot show stays drawn. Without scripts links turn the pages.
const figure = document.getElementById("image");
const slider = document.getElementById("f-image");
if (figure && slider) begin();

function begin() {
  const preview = figure.querySelector("img"), label = figure.querySelector("figcaption");
  const stage = document.getElementById("stage"), tools = document.getElementById("tools");
  const rtl = document.documentElement.dir === "rtl";
  const digits = new Intl.NumberFormat(document.documentElement.lang === "ar" ? "ar-EG" : "en");
  const pictures = figure.dataset.images.split(" ").flatMap((part) => {
    const [uid, frames] = part.split(":"), instance = figure.dataset.base + uid;
    return Array.from({ length: Number(frames) }, (_, i) => {
      const stored = `${instance}/frames/${i + 1}`;
      return { instance, frame: i + 1, stored, drawn: `${stored}/rendered?${figure.dataset.drawn}` };
    });
  }).slice(0, Number(slider.max));
  const light = { preset: null, brightness: 0, contrast: 0 };
  let at = Number(slider.value) - 1, series = null, live = false, waiting = 0;

  // ---- one image
  function address(n) {
    const changed = light.preset || light.brightness || light.contrast;
    const asked = changed && (series ? series.windowOf(n, light) : light.preset);
    const kind = asked?.exact ? "linear-exact" : "linear";
    return pictures[n].drawn + (asked ? `&window=${asked.center.toFixed(2)},${asked.width.toFixed(2)},${kind}` : "");
  }

  function show(n) {
    at = Math.min(Math.max(n, 0), pictures.length - 1);
    slider.value = at + 1;
    const text = label.dataset.text.replace("{n}", digits.format(at + 1));
    preview.alt = label.textContent = text;
    stage.setAttribute("aria-label", text);
    if (!live || !series.has(at)) draw();
    if (live) load();
    else if (at + 1 < pictures.length) new Image().src = address(at + 1);
  }

  function draw() {
    // Where one has zoomed in, a whole image would jump: the last one stays until this is there
    if (live) figure.dataset.state = series.zoomed() ? "waits" : "drawn";
    preview.src = address(at);
  }

  // What is said when an image has not come. Drawn and stored come by the same line: the drawn one tells for both.
  preview.addEventListener("error", () => { if (figure.dataset.state !== "live") label.textContent = label.dataset.fault; });

  function load() {
    const wanted = at;
    return series.show(wanted, light).then(
      () => {
        if (wanted !== at) return;
        figure.dataset.state = "live";
        label.textContent = preview.alt;
      },
      (error) => {
        if (error.name === "AbortError" || wanted !== at) return;
        series.reset();
        figure.dataset.state = "drawn";
      },
    );
  }

  const turn = (by) => show(at + by);
  slider.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => show(Number(slider.value) - 1), 40);
  });
  for (const [rel, by] of [["prev", -1], ["next", 1]])
    document.querySelector(`a[rel=${rel}]`).addEventListener("click", (event) => { event.preventDefault(); turn(by); });

  // ---- light
  const presets = [...document.querySelectorAll("button[data-window]")];
  const sliders = { brightness: document.getElementById("f-brightness"), contrast: document.getElementById("f-contrast") };
  function press(buttons, pressed) {
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button === pressed));
      button.classList.toggle("second", button !== pressed);
    }
  }
  function relight(change) {
    for (const name of ["brightness", "contrast"]) {
      light[name] = Math.min(Math.max(change[name] ?? light[name], -100), 100);
      sliders[name].value = light[name];
    }
    if ("preset" in change) light.preset = change.preset;
    if (live && figure.dataset.state === "live") series.relight(light);
    else { clearTimeout(waiting); waiting = setTimeout(() => show(at), 150); }
  }
  for (const button of presets)
    button.addEventListener("click", () => {
      press(presets, button);
      const [center, width] = button.dataset.window.split(",").map(Number);
      relight({ preset: width ? { center, width } : null, brightness: 0, contrast: 0 });
    });
  for (const [name, control] of Object.entries(sliders))
    control.addEventListener("input", () => relight({ [name]: Number(control.value) }));

  // ---- what a finger does, and the same by buttons and keys
  const modes = [...tools.querySelectorAll("button[data-mode]")];
  let mode = "turn";
  function choose(wanted) {
    mode = wanted;
    press(modes, modes.find((button) => button.dataset.mode === mode));
    document.getElementById("light").hidden = mode !== "light";
  }
  for (const button of modes) button.addEventListener("click", () => choose(button.dataset.mode));
  for (const button of tools.querySelectorAll("button[data-zoom]"))
    button.addEventListener("click", () => {
      series.zoom(Number(button.dataset.zoom));
      if (mode === "turn" && series.zoomed()) choose("move");
    });
  tools.querySelector("button[data-reset]").addEventListener("click", reset);
  function reset() {
    series.reset();
    choose("turn");
    press(presets, presets[0]);
    relight({ preset: null, brightness: 0, contrast: 0 });
  }

  const fingers = new Map();
  let rest = [0, 0], apart = 0, tapped = null;
  const spread = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
  function place(event) {
    const box = figure.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }
  figure.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, place(event));
    rest = [0, 0];
    apart = fingers.size === 2 ? spread() : 0;
    if (fingers.size === 1) tapped = { ...tapped, moved: false };
    if (live) figure.setPointerCapture(event.pointerId);
  });
  figure.addEventListener("pointermove", (event) => {
    const from = fingers.get(event.pointerId);
    if (!from) return;
    const to = place(event), dx = to[0] - from[0], dy = to[1] - from[1];
    fingers.set(event.pointerId, to);
    if (Math.hypot(dx, dy) > 3) tapped = null;
    if (fingers.size === 2 && live) {
      const now = spread(), [a, b] = [...fingers.values()];
      series.zoom(now / (apart || now), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
      series.move(dx / 2, dy / 2);
      apart = now;
      return;
    }
    if (fingers.size > 1) return;
    if (live && mode === "move") series.move(dx, dy);
    else if (live && mode === "light") relight({ brightness: light.brightness - dy / 2, contrast: light.contrast + dx / 2 });
    else swipe(dx, dy);
  });
  function swipe(dx, dy) {
    rest = [rest[0] + dx, rest[1] + dy];
    const [step, moved] = Math.abs(rest[0]) > Math.abs(rest[1]) ? [40, rtl ? rest[0] : -rest[0]] : [14, live ? rest[1] : 0];
    if (Math.abs(moved) < step) return;
    turn(Math.sign(moved));
    rest = [0, 0];
  }
  function lift(event) {
    if (!fingers.delete(event.pointerId) || event.type === "pointercancel") return;
    const [x, y] = place(event), now = event.timeStamp;
    if (live && tapped?.at && now - tapped.at < 350 && Math.hypot(x - tapped.x, y - tapped.y) < 24) {
      tapped = null;
      series.zoom(2, x, y);
      if (mode === "turn") choose("move");
    } else if (tapped) tapped = { at: now, x, y };
  }
  for (const kind of ["pointerup", "pointercancel"]) figure.addEventListener(kind, lift);
  figure.addEventListener("dragstart", (event) => event.preventDefault());
  figure.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (live && event.ctrlKey) series.zoom(event.deltaY > 0 ? 0.8 : 1.25, ...place(event));
    else turn(event.deltaY > 0 ? 1 : -1);
  }, { passive: false });

  const KEYS = {
    ArrowDown: () => turn(1), ArrowUp: () => turn(-1), PageDown: () => turn(10), PageUp: () => turn(-10),
    ArrowRight: () => turn(rtl ? -1 : 1), ArrowLeft: () => turn(rtl ? 1 : -1),
    Home: () => show(0), End: () => show(pictures.length - 1),
    "+": () => series.zoom(1.5), "=": () => series.zoom(1.5), "-": () => series.zoom(1 / 1.5), 0: reset,
  };
  const STEPS = { ArrowDown: [0, -40], ArrowUp: [0, 40], ArrowRight: [-40, 0], ArrowLeft: [40, 0] };
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = series.zoomed() && STEPS[event.key] ? () => series.move(...STEPS[event.key]) : KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  // ---- the viewer takes over once the drawn image is there: that one is not made to wait for the library
  async function enliven() {
    const { open } = await import(figure.dataset.slices);
    series = await open(stage, figure.dataset.library, pictures);
    await series.show(at, light);
    live = true;
    tools.hidden = false;
    stage.tabIndex = 0;
    stage.setAttribute("role", "img");
    preview.setAttribute("aria-hidden", "true");
    choose("turn");
    figure.dataset.state = "live";
    show(at);
  }
  const able = figure.dataset.library && document.createElement("canvas").getContext("webgl2");
  if (able) {
    const there = preview.complete ? Promise.resolve() : new Promise((done) => {
      for (const kind of ["load", "error"]) preview.addEventListener(kind, done, { once: true });
    });
    there.then(enliven).catch(() => { live = false; });
  }
}
