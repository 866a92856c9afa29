// A trial's card: all that is known of it. Each has an address, #trial-12, and can be shared by it.

const ROLES = {baseline: 'untouched baseline', control: 'control: nobody had to search for it',
  search: 'searched trial'};
const STATES = {failed: 'failed', stopped: 'stopped early', running: 'not finished'};
const card = document.getElementById('card');

const frame = (label, table) =>
  make('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': label}, table);

/** Figures side by side: this trial, what longer training made of it, and the baseline. */
const figuresOf = trial => {
  const {columns, baseline, refined, validated} = report.data;
  const sides = [['this trial', trial.cells]];
  if (refined[trial.n]) sides.push(['refined', refined[trial.n].cells]);
  if (validated[trial.n]) sides.push([validated[trial.n].name, validated[trial.n].cells]);
  if (baseline !== null && baseline !== trial.n)
    sides.push(['baseline', report.byNumber.get(baseline).cells]);
  const rows = columns.slice(1).map(({title}, i) => make('tr', {},
    make('th', {scope: 'row'}, title),
    ...sides.map(([, cells]) => make('td', {}, cells[i + 1] || '–'))));
  const heads = ['figure', ...sides.map(([name]) => name)];
  return frame('Measurements', make('table', {class: 'card-figures'},
    make('caption', {}, 'Measurements'),
    make('thead', {}, make('tr', {}, ...heads.map(name => make('th', {scope: 'col'}, name)))),
    make('tbody', {}, ...rows)));
};

/** Parts of the model in order: the kind of knob that reaches most of them knows it best. */
const partsOf = knobs => {
  const byKind = new Map();
  for (const {kind, targets} of knobs)
    byKind.set(kind, [...(byKind.get(kind) || []), ...targets]);
  const lists = [...byKind.values()].sort((a, b) => new Set(b).size - new Set(a).size);
  return [...new Set(lists.flat())];
};

const levelCell = (knob, level) => {
  if (!knob || level === null || level === undefined) return make('td', {}, '');
  const share = level / Math.max(knob.levels.length - 1, 1);
  const words = knob.levels[level] ?? String(level);
  return level === 0 ? make('td', {class: 'soft'}, words)
    : make('td', {style: `--share:${share}`}, words);
};

const byteCell = (bytes, most) => {
  if (bytes === undefined) return make('td', {}, '');
  const bar = make('span', {style: `--part:${bytes / Math.max(most, 1)}`, 'aria-hidden': 'true'});
  return make('td', {class: 'bar'}, bytes.toLocaleString('en'), bar);
};

/** Layer by layer: what was asked for, and the bytes of it in the packed file. */
const stripOf = trial => {
  const {knobs, kinds, layerBytes} = report.data;
  if (!knobs.length) return null;
  const used = Object.keys(kinds).filter(kind => knobs.some(knob => knob.kind === kind));
  const at = new Map();
  knobs.forEach((knob, i) => knob.targets.forEach(part => at.set(`${knob.kind}\n${part}`, i)));
  const bytes = layerBytes?.of[trial.n];
  const bytesOf = new Map(bytes ? layerBytes.layers.map((name, i) => [name, bytes[i]]) : []);
  const most = Math.max(0, ...bytesOf.values());
  const rowOf = (part, count) => make('tr', {}, make('th', {scope: 'row'}, part),
    ...used.map(kind => {
      const i = at.get(`${kind}\n${part}`);
      return levelCell(knobs[i], trial.levels[i]);
    }),
    bytes ? byteCell(count, most) : null);
  const parts = [...new Set([...partsOf(knobs), ...bytesOf.keys()])];
  const rows = parts.map(part => rowOf(part, bytesOf.get(part)));
  if (bytes) rows.push(rowOf('graph and the rest', trial.size[0] - bytes.reduce((a, b) => a + b)));
  const heads = ['part of the model', ...used.map(kind => kinds[kind]), ...(bytes ? ['bytes'] : [])];
  const caption = 'Layer by layer: the stronger the colour, the stronger the compression asked for'
    + (bytes ? '. Bytes are those of the packed file' : '');
  return frame('Layer by layer', make('table', {class: 'strip'}, make('caption', {}, caption),
    make('thead', {}, make('tr', {}, ...heads.map(name => make('th', {scope: 'col'}, name)))),
    make('tbody', {}, ...rows)));
};

const copyText = async (text, button) => {
  let isCopied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // not every browser lends a page from a file its clipboard
    const range = document.createRange();
    range.selectNodeContents(button.previousElementSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    isCopied = document.execCommand('copy');
  }
  button.textContent = isCopied ? 'Copied' : 'Press Ctrl+C';
  setTimeout(() => { button.textContent = 'Copy'; }, 2000);
};

const commandOf = (what, text) => {
  const button = make('button', {type: 'button', 'aria-label': `Copy the command to ${what}`}, 'Copy');
  button.addEventListener('click', () => copyText(text, button));
  const shown = make('pre', {tabindex: 0}, make('code', {}, text));
  return make('div', {class: 'command'}, shown, button);
};

const commandsOf = trial => {
  if (trial.role === 'baseline') return [];
  const about = `${report.data.run} --trial ${trial.n}`;
  return [make('h3', {}, 'Take it with you'),
    commandOf('refine this trial', `autocompress refine ${about}`),
    commandOf('export this trial', `autocompress export ${about}`)];
};

/** The way along the front, by size: smaller, larger. */
const waysOf = trial => {
  const front = report.data.trials.filter(other => other.front)
    .sort((a, b) => a.size[0] - b.size[0]);
  const size = trial.size ? trial.size[0] : 0;
  const smaller = front.filter(other => other.n !== trial.n && other.size[0] <= size).pop();
  const larger = front.find(other => other.n !== trial.n && other.size[0] > size);
  const ways = [['Smaller on the front', smaller], ['Larger on the front', larger]];
  return make('div', {class: 'card-ways'}, ...ways.map(([words, other]) => {
    if (!other) return make('button', {type: 'button', disabled: ''}, words);
    const button = make('button', {type: 'button', 'data-trial': other.n}, words);
    button.addEventListener('click', () => { location.hash = `trial-${other.n}`; });
    return button;
  }));
};

const standingOf = trial => {
  const words = [`Trial ${trial.n}`, ROLES[trial.role]];
  if (STATES[trial.state]) words.push(STATES[trial.state]);
  else if (!trial.cells) words.push('an objective was not measured');
  else if (trial.front) words.push('on the front');
  else if (!trial.feasible) words.push('breaks a limit');
  else if (!trial.comparable) words.push('other tuning than the front');
  else words.push('dominated');
  if (report.data.refined[trial.n]) words.push('refined');
  return words.join(' · ');
};

const contentsOf = trial => {
  const close = make('button', {type: 'button', autofocus: ''}, 'Close');
  close.addEventListener('click', () => card.close());
  const title = make('h2', {id: 'card-title', tabindex: -1}, trial.name);
  return [
    make('div', {class: 'card-head'}, title, close),
    make('p', {class: 'soft'}, standingOf(trial)),
    trial.reason ? make('p', {}, `Reason: ${trial.reason}`) : null,
    trial.cells ? waysOf(trial) : null,
    trial.cells ? figuresOf(trial) : null,
    ...(trial.cells ? commandsOf(trial) : []),
    make('h3', {}, 'Its plan'),
    make('p', {class: 'plan'}, trial.plan),
    stripOf(trial),
    trial.skipped ? make('p', {}, `Asked for, but not applied: ${trial.skipped.join('; ')}`) : null,
  ].filter(Boolean);
};

/** Fill the card, unless it says the same already; a reader of the same trial keeps the place. */
const fillCard = trial => {
  const contents = contentsOf(trial);
  const written = contents.map(part => part.outerHTML).join('');
  if (card.written === written) return;
  const isAnother = card.trial !== trial.n;
  rewrite(card, () => card.replaceChildren(...contents), contents[0].firstElementChild);
  if (isAnother) for (const part of [card, ...card.querySelectorAll('.scroll')]) part.scrollTo(0, 0);
  Object.assign(card, {written, trial: trial.n});
};

/** Show the card that the address names, or none. */
const followAddress = () => {
  const named = /^#trial-(\d+)$/.exec(location.hash);
  const trial = named && report.byNumber.get(Number(named[1]));
  if (!trial) {
    if (card.open) card.close();
    if (named) say(`This run has no trial ${named[1]}.`);
    return;
  }
  fillCard(trial);
  if (card.open) return;
  card.showModal();
  card.scrollTop = 0;
};

const openCard = number => {
  if (location.hash === `#trial-${number}`) followAddress();
  else location.hash = `trial-${number}`;
};

card.addEventListener('close', () => {
  if (/^#trial-/.test(location.hash))
    history.replaceState(null, '', location.pathname + location.search);
});
card.addEventListener('click', event => { if (event.target === card) card.close(); });
addEventListener('hashchange', followAddress);
