"""A table of thousands of rows on a page, which the browser filters and sorts; plain JavaScript, nothing fetched.

The rows are JSON in the page. What they hold reaches the document as text alone, never as markup.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal
from urllib.parse import quote

_SHOWN = 200
"""Rows that are in the document at once; the rest follows by a button."""

_SCRIPT = """
(function () {
  const script = document.currentScript, data = JSON.parse(script.previousElementSibling.textContent);
  const box = script.parentNode.querySelector(".filters"), table = script.parentNode.querySelector("table");
  const count = script.parentNode.querySelector(".count"), more = script.parentNode.querySelector("button");
  const tests = [];
  let sorted = null, down = false, limit = data.shown;
  function input(label, kind) {
    const frame = document.createElement("label"), made = document.createElement(kind);
    frame.append(label, made);
    box.append(frame);
    made.addEventListener("input", function () { limit = data.shown; draw(); });
    return made;
  }
  function number(field) { return field.value === "" ? null : Number(field.value); }
  const texts = data.columns.flatMap((column, i) => column.kind === "text" ? [i] : []);
  if (texts.length) {
    const field = input("text", "input");
    field.type = "search";
    tests.push(function (row) {
      const wanted = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
      const said = texts.map(i => row[i] === null ? "" : row[i]).join(" ").toLowerCase();
      return wanted.every(word => said.includes(word));
    });
  }
  data.columns.forEach(function (column, i) {
    if (column.kind === "choice") {
      const field = input(column.title, "select"), values = [...new Set(data.rows.map(row => row[i]))].sort();
      field.append(new Option("all", ""));
      values.forEach((value, n) => field.append(new Option(value, String(n))));
      tests.push(row => field.value === "" || row[i] === values[Number(field.value)]);
    } else if (column.kind === "range") {
      const least = input(column.title + " from", "input"), most = input("to", "input");
      [least, most].forEach(function (field) { field.type = "number"; field.step = "any"; });
      tests.push(function (row) {
        const low = number(least), high = number(most);
        if (low === null && high === null) return true;
        return row[i] !== null && (low === null || row[i] >= low) && (high === null || row[i] <= high);
      });
    }
  });
  const head = table.createTHead().insertRow();
  data.columns.forEach(function (column, i) {
    const cell = document.createElement("th"), sort = document.createElement("span");
    cell.append(column.title, sort);
    cell.addEventListener("click", function () {
      down = sorted === i && !down;
      sorted = i;
      head.querySelectorAll("span").forEach(mark => { mark.textContent = ""; });
      sort.textContent = down ? " \\u25bc" : " \\u25b2";
      draw();
    });
    head.append(cell);
  });
  function before(a, b) {
    const x = a[sorted], y = b[sorted];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
    return down ? -order : order;
  }
  const body = table.createTBody();
  function fill(cell, column, value) {
    if (value === null) return;
    if (column.kind === "link") {
      const link = document.createElement("a");
      link.href = value;
      link.textContent = "picture";
      cell.append(link);
    } else if (typeof value === "number") {
      cell.className = "number";
      cell.textContent = Number.isInteger(value) && column.kind !== "range" ? value : value.toFixed(3);
    } else {
      if (column.kind === "text") cell.className = "text";
      cell.textContent = value;
    }
  }
  function draw() {
    const found = data.rows.filter(row => tests.every(test => test(row)));
    if (sorted !== null) found.sort(before);
    body.replaceChildren();
    found.slice(0, limit).forEach(function (row) {
      const line = body.insertRow();
      data.columns.forEach((column, i) => fill(line.insertCell(), column, row[i]));
    });
    count.textContent = found.length + " of " + data.rows.length + " rows";
    more.hidden = found.length <= limit;
  }
  more.addEventListener("click", function () { limit += 5 * data.shown; draw(); });
  draw();
})();
"""


@dataclass(frozen=True)
class Column:
    """One column of a table that the browser filters.

    Attributes:
        title: its head.
        kind: `text` is searched, `choice` has a list of its values, `range` is a number from 0 to 1 or so with fields
            for the least and the most, `number` is only sorted, and `link` is the path of a picture.
    """

    title: str
    kind: Literal["text", "choice", "range", "number", "link"]


def filtered_table(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> str:
    """The HTML of a table with its filters.

    Args:
        columns: of the table.
        rows: texts, finite numbers, or None for an empty cell; as many as there are columns.
    """
    content = {
        "columns": [{"title": column.title, "kind": column.kind} for column in columns],
        "rows": [[_cell(*each) for each in zip(columns, row, strict=True)] for row in rows],
        "shown": _SHOWN,
    }
    return (
        '<div><div class="filters"></div><p class="count"></p><div class="scroll"><table></table></div>'
        "<button hidden>more rows</button>"
        f"<noscript><p>{escape('The table needs JavaScript.')}</p></noscript>"
        f'<script type="application/json">{_inert(json.dumps(content, ensure_ascii=False, allow_nan=False))}</script>'
        f"<script>{_SCRIPT}</script></div>"
    )


def _cell(column: Column, value: object) -> object:
    """A value as the script takes it: a link as an address."""
    return quote(str(value)) if column.kind == "link" and value is not None else value


def _inert(text: str) -> str:
    """JSON that an HTML parser cannot take for the end of its script, or for a comment; it means the same."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
