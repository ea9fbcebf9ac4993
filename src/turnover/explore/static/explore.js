// Keys, and progress of long work. Everything else is plain links and forms.
"use strict";
(() => {
  const typing = (e) => /^(INPUT|TEXTAREA|SELECT)$/.test(e.tagName) && e.type !== "submit";
  const rows = () => [...document.querySelectorAll("[data-row]")].filter((e) => e.offsetParent);

  const step = (by) => {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const own = [...document.querySelectorAll("[data-key]")].find((e) => e.dataset.key === event.key);
    if (own) {
      event.preventDefault();
      own.click();
    } else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "d") document.querySelector("nav a[href='/decide']")?.click();
    else if (event.key === "/") {
      const search = document.querySelector("[data-search]");
      if (search) {
        event.preventDefault();
        search.focus();
        search.select();
      }
    } else if (event.key === "?") document.querySelector("footer").scrollIntoView();
  });

  // A decision is sent once, however often the key is hit.
  document.addEventListener("submit", (event) => {
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = event.target.method === "post" ? "1" : "";
  });
  addEventListener("pageshow", () => document.querySelectorAll("form").forEach((f) => delete f.dataset.sent));

  const follow = (box) => {
    if (box.dataset.followed) return;
    box.dataset.followed = "1";
    const source = new EventSource(box.dataset.events);
    source.onmessage = (message) => {
      const job = JSON.parse(message.data);
      const bar = box.querySelector("progress");
      if (bar && job.whole) {
        bar.max = job.whole;
        bar.value = job.done;
      }
      const words = box.querySelector("[data-words]");
      if (words) words.textContent = (job.what || job.state) + (job.whole ? `, ${job.done} of at most ${job.whole}` : "");
      if (["done", "failed", "cancelled"].includes(job.state)) {
        source.close();
        htmx.ajax("GET", box.dataset.after, { target: box.closest("[data-job]"), swap: "innerHTML" });
      }
    };
  };
  const followAll = (root) => root.querySelectorAll("[data-events]").forEach(follow);
  document.addEventListener("DOMContentLoaded", () => followAll(document));
  document.addEventListener("htmx:afterSwap", (event) => followAll(event.detail.target));
})();
