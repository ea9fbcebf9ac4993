// Tables below .sortable-board: a click on a header sorts, two fields filter. Without scripts they
// stay the tables that they are.
"use strict";
(() => {
  const UNITS = { s: 1, min: 60, h: 3600 };
  const value = (cell) => {
    const text = cell.textContent.trim();
    const found = text.replace(/,/g, "").match(/^([−-]?\d+(?:\.\d+)?)\s*(s|min|h)?/);
    if (text === "–" || text === "") return null;
    return found ? parseFloat(found[1].replace("−", "-")) * (UNITS[found[2]] || 1) : text;
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null); // unknown comes last
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b));
  };
  const sortable = (table) => {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      head.classList.add("sortable");
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => [value(row.cells[column]), row]);
        rows.sort((a, b) => compare(a[0], b[0], up ? 1 : -1));
        body.append(...rows.map(([, row]) => row));
      });
    });
  };
  const filter = (board, table) => {
    const rows = [...table.tBodies[0].rows];
    const tasks = [...new Set(rows.map((row) => row.cells[0].textContent.trim()))];
    const bar = document.createElement("div");
    bar.className = "board-filter";
    const choice = document.createElement("select");
    choice.setAttribute("aria-label", "Task");
    choice.append(new Option("all tasks", ""), ...tasks.map((task) => new Option(task, task)));
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "method";
    field.setAttribute("aria-label", "Method");
    const apply = () => rows.forEach((row) => {
      const task = row.cells[0].textContent.trim();
      const method = row.cells[1].textContent.toLowerCase();
      row.hidden = (choice.value && task !== choice.value) || !method.includes(field.value.toLowerCase());
    });
    choice.addEventListener("change", apply);
    field.addEventListener("input", apply);
    bar.append(choice, field);
    board.prepend(bar);
  };
  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".sortable-board").forEach((board) => {
      const table = board.querySelector("table");
      if (table === null || table.tHead === null) return;
      sortable(table);
      filter(board, table);
    });
  });
})();
