// Filters: upper ends of accuracy lost and of every cost. They act on figures and tables alike.
// A slider steps from trial to trial, so that every step shows or hides something. It counts from
// its right end, where 0 is no filter: that still holds when a reloaded page has more trials.

const filtersOf = costs => [
  {key: 'drop', label: 'accuracy lost, at most'},
  ...costs.map(cost => ({key: cost, label: `${cost}, at most`})),
];
const filterState = new Map();  // key -> {input, output, steps: [[value, words]], chosen: value}

const passes = trial => {
  for (const [key, {chosen}] of filterState) {
    if (chosen === Infinity) continue;
    if (!trial[key] || trial[key][0] > chosen) return false;
  }
  return true;
};
const isFiltered = () => [...filterState.values()].some(({chosen}) => chosen !== Infinity);

const stepsOf = key => {
  const words = new Map();
  for (const trial of report.data.trials) if (trial[key]) words.set(...trial[key]);
  return [...words].sort((a, b) => a[0] - b[0]);
};

const readFilter = state => {
  const last = state.steps.length - 1;
  const step = last + Number(state.input.value);
  state.chosen = step >= last ? Infinity : state.steps[step][0];
  const words = step >= last ? 'any' : state.steps[step][1];
  state.output.textContent = words;
  state.input.setAttribute('aria-valuetext', words);
};

const countShown = () => {
  const measured = report.data.trials.filter(trial => trial.cells);
  const shown = measured.filter(passes).length;
  const words = isFiltered() ? `${shown} of ${measured.length} measured trials shown`
    : `All ${measured.length} measured trials shown`;
  document.getElementById('filter-count').textContent = words;
};

/** Build the sliders, or after a refresh give them the new steps and keep what was chosen. */
const prepareFilters = onChange => {
  const home = document.getElementById('filters');
  const fields = home.querySelector('fieldset');
  for (const {key, label} of filtersOf(report.data.costs)) {
    const steps = stepsOf(key);
    let state = filterState.get(key);
    if (!state && steps.length > 1) {
      const output = make('output');
      const input = make('input', {type: 'range', max: 0, step: 1, id: `filter-${key}`});
      input.addEventListener('input', () => { readFilter(state); onChange(); });
      fields.insertBefore(make('label', {}, make('span', {}, label, output), input),
        fields.lastElementChild);
      state = {input, output, steps, chosen: Infinity};
      filterState.set(key, state);
    }
    if (!state) continue;
    state.steps = steps;
    const last = steps.length - 1;
    state.input.min = -last;
    const kept = steps.findLastIndex(([value]) => value <= state.chosen);
    state.input.value = state.chosen === Infinity ? 0 : Math.max(kept, 0) - last;
    readFilter(state);
  }
  home.hidden = filterState.size === 0;
  countShown();
};

const resetFilters = () => {
  for (const state of filterState.values()) {
    state.input.value = 0;
    readFilter(state);
  }
};
