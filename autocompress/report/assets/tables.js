// Tables of measured trials, drawn when somebody opens them: a run may have thousands.

const trialTable = topic => {
  const {columns, trials} = report.data;
  const shown = columns.map((column, i) => ({...column, i}))
    .filter(({topics}) => topic === 'all' || topics.includes(topic));
  const head = make('tr', {}, ...shown.map(({title}, i) =>
    make('th', {scope: 'col', ...(i ? {class: 'n'} : {})}, title)));
  const rows = trials.filter(trial => trial.cells).map(trial => {
    const [first, ...rest] = shown.map(({i}) => trial.cells[i]);
    const name = make('a', {href: `#trial-${trial.n}`}, first);
    return make('tr', {'data-trial': trial.n, 'data-of': 'trials'}, make('th', {scope: 'row'}, name),
      ...rest.map(cell => make('td', {class: 'n'}, cell)));
  });
  const caption = `${rows.length} measured trials`;
  return make('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption},
    make('table', {}, make('caption', {}, caption), make('thead', {}, head),
      make('tbody', {}, ...rows)));
};

const fillTable = details => {
  if (!details.open) return;
  const home = details.querySelector('[data-table]');
  rewrite(home, () => home.replaceChildren(trialTable(home.dataset.table)));
  filterRows(home);
};

const filterRows = root => {
  for (const row of root.querySelectorAll('tr[data-trial]')) {
    const figures = measuredOf(row.dataset.of, Number(row.dataset.trial));
    row.hidden = Boolean(figures) && !passes(figures);
  }
};

const fillOpenTables = () => {
  for (const home of document.querySelectorAll('[data-table]')) fillTable(home.closest('details'));
};

document.addEventListener('toggle', event => {
  if (event.target.querySelector?.(':scope > [data-table]')) fillTable(event.target);
}, true);
