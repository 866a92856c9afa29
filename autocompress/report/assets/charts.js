// Figures: drawn from their JSON, anew when the colour scheme, the width or a filter changes.

const dark = matchMedia('(prefers-color-scheme: dark)');
const narrow = matchMedia('(max-width: 640px)');
const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const DARK_SCALE = [[0, '#262c33'], [0.25, '#24435c'], [0.5, '#2b6893'], [0.75, '#4d9ace'],
  [1, '#a8daff']];

/** Words in lines of at most so many characters: Plotly wraps nothing itself. */
const wrapWords = (text, limit) => {
  const lines = [''];
  // a name may be longer than a line: it is broken, but no tag or entity in it
  const pieces = new RegExp(`(?:<[^>]+>|&[^;]+;|.){1,${limit - 1}}`, 'gsu');
  for (const word of text.split(' ').flatMap(word => word.match(pieces) ?? '')) {
    const last = lines[lines.length - 1];
    if (last && last.length + word.length >= limit) lines.push(word);
    else lines[lines.length - 1] = last ? last + ' ' + word : word;
  }
  return lines;
};

/** Names beside an axis, short enough to leave the figure room: the ends of layers tell most. */
const shortenNames = names => names.map(name => {
  const text = plainText(name);
  return text.length <= 20 ? name : escapeText(`${text.slice(0, 6)}…${text.slice(-13)}`);
});

/** Fit a figure to the colours and the width at hand. */
const adapt = (figure, width) => {
  const layout = figure.layout;
  layout.font.color = color('--text');
  layout.paper_bgcolor = color('--card');
  Object.assign(layout.hoverlabel, {bgcolor: color('--page'), bordercolor: color('--line')});
  layout.hoverlabel.font.color = color('--text');
  layout.title.subtitle.font.color = color('--soft');
  const titleChars = Math.floor((width - (narrow.matches ? 16 : 210)) / 9.8);
  const title = wrapWords(layout.title.text.replaceAll(' %', '\u00a0%'), titleChars);
  layout.title.text = title.join('<br>');
  layout.margin.t += 24 * (title.length - 1);
  const subtitle = wrapWords(layout.title.subtitle.text || '', Math.floor((width - 24) / 6.6));
  layout.title.subtitle.text = subtitle.join('<br>');
  layout.margin.t += 18 * (subtitle.length - 1);
  for (const trace of figure.data)
    if (dark.matches && trace.type === 'heatmap') trace.colorscale = DARK_SCALE;
  if (!narrow.matches) return figure;
  layout.title.font.size = 17;
  if (layout.yaxis?.title) layout.yaxis.title.text = '';
  if (layout.xaxis?.title) layout.xaxis.title.font = {size: 12};
  if (layout.yaxis?.ticktext && !figure.data.some(trace => trace.type === 'heatmap'))
    layout.yaxis.ticktext = shortenNames(layout.yaxis.ticktext);
  const legend = figure.data.filter(trace => trace.name).length > 2 ? 64 : 0;
  Object.assign(layout.margin, {l: 44, r: 10, b: layout.margin.b + legend});
  layout.height += legend;
  for (const trace of figure.data) if (trace.mode === 'markers+text') trace.mode = 'markers';
  return figure;
};

const PER_POINT = ['x', 'y', 'z', 'text', 'textposition', 'hovertext', 'customdata'];

/** Keep those points of a trace for which `keeps` holds. */
const pickPoints = (trace, keeps) => {
  const n = trace.customdata.length;
  const pick = list => Array.isArray(list) && list.length === n ? list.filter((_, i) => keeps[i])
    : list;
  for (const key of PER_POINT) trace[key] = pick(trace[key]);
  for (const key of ['symbol', 'size']) if (trace.marker) trace.marker[key] = pick(trace.marker[key]);
  for (const key of ['array', 'arrayminus'])
    if (trace.error_x) trace.error_x[key] = pick(trace.error_x[key]);
};

/** Keep those columns of a heat map whose trial passes the filters. */
const pickColumns = (trace, layout) => {
  const keeps = trace.meta.columns.map(n => passes(report.byNumber.get(n)));
  const pick = list => list.filter((_, i) => keeps[i]);
  trace.x = pick(trace.x);
  for (const key of ['z', 'text', 'hovertext']) trace[key] = trace[key].map(pick);
  trace.meta.columns = pick(trace.meta.columns);
  layout.xaxis.tickvals = pick(layout.xaxis.tickvals);
  layout.xaxis.ticktext = pick(layout.xaxis.ticktext);
};

/** A figure as it is to be drawn now: filtered, with the words its points show. */
const figureNow = (name, width) => {
  const figure = structuredClone(report.figures[name]);
  for (const trace of figure.data) {
    if (trace.meta?.columns) pickColumns(trace, figure.layout);
    if (!['trials', 'refined', 'validated'].includes(trace.meta)) continue;
    const isWay = trace.mode === 'lines';  // it is drawn where both of its ends are
    pickPoints(trace, trace.customdata.map(n => passes(measuredOf(trace.meta, n))
      && (!isWay || passes(report.byNumber.get(n)))));
    if (trace.meta === 'trials' && trace.hoverinfo !== 'skip')
      trace.hovertext = trace.customdata.map(n => hoverOf(report.byNumber.get(n)));
  }
  return adapt(figure, width);
};

/** The trial behind a point that was pointed at or chosen, if there is one. */
const trialAt = point => point.customdata ?? point.data.meta?.columns?.[point.pointNumber?.[1]];

/** Points of a chart in the order in which the arrow keys visit them: from left to right. */
const stopsOf = plot => {
  const stops = [];
  plot.data.forEach((trace, curveNumber) => {
    if (!trace.customdata || trace.hoverinfo === 'skip' || trace.type === 'scatter3d') return;
    trace.customdata.forEach((n, pointNumber) =>
      stops.push({curveNumber, pointNumber, n, x: trace.x[pointNumber], y: trace.y[pointNumber]}));
  });
  return stops.sort((a, b) => a.x - b.x || a.y - b.y);
};

/** What a point shows, up to the plan: a mark of longer training says more than its trial does. */
const figuresAt = (plot, {curveNumber, pointNumber, n}) => {
  const shown = plot.data[curveNumber].hovertext?.[pointNumber] ?? report.byNumber.get(n).hover;
  return plainText(shown.split('<br><br>')[0]);
};

const STEPS = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1};

const onKey = event => {
  const plot = event.currentTarget;
  const stops = stopsOf(plot);
  const last = stops.length - 1;
  if (last < 0) return;
  if (event.key === 'Escape') {
    Plotly.Fx.unhover(plot);
    return;
  }
  let stop = plot.stop ?? -1;
  if (event.key in STEPS) stop = stop < 0 ? 0 : Math.min(Math.max(stop + STEPS[event.key], 0), last);
  else if (event.key === 'Home') stop = 0;
  else if (event.key === 'End') stop = last;
  else if ((event.key === 'Enter' || event.key === ' ') && stop >= 0) {
    event.preventDefault();
    openCard(stops[Math.min(stop, last)].n);
    return;
  } else return;
  event.preventDefault();
  plot.stop = stop;
  const {curveNumber, pointNumber} = stops[stop];
  Plotly.Fx.hover(plot, [{curveNumber, pointNumber}]);
  say(`${stop + 1} of ${stops.length}: ${figuresAt(plot, stops[stop])}`);
};

/** Names a chart for screen readers, and makes one with points a stop of the keyboard. */
const label = (plot, figure) => {
  const title = plainText(figure.layout.title.text);
  if (plot.dataset.points !== undefined) {
    plot.tabIndex = 0;
    plot.setAttribute('role', 'application');
    plot.setAttribute('aria-roledescription', 'chart');
    plot.setAttribute('aria-label',
      `${title}. Arrow keys go from point to point, Enter opens a trial's card.`);
  } else {
    plot.setAttribute('role', 'group');
    plot.setAttribute('aria-label', `Chart: ${title}. The table below holds the same figures.`);
  }
};

const drawFigure = plot => {
  const name = plot.dataset.figure;
  if (!report.figures[name] || plot.closest('details:not([open])')) return;  // none, or folded away
  const figure = figureNow(name, plot.parentElement.clientWidth);
  const columns = figure.data[0]?.meta?.columns?.length ?? 0;
  // cells of a heat map must stay wide enough to hit: on a narrow screen it scrolls sideways
  plot.style.minWidth = columns ? `${190 + 30 * columns}px` : '';
  plot.style.height = `${figure.layout.height}px`;
  label(plot, figure);
  const isNew = !plot.data;
  Plotly.react(plot, figure.data, figure.layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: narrow.matches ? false : 'hover',
    modeBarButtonsToRemove: ['select2d', 'lasso2d'],
    toImageButtonOptions: {filename: name, scale: 2},
  });
  if (!isNew) return;
  plot.on('plotly_click', event => {
    const n = trialAt(event.points[0]);
    if (n !== undefined && n !== null) openCard(n);
  });
  if (plot.dataset.points !== undefined) plot.addEventListener('keydown', onKey);
};

const waiting = [];  // charts still to be drawn

/** Draw the next waiting chart, then let the page answer before the one after it. */
const drawNext = () => {
  const plot = waiting.shift();
  if (plot) {
    drawFigure(plot);
    setTimeout(drawNext);
  } else document.documentElement.dataset.drawn = 'all';
};

/** Draw charts in order: the first ones, which are in sight, at once, the rest one by one. */
const drawFigures = (names = null, nAtOnce = 2) => {
  const plots = [...document.querySelectorAll('[data-figure]')]
    .filter(plot => !names || names.has(plot.dataset.figure));
  for (const plot of plots)  // what is drawn later has its place already
    plot.style.height = `${report.figures[plot.dataset.figure]?.layout.height ?? 0}px`;
  plots.slice(0, nAtOnce).forEach(drawFigure);
  const isIdle = waiting.length === 0;
  waiting.push(...plots.slice(nAtOnce).filter(plot => !waiting.includes(plot)));
  delete document.documentElement.dataset.drawn;
  if (isIdle) setTimeout(drawNext);
};

document.addEventListener('toggle', event => {  // what is folded away is drawn when it is opened
  if (event.target.open) for (const plot of event.target.querySelectorAll('[data-figure]'))
    if (!plot.data) drawFigure(plot);
}, true);
dark.addEventListener('change', () => drawFigures());
narrow.addEventListener('change', () => drawFigures());
