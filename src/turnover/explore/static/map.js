// Points as pixels of one picture: typed arrays, a grid to find the nearest, a lasso to a list.
"use strict";
(async () => {
  const canvas = document.querySelector("[data-map]");
  if (!canvas) return;
  const under = document.querySelector("[data-points]");
  const form = document.querySelector("[data-map-form]");
  const says = document.querySelector("[data-map-says]");
  const legend = document.querySelector("[data-legend]");
  const tip = document.querySelector(".tip");
  const paper = under.getContext("2d");
  const over = canvas.getContext("2d");
  const classes = JSON.parse(canvas.dataset.classes);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const HUES = [[11, 110, 110], [180, 68, 31], [91, 86, 144], [120, 110, 20], [30, 100, 180], [160, 40, 110], [60, 120, 50], [120, 90, 70], [90, 90, 90], [200, 130, 20]];
  const GREY = [150, 150, 145];
  const SHADES = 32;
  const EDGE = 14;
  const STEP = 40;

  const bytes = async (url) => {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(answer.status === 400 ? "The scores are being prepared, or there is no such row. Try again in a moment." : `Error ${answer.status}`);
    return answer.arrayBuffer();
  };
  let count = 0;
  let rows = new Int32Array(0);
  let places = new Float32Array(0);
  let colour = new Float32Array(0);
  let order = new Uint32Array(0); // the strongest are drawn last
  let bins = new Uint8Array(0);
  let by = "label";
  let lasso = [];
  let chosen = -1;
  let zoom = 1;
  let centre = [0, 0];
  let ratio = 1;
  let width = 0;
  let height = 0;

  const toX = (i) => width / 2 + (places[2 * i] - centre[0]) * zoom * (width / 2 - EDGE);
  const toY = (i) => height / 2 - (places[2 * i + 1] - centre[1]) * zoom * (height / 2 - EDGE);
  const shown = (i) => rows[i] >= 0 || form.elements.tests.checked;

  const size = () => {
    ratio = devicePixelRatio || 1;
    width = canvas.clientWidth;
    height = canvas.clientHeight;
    for (const each of [canvas, under]) {
      each.width = Math.round(width * ratio);
      each.height = Math.round(height * ratio);
    }
    over.setTransform(ratio, 0, 0, ratio, 0, 0);
  };
  const light = (rgb) => (dark.matches ? rgb.map((x) => x + 0.5 * (255 - x)) : rgb).map(Math.round);
  const css = (rgb) => `rgb(${light(rgb).join(",")})`;
  const between = (a, b, t) => a.map((x, i) => x + t * (b[i] - x));
  const shade = (v) => {
    if (by === "label") return HUES[v % HUES.length];
    const t = v / (SHADES - 1);
    if (by === "suspicion") return between(GREY, HUES[1], t);
    return t < 0.5 ? between(HUES[1], GREY, 2 * t) : between(GREY, HUES[0], 2 * t - 1);
  };
  const bin = (value) => {
    if (by === "label") return value % 256;
    const t = by === "score" ? (Math.sign(value) * Math.sqrt(Math.abs(value)) + 1) / 2 : value;
    return Math.max(0, Math.min(SHADES - 1, Math.round((Number.isNaN(t) ? 0.5 : t) * (SHADES - 1))));
  };

  // Which points lie above the others: sorted once for each colouring, by counting.
  const arrange = () => {
    bins = new Uint8Array(count);
    const strength = new Uint8Array(count);
    const starts = new Uint32Array(257);
    for (let i = 0; i < count; i++) {
      bins[i] = bin(colour[i]);
      strength[i] = by === "label" ? (i * 97) & 255 : by === "score" ? Math.abs(2 * bins[i] - SHADES + 1) : bins[i];
      starts[strength[i] + 1]++;
    }
    for (let s = 1; s < 257; s++) starts[s] += starts[s - 1];
    order = new Uint32Array(count);
    for (let i = 0; i < count; i++) order[starts[strength[i]]++] = i;
  };

  let picture = null;
  const draw = () => {
    const began = performance.now();
    const w = under.width;
    const h = under.height;
    if (!picture || picture.width !== w || picture.height !== h) picture = paper.createImageData(w, h);
    const pixels = new Uint32Array(picture.data.buffer);
    pixels.fill(0);
    const palette = new Uint32Array(256);
    for (let v = 0; v < 256; v++) {
      const [r, g, b] = light(shade(v));
      palette[v] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
    const side = Math.max(2, Math.round((count > 20000 ? 2 : count > 4000 ? 3 : 5) * ratio * Math.min(2, Math.sqrt(zoom))));
    const tests = form.elements.tests.checked;
    const fx = zoom * (width / 2 - EDGE) * ratio;
    const fy = zoom * (height / 2 - EDGE) * ratio;
    for (let n = 0; n < count; n++) {
      const i = order[n];
      const test = rows[i] < 0;
      if (test && !tests) continue;
      const wide = test ? side + 2 : side;
      const x = Math.round(w / 2 + (places[2 * i] - centre[0]) * fx - wide / 2);
      const y = Math.round(h / 2 - (places[2 * i + 1] - centre[1]) * fy - wide / 2);
      if (x < 0 || y < 0 || x + wide > w || y + wide > h) continue;
      const value = palette[bins[i]];
      for (let b = 0; b < wide; b++) {
        const line = (y + b) * w + x;
        const rim = b === 0 || b === wide - 1;
        for (let a = 0; a < wide; a++) if (!test || rim || a === 0 || a === wide - 1) pixels[line + a] = value;
      }
    }
    paper.putImageData(picture, 0, 0);
    canvas.dataset.frame = (performance.now() - began).toFixed(2);
  };
  const outline = () => {
    over.clearRect(0, 0, width, height);
    if (chosen >= 0) {
      over.strokeStyle = css([40, 40, 40]);
      over.lineWidth = 2;
      over.strokeRect(toX(chosen) - 6, toY(chosen) - 6, 12, 12);
    }
    if (lasso.length < 2) return;
    over.beginPath();
    lasso.forEach(([x, y], i) => (i ? over.lineTo(x, y) : over.moveTo(x, y)));
    over.closePath();
    over.strokeStyle = css([40, 40, 40]);
    over.lineWidth = 1.5;
    over.stroke();
  };

  // A grid of cells, so that the nearest point is found at once among 50,000.
  const CELL = 12;
  let starts = new Uint32Array(1);
  let members = new Uint32Array(0);
  let columns = 1;
  let lines = 1;
  const cell = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? -1 : Math.floor(y / CELL) * columns + Math.floor(x / CELL));
  const index = () => {
    columns = Math.ceil(width / CELL) + 1;
    lines = Math.ceil(height / CELL) + 1;
    starts = new Uint32Array(columns * lines + 1);
    const at = new Int32Array(count);
    for (let i = 0; i < count; i++) {
      at[i] = shown(i) ? cell(toX(i), toY(i)) : -1;
      if (at[i] >= 0) starts[at[i] + 1]++;
    }
    for (let c = 1; c < starts.length; c++) starts[c] += starts[c - 1];
    const next = starts.slice();
    members = new Uint32Array(starts[starts.length - 1]);
    for (let i = 0; i < count; i++) if (at[i] >= 0) members[next[at[i]]++] = i;
  };
  const nearest = (x, y) => {
    let best = -1;
    let least = 144;
    const [cx, cy] = [Math.floor(x / CELL), Math.floor(y / CELL)];
    for (let b = Math.max(0, cy - 1); b <= Math.min(lines - 1, cy + 1); b++)
      for (let a = Math.max(0, cx - 1); a <= Math.min(columns - 1, cx + 1); a++)
        for (let m = starts[b * columns + a]; m < starts[b * columns + a + 1]; m++) {
          const i = members[m];
          const d = (toX(i) - x) ** 2 + (toY(i) - y) ** 2;
          if (d < least) [best, least] = [i, d];
        }
    return best;
  };

  let asked = false;
  const again = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
      outline();
    });
  };
  let settled = 0;
  const moved = () => {
    lasso = [];
    again();
    clearTimeout(settled);
    settled = setTimeout(index, 80);
  };
  const zoomBy = (factor, x = width / 2, y = height / 2) => {
    const [dx, dy] = [(x - width / 2) / (width / 2 - EDGE), (height / 2 - y) / (height / 2 - EDGE)];
    const next = factor ? Math.min(200, Math.max(1, zoom * factor)) : 1;
    centre = next === 1 ? [0, 0] : [centre[0] + dx / zoom - dx / next, centre[1] + dy / zoom - dy / next];
    zoom = next;
    moved();
  };
  const moveBy = (dx, dy) => {
    centre = [centre[0] - dx / (zoom * (width / 2 - EDGE)), centre[1] + dy / (zoom * (height / 2 - EDGE))];
    moved();
  };

  const post = (values) => fetch("/map/list", { method: "POST", body: new URLSearchParams(values) });
  const named = (i) => (rows[i] >= 0 ? { rows: rows[i] } : { tests: -1 - rows[i] });
  let timer = 0;
  const hover = (x, y) => {
    const i = nearest(x, y);
    if (i === chosen) return;
    chosen = i;
    outline();
    tip.hidden = true;
    clearTimeout(timer);
    if (i < 0) return;
    timer = setTimeout(async () => {
      const answer = await post({ ...named(i), as: "json" });
      if (!answer.ok || chosen !== i) return;
      const row = await answer.json();
      if (chosen !== i) return;
      tip.replaceChildren();
      if (row.picture) {
        const drawn = document.createElement("img");
        drawn.src = `/picture/${row.side}/${row.row}`;
        drawn.alt = "";
        drawn.className = "thing";
        tip.append(drawn);
      }
      const words = document.createElement("span");
      words.textContent = `${row.text ? row.text.slice(0, 140) + " · " : ""}${row.side === "test" ? "test, " : ""}label ${row.label}, p ${row.p.toFixed(2)}`;
      tip.append(words);
      tip.hidden = false;
      // A style set by a script is no inline style to the policy of the page.
      tip.style.left = `${Math.max(0, Math.min(x + 12, width - tip.offsetWidth - 4))}px`;
      tip.style.top = `${Math.max(0, Math.min(y + 12, height - tip.offsetHeight - 4))}px`;
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
    const trains = [];
    const tests = [];
    for (let i = 0; i < count; i++) if (shown(i) && inside(toX(i), toY(i))) (rows[i] >= 0 ? trains : tests).push(rows[i] >= 0 ? rows[i] : -1 - rows[i]);
    const box = document.querySelector("#lasso");
    if (!trains.length && !tests.length) return box.replaceChildren();
    const answer = await post({ rows: trains.slice(0, 4000).join(","), tests: tests.slice(0, 4000).join(","), count: trains.length + tests.length });
    box.innerHTML = await answer.text(); // a page of ours, escaped where it was made
    box.querySelector("h2")?.focus({ preventScroll: true });
    box.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "nearest" });
  };

  let drawing = false;
  let dragging = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (event.shiftKey || event.button === 1) {
      dragging = at(event);
      return event.preventDefault();
    }
    drawing = true;
    lasso = [at(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (dragging) {
      moveBy(x - dragging[0], y - dragging[1]);
      dragging = [x, y];
    } else if (drawing) {
      lasso.push([x, y]);
      requestAnimationFrame(outline);
    } else hover(x, y);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (dragging) {
      dragging = null;
      return;
    }
    drawing = false;
    const [x, y] = at(event);
    const far = lasso.some(([a, b]) => Math.hypot(a - x, b - y) > 6);
    if (far) list();
    else {
      lasso = [];
      const i = nearest(x, y);
      if (i >= 0) location.assign(rows[i] >= 0 ? `/row/${rows[i]}` : `/query/${-1 - rows[i]}`);
    }
    outline();
  });
  canvas.addEventListener("pointerleave", () => (tip.hidden = true));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoomBy(Math.exp(-event.deltaY / 300), ...at(event));
    },
    { passive: false },
  );
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
    if (moves[event.key]) moveBy(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") zoomBy(1.5);
    else if (event.key === "-") zoomBy(1 / 1.5);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.querySelectorAll("[data-zoom]").forEach((each) => each.addEventListener("click", () => zoomBy(Number(each.dataset.zoom))));

  const explain = () => {
    legend.replaceChildren();
    const entries = by === "label" ? classes.slice(0, 10).map((c, i) => [c, i]) : by === "suspicion" ? [["believed", 0], ["suspicious", SHADES - 1]] : [["harmed", 0], ["helped", SHADES - 1]];
    for (const [name, v] of entries) {
      const dot = document.createElement("b");
      dot.textContent = "■ ";
      dot.setAttribute("aria-hidden", "true");
      dot.style.color = css(shade(v));
      const word = document.createElement("span");
      word.append(dot, name);
      legend.append(word);
    }
    if (by === "label" && classes.length > 10) legend.append(`and ${classes.length - 10} more, whose colours repeat`);
  };
  const load = async () => {
    const wanted = form.elements.by.value;
    document.querySelector("[data-for-score]").hidden = wanted !== "score";
    const query = new URLSearchParams({ by: wanted, query: form.elements.query.value });
    try {
      colour = new Float32Array(await bytes(`/map/colours?${query}`));
      by = wanted;
      says.textContent = `${count.toLocaleString("en")} points`;
      arrange();
      explain();
      draw();
    } catch (error) {
      says.textContent = error.message;
    }
  };
  form.addEventListener("change", (event) => {
    if (event.target.name === "places") location.assign(`/map?places=${event.target.value}`);
    else if (event.target.name === "tests") {
      again();
      index();
    } else load();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load();
  });
  addEventListener("resize", () => {
    size();
    draw();
    outline();
    index();
  });
  dark.addEventListener("change", () => (explain(), draw(), outline()));

  const all = await bytes(`/map/points?places=${canvas.dataset.places}`);
  count = new Int32Array(all, 0, 1)[0];
  rows = new Int32Array(all, 4, count);
  places = new Float32Array(all, 4 + 4 * count, 2 * count);
  size();
  await load();
  index();
})();
