// Keys, selection and the time that is left to undo. Everything here betters forms and links that work without it.
"use strict";
(() => {
  const rows = () => Array.from(document.querySelectorAll("[data-row]"));
  let current = null; // id of the row the keys are for

  const row = () => rows().find((each) => each.id === current && each.id) || document.querySelector("[data-row][aria-current]");

  const go = (step) => {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(row());
    mark(all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + step))], true);
  };

  const mark = (one, focus) => {
    for (const each of rows()) each.removeAttribute("aria-current");
    if (!one) return;
    one.setAttribute("aria-current", "true");
    current = one.id;
    if (focus) one.focus({ preventScroll: true });
    if (focus) one.scrollIntoView({ block: "nearest" });
  };

  const tell = (words) => {
    const place = document.getElementById("told");
    place.textContent = words;
    place.classList.add("shown");
    setTimeout(() => place.classList.remove("shown"), 6000);
  };

  const typing = (element) =>
    element.matches("textarea, select, input:not([type=checkbox]):not([type=radio])") || element.isContentEditable;

  const reveal = (scope) => {
    const boxes = Array.from(scope.querySelectorAll(".unveil"));
    const shown = boxes.every((box) => box.checked);
    for (const box of boxes) box.checked = !shown;
  };

  const press = (key) => {
    const inRow = row() && row().querySelector(`[data-key="${key}"]`);
    const elsewhere = () =>
      Array.from(document.querySelectorAll(`[data-key="${key}"]`)).find((each) => !each.closest("[data-row]"));
    const found = inRow || elsewhere();
    if (found && found.checkVisibility && !found.checkVisibility()) return false;
    if (found) found.click();
    return Boolean(found);
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || typing(event.target)) return;
    const dialog = document.querySelector("dialog[open]");
    if (dialog) return;
    const key = event.key;
    if (key === "j" || key === "ArrowDown" && event.target.matches("[data-row]")) go(1);
    else if (key === "k" || key === "ArrowUp" && event.target.matches("[data-row]")) go(-1);
    else if (key === "?") document.getElementById("help").showModal();
    else if (key === "r") reveal(row() || document.querySelector("[data-veils]") || document);
    else if (key === "x" && row()) {
      const box = row().querySelector(".picker");
      if (box) box.checked = !box.checked;
      count();
    } else if (key === "Enter" && event.target.matches("[data-row]")) press("o");
    else if (/^[a-zA-Z]$/.test(key) && press(key)) { /* done by the click */ }
    else return;
    event.preventDefault();
  });

  document.addEventListener("focusin", (event) => {
    const inside = event.target.closest("[data-row]");
    if (inside) mark(inside, false);
  });

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open]");
    if (opener) document.getElementById(opener.dataset.open).showModal();
  });

  const count = () => {
    const picked = document.querySelectorAll(".picker:checked").length;
    for (const place of document.querySelectorAll(".picked")) place.textContent = `${picked} selected`;
  };
  document.addEventListener("change", count);

  // A form that is sent twice by an eager finger would only meet an error.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent && !form.matches("[hx-post], [hx-get], [method=dialog]")) event.preventDefault();
    if (form.method === "post") form.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.forms) delete form.dataset.sent;
  });

  const tick = () => {
    for (const bar of document.querySelectorAll("[data-until]")) {
      const left = Math.max(0, Math.round(Number(bar.dataset.until) - Date.now() / 1000));
      if (!left) bar.remove();
      else bar.querySelector(".left").textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
    }
  };
  setInterval(tick, 1000);

  document.addEventListener("htmx:afterSettle", () => {
    const held = rows().find((each) => each.id === current);
    mark(held || null, Boolean(held));
    count();
  });
  document.addEventListener("htmx:responseError", (event) => {
    const answer = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
    const words = answer.querySelector(".problem");
    tell(words ? words.textContent : "That did not work; load the page again.");
  });
  document.addEventListener("htmx:sendError", () => tell("The gateway does not answer; try again."));

  for (const button of document.querySelectorAll(".help-button")) button.hidden = false;
  document.documentElement.classList.add("scripted");
  tick();
  count();
})();
