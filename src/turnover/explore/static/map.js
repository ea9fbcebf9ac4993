// Points on a plain canvas: typed arrays, a grid to find the nearest, a lasso to a list.
"use strict";
(async () => {
  const canvas = document.querySelector("[data-map]");
  if (!canvas) return;
  const form = document.querySelector("[data-map-form]");
  const says = document.querySelector("[data-map-says]");
  const legend = document.querySelector("[data-legend]");
  const tip = document.querySelector(".tip");
  const paper = canvas.getContext("2d");
  const classes = JSON.parse(canvas.dataset.classes);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const HUES = [[11, 110, 110], [180, 68, 31], [91, 86, 144], [120, 110, 20], [30, 100, 180], [160, 40, 110], [60, 120, 50], [120, 90, 70], [90, 90, 90], [200, 130, 20]];
  const SHADES = 16;

  const floats = async (url) => {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(answer.status === 400 ? "The scores are not ready yet, or there is no such row." : `Error ${answer.status}`);
    return new Float32Array(await answer.arrayBuffer());
  };
  const places = await floats("/map/points");
  const count = places.length / 2;
  let colour = new Float32Array(count);
  let by = "label";
  let lasso = [];
  let chosen = null;

  const size = () => {
    const ratio = devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    paper.setTransform(ratio, 0, 0, ratio, 0, 0);
  };
  const toX = (i) => 14 + ((places[2 * i] + 1) / 2) * (canvas.clientWidth - 28);
  const toY = (i) => 14 + ((1 - places[2 * i + 1]) / 2) * (canvas.clientHeight - 28);
  const light = ([r, g, b]) => (dark.matches ? [r + 0.5 * (255 - r), g + 0.5 * (255 - g), b + 0.5 * (255 - b)] : [r, g, b]).map(Math.round);
  const css = (rgb, a = 0.75) => `rgba(${light(rgb).join(",")},${a})`;
  const between = (a, b, t) => a.map((x, i) => x + t * (b[i] - x));
  const shade = (v) => {
    if (by === "label") return css(HUES[v % HUES.length]);
    const t = v / (SHADES - 1);
    if (by === "suspicion") return css(between([150, 150, 145], HUES[1], t), 0.3 + 0.65 * t);
    return t < 0.5 ? css(between(HUES[1], [150, 150, 145], 2 * t), 0.35 + 0.6 * (1 - 2 * t)) : css(between([150, 150, 145], HUES[0], 2 * t - 1), 0.35 + 0.6 * (2 * t - 1));
  };
  const bin = (i) => {
    if (by === "label") return colour[i];
    const value = by === "score" ? (Math.sign(colour[i]) * Math.sqrt(Math.abs(colour[i])) + 1) / 2 : colour[i];
    return Math.max(0, Math.min(SHADES - 1, Math.round(value * (SHADES - 1))));
  };

  // Points of one colour are drawn together, the strongest last.
  const draw = () => {
    size();
    paper.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    const side = count > 20000 ? 2 : count > 4000 ? 3 : 5;
    const bins = new Map();
    for (let i = 0; i < count; i++) {
      const b = bin(i);
      if (!bins.has(b)) bins.set(b, []);
      bins.get(b).push(i);
    }
    const strength = (b) => (by === "score" ? Math.abs(b - (SHADES - 1) / 2) : b);
    for (const b of [...bins.keys()].sort((x, y) => strength(x) - strength(y))) {
      paper.fillStyle = shade(b);
      for (const i of bins.get(b)) paper.fillRect(toX(i) - side / 2, toY(i) - side / 2, side, side);
    }
    if (lasso.length > 1) {
      paper.beginPath();
      lasso.forEach(([x, y], i) => (i ? paper.lineTo(x, y) : paper.moveTo(x, y)));
      paper.closePath();
      paper.strokeStyle = css([60, 60, 60], 1);
      paper.stroke();
    }
  };

  // A grid of cells, so that the nearest point is found at once among 50,000.
  const CELL = 12;
  let grid = new Map();
  const index = () => {
    grid = new Map();
    for (let i = 0; i < count; i++) {
      const key = `${Math.floor(toX(i) / CELL)},${Math.floor(toY(i) / CELL)}`;
      if (!grid.has(key)) grid.set(key, []);
      grid.get(key).push(i);
    }
  };
  const nearest = (x, y) => {
    let best = null;
    let least = 144;
    const [cx, cy] = [Math.floor(x / CELL), Math.floor(y / CELL)];
    for (let a = cx - 1; a <= cx + 1; a++)
      for (let b = cy - 1; b <= cy + 1; b++)
        for (const i of grid.get(`${a},${b}`) || []) {
          const d = (toX(i) - x) ** 2 + (toY(i) - y) ** 2;
          if (d < least) [best, least] = [i, d];
        }
    return best;
  };

  const post = (values) => fetch("/map/list", { method: "POST", body: new URLSearchParams(values) });
  let timer = 0;
  const hover = (x, y) => {
    const i = nearest(x, y);
    if (i === chosen) return;
    chosen = i;
    tip.hidden = true;
    clearTimeout(timer);
    if (i === null) return;
    timer = setTimeout(async () => {
      const answer = await post({ rows: i, as: "json" });
      if (!answer.ok || chosen !== i) return;
      const row = await answer.json();
      tip.replaceChildren();
      if (row.picture) {
        const picture = document.createElement("img");
        picture.src = `/picture/train/${i}`;
        picture.alt = "";
        picture.className = "thing";
        tip.append(picture);
      }
      const words = document.createElement("span");
      words.textContent = `${row.text ? row.text.slice(0, 140) + " · " : ""}label ${row.label}, p ${row.p.toFixed(2)}`;
      tip.append(words);
      tip.hidden = false;
      // A style set by a script is no inline style to the policy of the page.
      tip.style.left = `${Math.min(x + 12, canvas.clientWidth - tip.offsetWidth - 4)}px`;
      tip.style.top = `${Math.min(y + 12, canvas.clientHeight - tip.offsetHeight - 4)}px`;
    }, 60);
  };

  const inside = (x, y) => {
    let odd = false;
    for (let i = 0, j = lasso.length - 1; i < lasso.length; j = i++) {
      const [xi, yi] = lasso[i];
      const [xj, yj] = lasso[j];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
    }
    return odd;
  };
  const list = async () => {
    const rows = [];
    for (let i = 0; i < count; i++) if (inside(toX(i), toY(i))) rows.push(i);
    const box = document.querySelector("#lasso");
    if (!rows.length) return box.replaceChildren();
    const answer = await post({ rows: rows.slice(0, 4000).join(","), count: rows.length });
    box.innerHTML = await answer.text(); // a page of ours, escaped where it was made
    box.scrollIntoView({ behavior: "smooth", block: "nearest" });
  };

  let drawing = false;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    drawing = true;
    lasso = [at(event)];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return hover(...at(event));
    lasso.push(at(event));
    requestAnimationFrame(draw);
  });
  canvas.addEventListener("pointerup", (event) => {
    drawing = false;
    const [x, y] = at(event);
    const moved = lasso.some(([a, b]) => Math.hypot(a - x, b - y) > 6);
    if (moved) list();
    else {
      lasso = [];
      const i = nearest(x, y);
      if (i !== null) location.assign(`/row/${i}`);
    }
    draw();
  });
  canvas.addEventListener("pointerleave", () => (tip.hidden = true));

  const explain = () => {
    legend.replaceChildren();
    const entries = by === "label" ? classes.slice(0, 10).map((c, i) => [c, i]) : by === "suspicion" ? [["believed", 0], ["suspicious", SHADES - 1]] : [["harmed", 0], ["helped", SHADES - 1]];
    for (const [name, v] of entries) {
      const dot = document.createElement("b");
      dot.textContent = "■ ";
      dot.style.color = shade(v);
      const word = document.createElement("span");
      word.append(dot, name + " ");
      legend.append(word);
    }
  };
  const load = async () => {
    const wanted = form.elements.by.value;
    const query = new URLSearchParams({ by: wanted, query: form.elements.query.value });
    try {
      colour = await floats(`/map/colours?${query}`);
      by = wanted;
      says.textContent = `${count.toLocaleString("en")} points`;
      explain();
      draw();
    } catch (error) {
      says.textContent = error.message;
    }
  };
  form.addEventListener("change", load);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load();
  });
  addEventListener("resize", () => {
    draw();
    index();
  });
  dark.addEventListener("change", () => (explain(), draw()));
  await load();
  index();
})();
