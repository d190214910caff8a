// Sorting and filtering of tables, by mouse and keyboard. Without it every table stands as it was written.
"use strict";
(function () {
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const numeric = new Set(["number", "time", "severity", "status"]);

  function value(row, column) {
    const cell = row.cells[column];
    return cell.dataset.v !== undefined ? cell.dataset.v : cell.textContent.trim();
  }

  function compare(kind) {
    return function (a, b) {
      // What is not known comes last, whichever way the rest is sorted.
      if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "");
      return numeric.has(kind) ? Number(a.key) - Number(b.key) : collator.compare(a.key, b.key);
    };
  }

  function sortBy(table, headers, column) {
    const header = headers[column];
    const next = { none: "ascending", ascending: "descending", descending: "none" }[header.getAttribute("aria-sort")];
    for (const other of headers) other.setAttribute("aria-sort", other === header ? next : "none");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, function (row) {
      return { row: row, place: Number(row.dataset.place), key: next === "none" ? "" : value(row, column) };
    });
    const order = compare(header.dataset.kind);
    const sign = next === "descending" ? -1 : 1;
    rows.sort(function (a, b) {
      if (next === "none") return a.place - b.place;
      const known = a.key !== "" && b.key !== "";
      return (known ? sign : 1) * order(a, b) || a.place - b.place;
    });
    const all = document.createDocumentFragment();
    for (const one of rows) all.appendChild(one.row);
    body.appendChild(all);
  }

  function filter(table, words, told) {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = table.tBodies[0].rows;
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const keep = wanted.every(function (word) { return text.includes(word); });
      row.hidden = !keep;
      if (keep) shown += 1;
    }
    told.textContent = wanted.length ? shown + " of " + rows.length + " rows" : "";
  }

  function prepare(table) {
    const headers = Array.from(table.tHead.rows[0].cells);
    headers.forEach(function (header, column) {
      const button = document.createElement("button");
      button.type = "button";
      while (header.firstChild) button.appendChild(header.firstChild);
      header.appendChild(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", function () { sortBy(table, headers, column); });
    });
    Array.from(table.tBodies[0].rows).forEach(function (row, place) { row.dataset.place = String(place); });
    const tools = document.createElement("div");
    const label = document.createElement("label");
    const input = document.createElement("input");
    const told = document.createElement("span");
    tools.className = "tools";
    input.type = "search";
    input.autocomplete = "off";
    input.spellcheck = false;
    told.setAttribute("role", "status");
    label.append("Filter rows ", input);
    tools.append(label, told);
    table.closest(".scroll").before(tools);
    input.addEventListener("input", function () { filter(table, input.value, told); });
  }

  // A link into a table leads nowhere while its row is filtered out.
  function reveal() {
    const row = document.getElementById(location.hash.slice(1));
    if (row && row.hidden) {
      const input = row.closest(".scroll").previousElementSibling.querySelector("input");
      input.value = "";
      input.dispatchEvent(new Event("input"));
      row.scrollIntoView();
    }
  }

  for (const table of document.querySelectorAll("table.data")) if (table.tBodies[0].rows.length > 1) prepare(table);
  window.addEventListener("hashchange", reveal);
  document.documentElement.classList.add("scripted");
})();
