// Theme switch, and the keys that work on every page.
const themes = ["auto", "light", "dark"];
const button = document.getElementById("theme");
let theme = "auto";
try { theme = localStorage.getItem("theme") || "auto"; } catch { /* storage may be switched off */ }

function show() {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.textContent = `Theme: ${theme}`;
}
button.hidden = false;
button.addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  try { localStorage.setItem("theme", theme); } catch { /* as above */ }
  show();
});
show();

const pages = { o: "/", d: "/delegator", r: "/requests", l: "/logging", h: "/help" };
let going = false;
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (going && pages[event.key]) location.href = pages[event.key];
  going = event.key === "g";
  if (event.key === "/") {
    const field = document.querySelector("input[name=path], input[type=search]");
    if (field) { event.preventDefault(); field.focus(); field.select(); }
  }
  if (event.key === "p") document.querySelector("[data-pause]")?.click();
});
