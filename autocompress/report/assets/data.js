// What the page draws from: the JSON block, which is exchanged as a whole when a page is refreshed.

const report = {data: null, figures: {}, byNumber: new Map()};

const load = payload => {
  report.data = payload.data;
  report.figures = payload.figures;
  report.byNumber = new Map(payload.data.trials.map(trial => [trial.n, trial]));
};

/** Figures of a trial: its own, or those that longer training gave it. */
const measuredOf = (kind, n) => (kind === 'trials' ? report.byNumber.get(n) : report.data[kind][n]);

/** An element with attributes and children; strings become text, so nothing here can be markup. */
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
};

const escapeText = text => text.replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);

/** Plain text of a hover's lines, for a screen reader. */
const plainText = lines => {
  const page = new DOMParser().parseFromString(lines.replaceAll('<br>', ', '), 'text/html');
  return page.body.textContent;
};

const hoverOf = trial => `${trial.hover}<br><br>${escapeText(trial.plan).replaceAll('\n', '<br>')}`;

const say = text => { document.getElementById('status').textContent = text; };

const controlsOf = root => [...root.querySelectorAll('a[href], button:enabled, summary, [tabindex]')];
const nameOf = control => control.getAttribute('aria-label') ?? control.textContent;

/**
 * Rewrite the contents of an element under its reader's hands: what scrolls stays where it is, and
 * the keyboard on the control of the same name, or else on the fallback.
 */
const rewrite = (root, change, fallback = null) => {
  const scrolledOf = () => [root, ...root.querySelectorAll('.scroll')];
  const places = scrolledOf().map(({scrollTop, scrollLeft}) => [scrollTop, scrollLeft]);
  const focused = root.contains(document.activeElement) ? document.activeElement : null;
  const alike = () => controlsOf(root).filter(control => nameOf(control) === name);
  const name = focused && nameOf(focused);
  const nth = focused && alike().indexOf(focused);
  change();
  if (focused) (alike()[nth] ?? fallback)?.focus({preventScroll: true});
  scrolledOf().forEach((element, i) => {
    if (places[i]) [element.scrollTop, element.scrollLeft] = places[i];
  });
};
