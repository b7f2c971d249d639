// Puts the page together.

/** Static parts that the style sheet cannot finish: intervals, published results, colours of further streams. */
function finishStatic() {
  for (const bar of document.querySelectorAll(".range i")) {
    const [low, value, high] = ["low", "value", "high"].map((name) => 100 * Number(bar.dataset[name]));
    styled(bar, { left: `${low}%`, width: `${Math.max(1, high - low)}%` });
    bar.after(styled(el("b"), { left: `${value}%` }));
  }
  for (const item of document.querySelectorAll("#published-bars li"))
    styled(item.querySelector("i"), { "--at": `${100 * Number(item.dataset.value)}%` });
  for (const element of document.querySelectorAll("[data-stream]")) markStream(element, element.dataset.stream);
}

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

for (const build of [
  finishStatic,
  themeButton,
  buildMatrix,
  buildPairs,
  buildClasses,
  buildMotion,
  buildMistakes,
  buildFusion,
  buildCalibration,
  buildTraining,
  buildNavigation,
])
  build();
window.addEventListener("hashchange", followLink);
followLink();
document.documentElement.dataset.built = "yes";
