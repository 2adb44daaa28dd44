/* The radiologist's pages: the draft is saved while it is written, and every step has a key. Without this script the
   pages work by their forms. It holds nothing in the browser: what is not on the server is said to be not saved. */
"use strict";
(() => {
  const PAUSE_MS = 1200, AGAIN_MS = 4000;
  const paper = document.getElementById("paper");
  const press = (id) => document.getElementById(id)?.click();

  /* ---- the list: up and down by J and K, the first row is where Enter opens */
  const rows = () => [...document.querySelectorAll("#waiting .row")];
  if (rows().length && document.activeElement === document.body) rows()[0].focus();

  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input:not([type=radio]):not([type=checkbox]),textarea,select");
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (plain && !typing && (event.code === "KeyJ" || event.code === "KeyK") && rows().length) {
      const all = rows(), at = all.indexOf(document.activeElement);
      all[Math.min(all.length - 1, Math.max(0, at + (event.code === "KeyJ" ? 1 : -1)))].focus();
    } else if (event.code === "Escape" && document.getElementById("back")) {
      press("back");
    } else if (!paper) {
      return;
    } else if ((event.ctrlKey || event.metaKey) && event.code === "Enter") {
      press("check");
    } else if ((event.ctrlKey || event.metaKey) && event.code === "KeyS") {
      save();
    } else if (event.code === "F2") {
      nextBlank(event.shiftKey ? -1 : 1);
    } else if (event.altKey && event.code === "KeyV") {
      press("viewer");
    } else if (event.altKey && /^Digit[1-9]$/.test(event.code)) {
      const button = document.querySelectorAll("[data-template]")[event.code.slice(5) - 1];
      if (!button) return;
      button.click();
    } else {
      return;
    }
    event.preventDefault();
  });
  if (!paper) return;

  /* ---- templates and their blanks */
  const field = (name) => paper.elements[name];
  const texts = [field("findings"), field("impression")];
  const language = () => paper.querySelector("[name=language]:checked").value;

  for (const button of paper.querySelectorAll("[data-template]")) {
    button.addEventListener("click", () => {
      const said = (name) => button.getAttribute(`data-${language()}-${name}`);
      field("title").value = said("title");
      for (const area of texts) {
        /* What somebody wrote stays: a template comes behind it. Undo (Ctrl+Z) takes it back. */
        area.focus();
        area.setSelectionRange(area.value.length, area.value.length);
        const text = (area.value.trim() ? "\n" : "") + said(area.name);
        if (!document.execCommand("insertText", false, text)) area.value += text;
      }
      field("template").value = button.dataset.template;
      texts[0].focus();
      texts[0].setSelectionRange(0, 0);
      nextBlank(1);
      changed();
    });
  }
  for (const radio of paper.querySelectorAll("[name=language]")) {
    radio.addEventListener("change", () => {
      for (const button of paper.querySelectorAll("[data-template]")) {
        button.querySelector("[data-name]").textContent = button.getAttribute(`data-${language()}-title`);
      }
    });
  }

  function nextBlank(step) {
    const found = texts.flatMap((area) => [...area.value.matchAll(/\[[^[\]\n]*\]/g)].map((m) => [area, m.index, m[0].length]));
    if (!found.length) return;
    const here = texts.indexOf(document.activeElement);
    const at = here < 0 ? -1 : document.activeElement.selectionStart;
    const place = ([area, index]) => [texts.indexOf(area), index];
    const behind = (f) => place(f)[0] > here || (place(f)[0] === here && place(f)[1] > at);
    const before = (f) => place(f)[0] < here || (place(f)[0] === here && place(f)[1] < at);
    const selected = here >= 0 && texts[here].selectionEnd > at && texts[here].value[at] === "[";
    const next = step > 0
      ? found.find((f) => behind(f) || (!selected && place(f)[0] === here && place(f)[1] === at)) ?? found[0]
      : found.findLast(before) ?? found.at(-1);
    next[0].focus();
    next[0].setSelectionRange(next[1], next[1] + next[2]);
  }

  /* ---- saving */
  const status = document.getElementById("saved"), conflict = document.getElementById("conflict");
  let waiting = 0, running = false, dirty = false, leaving = false, other = "";

  const say = (text, kind) => { status.textContent = text; status.dataset.kind = kind; };

  function changed() {
    dirty = true;
    clearTimeout(waiting);
    waiting = setTimeout(save, PAUSE_MS);
  }

  async function save(last = false) {
    clearTimeout(waiting);
    if (!dirty || running || other || leaving) return;
    running = true;
    dirty = false;
    say(paper.dataset.saving, "");
    try {
      const told = await send(last) ?? await send(last, await renewed());
      if (!told) throw new Error("not saved");
      if (told.state === "changed") {
        other = told.save_id;
        dirty = true;
        conflict.hidden = false;
        say(paper.dataset.changed, "bad");
      } else {
        field("save_id").value = told.save_id;
        say(`${paper.dataset.saved} ${told.at}`, "good");
      }
    } catch {
      dirty = true;
      say(paper.dataset.unsaved, "bad");
      waiting = setTimeout(save, AGAIN_MS);
    }
    running = false;
    if (dirty && !other) { clearTimeout(waiting); waiting = setTimeout(save, AGAIN_MS); }
  }

  async function send(last, token = "") {
    if (token) for (const input of document.querySelectorAll("input[name=csrf]")) input.value = token;
    const body = new URLSearchParams(new FormData(paper));
    /* A page that is being left may send 64 kB at most in this way: a longer text was saved while it was written. */
    const keepalive = last && body.toString().length < 60000;
    const answer = await fetch(paper.dataset.save, { method: "POST", body, keepalive });
    return answer.headers.get("content-type")?.startsWith("application/json") ? answer.json() : null;
  }

  /* After another log-in in another tab this page's forms have a token of the session before. */
  async function renewed() {
    const answer = await fetch(location.href);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    return page.querySelector("#paper input[name=csrf]")?.value ?? "";
  }

  paper.addEventListener("input", changed);
  document.addEventListener("change", (event) => { if (event.target.form === paper) changed(); });
  document.addEventListener("visibilitychange", () => { if (document.hidden) save(true); });
  window.addEventListener("pagehide", () => save(true));
  window.addEventListener("beforeunload", (event) => { if (!leaving && (dirty || other)) event.preventDefault(); });
  paper.addEventListener("submit", (event) => {
    if (running) {
      /* The save that is on its way decides which one the signature goes on from. */
      event.preventDefault();
      const again = setInterval(() => { if (!running) { clearInterval(again); paper.requestSubmit(); } }, 50);
      return;
    }
    clearTimeout(waiting);
    leaving = true;
  });
  document.getElementById("keep-mine").addEventListener("click", () => {
    field("save_id").value = other;
    other = "";
    conflict.hidden = true;
    save();
  });
  document.getElementById("take-other").addEventListener("click", () => { leaving = true; location.reload(); });
})();
