// The map of `mage explore`: the picture of the nearest dot, by pointer, touch or arrow keys, and the colours of dots.
(() => {
  const data = JSON.parse(document.getElementById("images").textContent);
  const map = document.querySelector(".map"), field = map.querySelector(".field"), card = map.querySelector(".card");
  const spoken = map.querySelector(".spoken"); // read out by screen readers
  const dots = [...field.querySelectorAll("b")], legend = document.querySelector(".legend");
  const REACH = 40; // pixels from the pointer within which a dot is taken
  let chosen = -1, lit = null, by = "groups";

  const keyOf = (index) => (by === "groups" ? String(data.groups[index]) : data.labels[index]);
  const names = () => (by === "groups" ? data.group_names.map((_, number) => String(number)) : data.label_names);
  const titleOf = (key) => (by === "groups" ? data.group_names[key] : key || "no sub-folder");
  const colourOf = (key) => `k${names().indexOf(key) % 12}`;

  function show(index) {
    if (chosen >= 0) dots[chosen].classList.remove("chosen");
    chosen = index;
    card.hidden = index < 0;
    if (index < 0) return;
    dots[index].classList.add("chosen");
    const each = data.columns * data.columns, place = index % each;
    const picture = card.querySelector(".t");
    picture.className = `t s${Math.floor(index / each)}`;
    picture.style.setProperty("--x", place % data.columns);
    picture.style.setProperty("--y", Math.floor(place / data.columns));
    picture.setAttribute("aria-label", data.files[index]);
    const [file, facts] = card.querySelectorAll("p");
    file.textContent = data.files[index];
    facts.textContent = [data.group_names[data.groups[index]], data.labels[index]].filter(Boolean).join(", ");
    const box = map.getBoundingClientRect(), dot = dots[index].getBoundingClientRect();
    const x = dot.left - box.left, y = dot.top - box.top, gap = 16;
    const left = x + gap + card.offsetWidth < box.width ? x + gap : x - gap - card.offsetWidth + 8;
    card.style.left = `${Math.max(4, Math.min(left, box.width - card.offsetWidth - 4))}px`;
    card.style.top = `${Math.max(4, Math.min(y - card.offsetHeight / 2, box.height - card.offsetHeight - 4))}px`;
  }

  function nearest(event) {
    const box = field.getBoundingClientRect();
    let best = -1, least = REACH * REACH;
    for (let index = 0; index < dots.length; index++) {
      if (lit !== null && keyOf(index) !== lit) continue;
      const dx = data.x[index] * box.width - (event.clientX - box.left);
      const dy = data.y[index] * box.height - (event.clientY - box.top);
      if (dx * dx + dy * dy < least) [best, least] = [index, dx * dx + dy * dy];
    }
    return best;
  }

  function paint() {
    dots.forEach((dot, index) => {
      const sheet = Math.floor(index / (data.columns * data.columns));
      dot.className = `${colourOf(keyOf(index))} s${sheet}` + (lit !== null && keyOf(index) !== lit ? " faint" : "");
    });
    legend.replaceChildren(...names().map((key) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = colourOf(key);
      button.textContent = titleOf(key);
      button.setAttribute("aria-pressed", String(lit === key));
      button.addEventListener("click", () => { lit = lit === key ? null : key; show(-1); paint(); });
      return button;
    }));
  }

  map.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") show(nearest(event)); });
  map.addEventListener("pointerdown", (event) => show(nearest(event)));
  map.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") show(-1); });
  map.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") show(-1);
    if (!step) return;
    event.preventDefault();
    let next = chosen;
    for (let tries = 0; tries < dots.length; tries++) {
      next = (next + step + dots.length) % dots.length;
      if (lit === null || keyOf(next) === lit) break;
    }
    show(next);
    spoken.textContent = [...card.querySelectorAll("p")].map((part) => part.textContent).filter(Boolean).join(", ");
  });
  const pictures = document.querySelector(".controls input");
  pictures.addEventListener("change", () => map.classList.toggle("pictures", pictures.checked));
  const select = document.querySelector(".controls select");
  if (select) select.addEventListener("change", () => { by = select.value; lit = null; show(-1); paint(); });
  paint();
})();
