// Puts the page together.

function buildNavigation() {
  const links = [...document.querySelectorAll("section[data-title]")].map((section) => {
    const link = el("a", { href: `#${section.id}` }, section.dataset.title);
    return [section, link];
  });
  const bar = document.getElementById("sections");
  bar.append(...links.map(([, link]) => link));
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const [, link] = links.find(([section]) => section === entry.target);
        if (!entry.isIntersecting) {
          link.removeAttribute("aria-current");
          continue;
        }
        link.setAttribute("aria-current", "true");
        bar.scrollLeft = link.offsetLeft - bar.clientWidth / 3; // on a phone the bar is longer than the screen
      }
    },
    { rootMargin: "-45% 0px -50% 0px" },
  );
  links.forEach(([section]) => watcher.observe(section));
}

/** Mistakes of the headline stream, the most confident first. */
function buildMistakes() {
  const clips = clipsWhere((clip) => !isRight(data.headline, clip));
  host("mistakes").append(clips.length ? cardList(clips) : el("p", { class: "muted" }, "No video was confused."));
}

/** Search of classes and clips by name. */
function buildFind() {
  const form = document.getElementById("find");
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = form.querySelector("input").value.trim();
    if (wanted) openList(`#find=${encodeURIComponent(wanted)}`);
  });
}

for (const build of [themeButton, buildFind, buildMatrix, buildClasses, buildSorting, buildMistakes, buildNavigation]) build();
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-link]")?.dataset.link;
  if (link) openList(link);
});
window.addEventListener("hashchange", followLink);
followLink();
document.documentElement.dataset.built = "yes";
