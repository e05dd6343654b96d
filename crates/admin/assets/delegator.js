// The way as one types: the result comes from the server, the state is in the URL.
const form = document.getElementById("ask");
const result = document.getElementById("result");
const { path, dtab, router } = form.elements;
let own = dtab.defaultValue;
let asked = 0;
let typed;

// Linkerd 1 kept the path behind the hash: /delegator#/svc/web
if (location.hash.startsWith("#/")) path.value = decodeURIComponent(location.hash.slice(1));

function query() {
  const fields = new URLSearchParams();
  if (router) fields.set("router", router.value);
  if (path.value.trim()) fields.set("path", path.value.trim());
  if (dtab.value !== own || new URLSearchParams(location.search).has("dtab")) fields.set("dtab", dtab.value);
  return fields;
}

async function show() {
  const mine = ++asked;
  const fields = query();
  history.replaceState(null, "", `?${fields}`);
  fields.set("fragment", "1");
  try {
    const answer = await fetch(`/delegator?${fields}`);
    const text = await answer.text();
    if (mine !== asked) return;
    result.innerHTML = text;
    result.classList.remove("stale");
  } catch {
    result.classList.add("stale");
  }
}

form.addEventListener("input", (event) => {
  if (event.target === router) return;
  clearTimeout(typed);
  typed = setTimeout(show, 200);
});
// Another router has another dtab: the page comes anew.
router?.addEventListener("change", () => {
  const fields = new URLSearchParams({ router: router.value });
  if (path.value.trim()) fields.set("path", path.value.trim());
  location.search = fields;
});
form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(typed); show(); });
if (location.hash.startsWith("#/")) show();
