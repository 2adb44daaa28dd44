// A series in cornerstone3D. Grey images come as they are stored and are decoded here, so that light can be changed
// without asking again; what this cannot decode, and colour, comes as the server draws it. What is looked at is loaded
// first and alone; then a few images around it, one by one, as long as nobody turns on. Memory is bounded.
const CACHE_MAX = 128 << 20; // bytes of decoded images: 250 of a CT
const AHEAD = 6, BEHIND = 2;
const SETTLED_MS = 90; // who runs through a series is shown drawn images; loading begins where they stop
const ZOOM_MAX = 12;
const GREY = new Set(["MONOCHROME1", "MONOCHROME2"]);

// ---- what a header says (PS3.18 annex F), also of one frame (PS3.3 C.7.6.16)
const values = (found, tag) => found?.[tag]?.Value ?? [];
const numbers = (found, tag) => values(found, tag).map(Number).filter(Number.isFinite);
const SEQUENCES = { "00281052": "00289145", "00281053": "00289145", "00281050": "00289132", "00281051": "00289132",
  "00281056": "00289132", "00280030": "00289110" };

function reader(header, frame) {
  const groups = [values(header, "52009230")[frame - 1], values(header, "52009229")[0]];
  return (tag, read = numbers) => {
    for (const item of [header, ...groups.map((group) => values(group, SEQUENCES[tag])[0])]) {
      const found = read(item, tag);
      if (found.length) return found;
    }
    return [];
  };
}

function described(header, frame) {
  const of = reader(header, frame), one = (tag, otherwise) => of(tag)[0] ?? otherwise;
  const word = (tag) => of(tag, values)[0] ?? "";
  const spacing = [of("00280030"), of("00181164"), of("00280034")].find((found) => found.length === 2) ?? [1, 1];
  const kind = word("00281056") || "LINEAR";
  return {
    rows: one("00280010"), columns: one("00280011"), bitsAllocated: one("00280100", 16), bitsStored: one("00280101", 16),
    pixelRepresentation: one("00280103", 0), photometricInterpretation: word("00280004"), samplesPerPixel: one("00280002", 1),
    slope: one("00281053", 1), intercept: one("00281052", 0), center: one("00281050"), width: one("00281051"),
    exact: kind === "LINEAR_EXACT", spacing,
    // A table or a curve is what the server applies
    stored: GREY.has(word("00280004")) && one("00280002", 1) === 1 && [8, 16].includes(one("00280100")) &&
      kind !== "SIGMOID" && !values(header, "00283000").length && !values(header, "00283010").length,
  };
}

// PS3.3 C.11.2.1.2.1 and C.11.2.1.3.2
function range({ center, width, exact }) {
  return exact ? { lower: center - width / 2, upper: center + width / 2 }
    : { lower: center - 0.5 - (width - 1) / 2, upper: center - 0.5 + (width - 1) / 2 };
}

const gone = () => new DOMException("another image is wanted", "AbortError");

/** Shows one of `pictures` ({instance, frame, stored, drawn}) at a time in `element`. */
export async function open(element, address, pictures) {
  const cs = await import(address);
  const folder = new URL(".", new URL(address, location.href)).href;
  const worker = new Worker(folder + "worker.js", { type: "module" });
  const broken = new Promise((_, fail) => worker.addEventListener("error", () => fail(new Error("no decoder"))));
  broken.catch(() => {});
  const decoder = cs.wrap(worker);
  await cs.init({ rendering: { webGlContextCount: 1 } });
  cs.cache.setMaxCacheSize(CACHE_MAX);

  // ---- loading
  const ids = pictures.map((_, i) => `sijil:${i}`);
  const facts = new Map(), windows = new Map(), headers = new Map(), flying = new Map();
  cs.metaData.addProvider((kind, id) => facts.get(id)?.[kind], 10000);

  function headerOf(instance) {
    if (!headers.has(instance)) {
      const asked = fetch(`${instance}/metadata`, { headers: { Accept: "application/dicom+json" } })
        .then((answer) => { if (!answer.ok) throw new Error(`status ${answer.status}`); return answer.json(); })
        .then((found) => found[0]);
      asked.catch(() => headers.delete(instance));
      headers.set(instance, asked);
    }
    return headers.get(instance);
  }

  async function decoded(about, picture, signal) {
    const answer = await fetch(picture.stored, { signal, headers: { Accept: "application/octet-stream; transfer-syntax=*" } });
    const syntax = /transfer-syntax=([\d.]+)/.exec(answer.headers.get("Content-Type"))?.[1];
    if (!answer.ok || !syntax) throw new Error(`status ${answer.status}`);
    const pixelData = new Uint8Array(await answer.arrayBuffer());
    const scaling = { rescaleSlope: about.slope, rescaleIntercept: about.intercept };
    const task = {
      imageFrame: about, transferSyntax: syntax, decodeConfig: { wasmBasePath: folder },
      options: { preScale: { enabled: true, scalingParameters: scaling } }, pixelData,
    };
    const made = await Promise.race([decoder.decodeTask(cs.transfer(task, [pixelData.buffer])), broken]);
    const { pixelData: pixels, smallestPixelValue: min, largestPixelValue: max, rows, columns } = made;
    return { pixels, min, max, rows, columns, components: 1, preScale: made.preScale };
  }

  async function drawn(picture, signal) {
    const answer = await fetch(picture.drawn, { signal });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const bitmap = await createImageBitmap(await answer.blob());
    const { width: columns, height: rows } = bitmap;
    const canvas = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const { data } = context.getImageData(0, 0, columns, rows);
    const pixels = new Uint8Array(rows * columns * 3);
    for (let from = 0, to = 0; from < data.length; from += 4) {
      pixels[to++] = data[from];
      pixels[to++] = data[from + 1];
      pixels[to++] = data[from + 2];
    }
    return { pixels, min: 0, max: 255, rows, columns, components: 3 };
  }

  async function image(id, signal) {
    const index = Number(id.slice("sijil:".length)), picture = pictures[index];
    const about = described(await headerOf(picture.instance), picture.frame);
    let grey = about.stored, found;
    if (grey) found = await decoded(about, picture, signal).catch((error) => { if (signal.aborted) throw error; grey = false; });
    found ??= await drawn(picture, signal);
    const { pixels, min, max, rows, columns, components } = found;
    const given = grey && about.center !== undefined && about.width >= 1;
    windows.set(index, !grey ? { center: 128, width: 255, exact: true }
      : given ? { center: about.center, width: about.width, exact: about.exact }
        : { center: (min + max) / 2, width: Math.max(max - min, 1), exact: true });
    const { center: windowCenter, width: windowWidth } = windows.get(index);
    const photometric = grey ? about.photometricInterpretation : "RGB";
    // The server draws with the pixels' own shape; whatever the size, it covers the same place as the stored image
    const [rowPixelSpacing, columnPixelSpacing] = grey ? about.spacing : [1, 1];
    const bits = pixels.BYTES_PER_ELEMENT * 8;
    facts.set(id, {
      imagePixelModule: { bitsAllocated: bits, bitsStored: bits, highBit: bits - 1, samplesPerPixel: components,
        photometricInterpretation: photometric, pixelRepresentation: min < 0 ? 1 : 0 },
      imagePlaneModule: { rows, columns, rowPixelSpacing, columnPixelSpacing, rowCosines: [1, 0, 0],
        columnCosines: [0, 1, 0], imageOrientationPatient: [1, 0, 0, 0, 1, 0], imagePositionPatient: [0, 0, 0] },
      voiLutModule: { windowCenter: [windowCenter], windowWidth: [windowWidth] },
      generalSeriesModule: { modality: "OT" }, modalityLutModule: {},
    });
    const voxelManager = cs.utilities.VoxelManager.createImageVoxelManager(
      { scalarData: pixels, width: columns, height: rows, numberOfComponents: components });
    return {
      imageId: id, dataType: pixels.constructor.name, color: !grey, rgba: false, numberOfComponents: components,
      rows, columns, height: rows, width: columns, rowPixelSpacing, columnPixelSpacing, calibration: {},
      slope: 1, intercept: 0, preScale: found.preScale, invert: photometric === "MONOCHROME1",
      minPixelValue: min, maxPixelValue: max, windowCenter, windowWidth, voiLUTFunction: "LINEAR",
      sizeInBytes: pixels.byteLength, voxelManager, getPixelData: () => pixels, imageFrame: { photometricInterpretation: photometric },
    };
  }

  function begin(id) {
    const control = new AbortController();
    flying.set(id, control);
    return { promise: image(id, control.signal).finally(() => flying.delete(id)), cancelFn: () => control.abort() };
  }
  // Not by loadAndCacheImage, which leaves a rejection for nobody
  const load = async (id) => cs.cache.getImageLoadObject(id)?.promise ?? cs.cache.putImageLoadObject(id, begin(id));
  cs.imageLoader.registerImageLoader("sijil", begin);
  const has = (n) => Boolean(cs.cache.getImage(ids[n]));

  // ---- showing
  const engine = new cs.RenderingEngine("series");
  engine.enableElement({ viewportId: "image", type: cs.Enums.ViewportType.STACK, element, defaultOptions: { background: [0, 0, 0] } });
  const viewport = engine.getViewport("image");
  new ResizeObserver(() => engine.resize(true, true)).observe(element);
  let wanted = -1, stacked = false, shown = -1;

  /** The window of an image: a preset in its place or its own, then brighter and with more contrast by -100 to 100. */
  function windowOf(n, { preset, brightness, contrast }) {
    const base = preset ?? windows.get(n);
    if (!base) return null;
    const width = Math.max(base.width * 2 ** (-contrast / 40), 1);
    return { ...base, width, center: base.center - (brightness / 100) * base.width };
  }

  function relight(light) {
    if (shown < 0) return;
    viewport.setProperties({ voiRange: range(windowOf(shown, light)) });
    viewport.render();
  }

  async function ahead(n, by) {
    if (navigator.connection?.saveData) return;
    const around = [];
    for (let i = 1; i <= AHEAD; i++) around.push(n + i * by, ...(i <= BEHIND ? [n - i * by] : []));
    for (const next of around) {
      if (wanted !== n) return;
      if (pictures[next] && !has(next)) await load(ids[next]).catch(() => {});
    }
  }

  async function show(n, light) {
    const by = n < wanted ? -1 : 1;
    wanted = n;
    for (const [id, control] of flying) if (id !== ids[n]) control.abort();
    if (!has(n) && shown >= 0) await new Promise((done) => { setTimeout(done, SETTLED_MS); });
    if (wanted !== n) throw gone();
    await load(ids[n]);
    if (wanted !== n) throw gone();
    if (stacked) await viewport.setImageIdIndex(n);
    else await viewport.setStack(ids, n);
    stacked = true;
    if (wanted !== n) throw gone();
    shown = n;
    const there = new Promise((done) => { element.addEventListener(cs.Enums.Events.IMAGE_RENDERED, done, { once: true }); });
    relight(light);
    await there;
    ahead(n, by);
  }

  // ---- where one looks
  function shift(from, to) {
    const { focalPoint, position } = viewport.getCamera();
    const by = viewport.canvasToWorld(from).map((v, i) => v - viewport.canvasToWorld(to)[i]);
    viewport.setCamera({ focalPoint: focalPoint.map((v, i) => v + by[i]), position: position.map((v, i) => v + by[i]) });
    viewport.render();
  }

  function zoom(factor, x = element.clientWidth / 2, y = element.clientHeight / 2) {
    if (shown < 0) return;
    const before = viewport.canvasToWorld([x, y]);
    viewport.setZoom(Math.min(Math.max(viewport.getZoom() * factor, 1), ZOOM_MAX));
    shift(viewport.worldToCanvas(before), [x, y]);
    if (viewport.getZoom() <= 1.001) reset();
  }

  function reset() {
    viewport.resetCamera();
    viewport.render();
  }

  return {
    has, show, relight, windowOf, zoom, reset,
    move: (dx, dy) => shown >= 0 && shift([0, 0], [dx, dy]),
    zoomed: () => shown >= 0 && viewport.getZoom() > 1.001,
  };
}
