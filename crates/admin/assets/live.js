// Fetches the page's inner part again and again, and lays it in place; the filter takes effect while typing.
const live = document.getElementById("live");
const form = document.querySelector("[data-filter]");
const pause = document.querySelector("[data-pause]");
const rates = [];
let paused = false;
let asked = 0;

function query() {
  const fields = new URLSearchParams(new FormData(form));
  for (const [name, value] of [...fields]) if (value === "") fields.delete(name);
  return fields;
}

async function refresh() {
  const mine = ++asked;
  const fields = query();
  fields.set("fragment", "1");
  try {
    const answer = await fetch(`${location.pathname}?${fields}`);
    if (!answer.ok) throw new Error(answer.status);
    const text = await answer.text();
    if (mine !== asked) return;
    lay(text);
    live.classList.remove("stale");
  } catch {
    live.classList.add("stale");
  }
}

function lay(text) {
  // Where the reader is stays: the scroll places, and the link that has the focus.
  const places = [...live.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
  const focus = live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  live.innerHTML = text;
  live.querySelectorAll(".scroll").forEach((box, at) => { box.scrollLeft = places[at] || 0; });
  if (focus) live.querySelector(`a[href="${CSS.escape(focus)}"]`)?.focus();
  spark();
}

function spark() {
  const cell = live.querySelector("[data-spark]");
  if (!cell) return;
  const now = Number.parseFloat(cell.textContent);
  if (!Number.isFinite(now)) return;
  rates.push(now);
  if (rates.length > 60) rates.shift();
  if (rates.length < 3) return;
  const top = Math.max(...rates, 0.1);
  const points = rates.map((rate, at) => `${(at / (rates.length - 1)) * 100},${20 - (rate / top) * 18}`);
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 100 22");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "spark");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${Math.min(...rates).toFixed(1)} to ${top.toFixed(1)} requests a second since this page is open, now ${now}`);
  const line = document.createElementNS(ns, "polyline");
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  cell.append(svg);
}

pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.textContent = paused ? "Go on" : "Pause";
});
let typed;
form.addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(() => {
    const fields = query();
    history.replaceState(null, "", fields.size ? `?${fields}` : location.pathname);
    refresh();
  }, 200);
});
form.addEventListener("submit", (event) => { event.preventDefault(); refresh(); });
setInterval(() => { if (!paused && !document.hidden) refresh(); }, Number(live.dataset.live));
