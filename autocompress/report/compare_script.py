"""The script of the page that compares runs: it draws its figures, and nothing else."""

from typing import Final

# Each figure from its JSON block, anew when the colour scheme or the width class changes.
COMPARE_SCRIPT: Final = """
(() => {
  'use strict';
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const narrow = matchMedia('(max-width: 640px)');
  const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const wrap = (text, limit) => {
    const lines = [''];
    for (const word of text.split(' ')) {
      const last = lines[lines.length - 1];
      if (last && last.length + word.length >= limit) lines.push(word);
      else lines[lines.length - 1] = last ? last + ' ' + word : word;
    }
    return lines;
  };
  const adapt = ({data, layout}, width) => {
    layout.font.color = color('--text');
    layout.paper_bgcolor = color('--card');
    Object.assign(layout.hoverlabel, {bgcolor: color('--page'), bordercolor: color('--line')});
    layout.title.subtitle.font.color = color('--soft');
    const room = width - (narrow.matches ? 16 : 210);
    const title = wrap(layout.title.text.replaceAll(' %', '\\u00a0%'), Math.floor(room / 9.8));
    layout.title.text = title.join('<br>');
    const notes = wrap(layout.title.subtitle.text || '', Math.floor((width - 24) / 6.6));
    layout.title.subtitle.text = notes.join('<br>');
    layout.margin.t += 24 * (title.length - 1) + 18 * (notes.length - 1);
    if (narrow.matches) {
      layout.title.font.size = 17;
      layout.yaxis.title.text = '';
      layout.xaxis.title.font = {size: 12};
      Object.assign(layout.margin, {l: 44, r: 10});
    }
    return {data, layout};
  };
  const draw = () => document.querySelectorAll('[data-figure]').forEach(div => {
    const source = document.getElementById(div.dataset.figure).textContent;
    const figure = adapt(JSON.parse(source), div.parentElement.clientWidth);
    div.style.height = figure.layout.height + 'px';
    const config = {responsive: true, displaylogo: false,
      displayModeBar: narrow.matches ? false : 'hover',
      modeBarButtonsToRemove: ['select2d', 'lasso2d'],
      toImageButtonOptions: {filename: div.dataset.figure, scale: 2}};
    Plotly.react(div, figure.data, figure.layout, config);
  });
  draw();
  dark.addEventListener('change', draw);
  narrow.addEventListener('change', draw);
})();
"""
