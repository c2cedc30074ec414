"use strict";
(() => {
  const data = JSON.parse(document.getElementById("views").textContent);
  const byId = (id) => document.getElementById(id);
  const shown = Object.keys(data.pictures).map(Number);

  // Pictures are embedded once, here; every <img> that shows one names its view and kind.
  for (const image of document.querySelectorAll("img[data-view]")) {
    image.src = (data.pictures[image.dataset.view] || {})[image.dataset.kind] || "";
  }

  const frame = byId("frame");
  let view = shown.length ? data.first : -1;
  let kind = "render";

  function show(next) {
    if (!data.pictures[next]) return;
    view = next;
    const pictures = data.pictures[view];
    const label = { render: data.labels[1], error: "error" }[kind];
    byId("under").src = pictures.truth;
    byId("over").src = pictures[kind] || pictures.render;
    byId("under").alt = `${data.labels[0]} ${data.names[view]}`;
    byId("over").alt = `${label} ${data.names[view]}`;
    byId("right").textContent = label;
    byId("pick").value = String(view);
    byId("readout").innerHTML = data.readouts[view];
    byId("ramp").hidden = kind !== "error";
    for (const row of document.querySelectorAll("tr[data-view]")) {
      row.classList.toggle("chosen", Number(row.dataset.view) === view);
    }
    for (const button of document.querySelectorAll("button[data-kind]")) {
      button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
    }
  }

  function step(by) {
    const place = shown.indexOf(view);
    show(shown[(place + by + shown.length) % shown.length]);
  }

  if (frame && shown.length) {
    byId("slide").addEventListener("input", (event) => frame.style.setProperty("--x", `${event.target.value}%`));
    byId("pick").addEventListener("change", (event) => show(Number(event.target.value)));
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    for (const button of document.querySelectorAll("button[data-kind]")) {
      button.addEventListener("click", () => { kind = button.dataset.kind; show(view); });
    }
    for (const opener of document.querySelectorAll("[data-open]")) {
      opener.addEventListener("click", () => { show(Number(opener.dataset.open)); byId("compare").scrollIntoView(); });
    }
    for (const row of document.querySelectorAll("tr[data-view]")) {
      row.addEventListener("click", () => {
        if (!data.pictures[row.dataset.view]) return;
        show(Number(row.dataset.view));
        byId("compare").scrollIntoView();
      });
    }
    show(view);
  }

  // All views of a mesh are one picture; turning it moves another of its squares into the frame.
  for (const turn of document.querySelectorAll(".turn")) {
    const columns = Number(turn.dataset.columns);
    const views = Number(turn.dataset.views);
    const rows = Math.ceil(views / columns);
    const share = (place, count) => (count > 1 ? (100 * place) / (count - 1) : 0);
    turn.firstElementChild.addEventListener("input", (event) => {
      const i = Number(event.target.value) % views;
      turn.style.backgroundPosition = `${share(i % columns, columns)}% ${share(Math.floor(i / columns), rows)}%`;
    });
  }

  for (const button of document.querySelectorAll("thead button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const column = [...head.parentNode.children].indexOf(head);
      const rising = head.getAttribute("aria-sort") !== "ascending";
      const body = head.closest("table").tBodies[0];
      const value = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        const order = column === 0 ? x.localeCompare(y, undefined, { numeric: true }) : Number(x) - Number(y);
        return rising ? order : -order;
      };
      body.append(...[...body.rows].sort(compare));
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    });
  }
})();
