// Puts the parts together, and lets whoever serves the page exchange its data.

const filteredFigures = () => new Set([...report.data.costs, 'cube', 'choices']);

let isPending = false;

/** Once per frame, however fast a slider moves. */
const applyFilters = () => {
  if (isPending) return;
  isPending = true;
  requestAnimationFrame(() => {
    isPending = false;
    drawFigures(filteredFigures());
    filterRows(document);
    countShown();
  });
};

const showFigureSections = () => {
  for (const section of document.querySelectorAll('[data-section]'))
    section.hidden = !report.figures[section.dataset.section];
  for (const link of document.querySelectorAll('nav a'))
    link.parentElement.hidden = document.querySelector(link.getAttribute('href'))?.hidden ?? true;
};

/** Replace the words of a part, leaving open what was open. */
const replacePart = (id, text) => {
  const part = document.getElementById(`part-${id}`);
  if (!part || part.written === text) return;
  const wasOpen = [...part.querySelectorAll('details')].map(details => details.open);
  rewrite(part, () => {
    part.innerHTML = text;
    part.querySelectorAll('details').forEach((details, i) => { details.open = wasOpen[i] ?? false; });
  });
  part.written = text;
};

/**
 * Show a newer state of the run: the object that `render_update` writes. Filters, the open card and
 * what is unfolded stay as they are.
 */
const update = payload => {
  const before = report.figures;
  load(payload);
  for (const [id, text] of Object.entries(payload.parts ?? {})) replacePart(id, text);
  showFigureSections();
  prepareFilters(applyFilters);
  const names = [...document.querySelectorAll('[data-figure]')].map(plot => plot.dataset.figure);
  const filtered = filteredFigures();
  const isSame = name => filtered.has(name) || !before[name] ? false
    : JSON.stringify(before[name]) === JSON.stringify(report.figures[name])
      && document.querySelector(`[data-figure="${name}"]`).data;
  drawFigures(new Set(names.filter(name => !isSame(name))));
  fillOpenTables();
  filterRows(document);
  if (card.open) followAddress();
};

document.getElementById('filter-reset').addEventListener('click', () => {
  resetFilters();
  applyFilters();
});
update(JSON.parse(document.getElementById('report-data').textContent));
followAddress();
window.autocompressReport = {update};
document.documentElement.dataset.ready = 'true';
