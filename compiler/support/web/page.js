"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => {
      const cell = row.cells[place];
      return "v" in cell.dataset ? Number(cell.dataset.v) : cell.textContent;
    };
    const sign = down ? -1 : 1;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const numbers = [x, y].map(one => typeof one === "number");
      if (numbers[0] && numbers[1]) return sign * (x - y);
      if (numbers[0] !== numbers[1]) return numbers[0] ? -1 : 1; // what has no number comes last
      return sign * String(x).localeCompare(String(y));
    });
    table.tBodies[0].append(...rows);
  }));
}
for (const box of document.querySelectorAll("input[type=search]")) {
  const table = document.getElementById(box.dataset.table);
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
  });
}
