"""The page's style sheet and script, inlined so that the page needs no other file."""

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#22262b;--soft:#59616b;
--line:#dde1e6;--mark:#0072b2;--code:#eef1f4}
@media (prefers-color-scheme:dark){:root{--page:#14171b;--card:#1c2025;--text:#e7e9ec;
--soft:#a3abb5;--line:#343a42;--mark:#6cb8ea;--code:#272c33}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);line-height:1.55;font:16px/1.55 system-ui,
-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;overflow-wrap:anywhere}
main,header,footer{max-width:1080px;margin:0 auto;padding:0 20px}
header{padding-top:40px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 6px}
h2{font-size:1.25rem;margin:0 0 8px}
h3{font-size:1.05rem;margin:20px 0 6px}
p{margin:8px 0}
.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:14px;
margin:20px 0;padding:0}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px}
.tiles dt{color:var(--soft);font-size:.87rem}
.tiles dd{margin:2px 0 0}
.tiles .value{font-size:1.45rem;font-weight:650;line-height:1.25}
.tiles .detail{font-size:.87rem;color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:20px;
margin:20px 0}
figure{margin:0}
.plot-frame{overflow-x:auto}
.plot{width:100%}
figcaption{color:var(--soft);font-size:.9rem;margin-top:6px}
details{margin-top:10px}
summary{cursor:pointer;color:var(--mark);font-weight:600}
.scroll{overflow:auto;max-height:560px;margin-top:10px;border:1px solid var(--line);
border-radius:6px}
table{border-collapse:collapse;width:100%;font-size:.87rem;font-variant-numeric:tabular-nums;
overflow-wrap:normal}
caption{text-align:left;color:var(--soft);padding:8px 10px;font-size:.87rem}
th,td{padding:5px 10px;text-align:left;border-top:1px solid var(--line);vertical-align:top;
max-width:26rem;overflow-wrap:break-word}
thead th{position:sticky;top:0;background:var(--card);border-top:0;
box-shadow:0 1px 0 var(--line);white-space:nowrap}
tbody th{font-weight:500;min-width:8.5rem;overflow-wrap:anywhere}
.words td{overflow-wrap:anywhere;min-width:6rem}
.n,th.n{text-align:right;white-space:nowrap}
thead th:nth-child(n+2){text-align:right}
.words thead th{text-align:left}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(290px,1fr));gap:14px 28px;
align-items:start}
.facts table{table-layout:fixed}
.facts td,.facts th{overflow-wrap:anywhere;min-width:0}
.facts caption{font-weight:600;color:var(--text);padding-left:0;text-transform:capitalize}
.facts th{font-weight:400;color:var(--soft);padding-left:0;width:42%}
pre{background:var(--code);border-radius:6px;padding:10px 12px;overflow-x:auto;margin:8px 0}
code{font:.87rem/1.5 ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace}
:not(pre)>code{background:var(--code);border-radius:4px;padding:1px 5px}
ul{padding-left:1.2em;margin:8px 0}
footer{color:var(--soft);font-size:.87rem;padding-bottom:40px}
:focus-visible{outline:2px solid var(--mark);outline-offset:2px}
@media (max-width:640px){main,header,footer{padding-left:12px;padding-right:12px}
section{padding:14px 12px}header{padding-top:24px}h1{font-size:1.5rem}}
@media print{body{background:#fff}section{break-inside:avoid}.scroll{max-height:none}}
"""

# Draws each figure from its JSON block, anew when the colour scheme or the width class changes.
SCRIPT: Final = """
(() => {
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
  const darkScale = [[0, '#262c33'], [0.25, '#24435c'], [0.5, '#2b6893'], [0.75, '#4d9ace'],
    [1, '#a8daff']];
  const adapt = (figure, width) => {
    const layout = figure.layout;
    layout.font.color = color('--text');
    layout.paper_bgcolor = color('--card');
    Object.assign(layout.hoverlabel, {bgcolor: color('--page'), bordercolor: color('--line')});
    layout.hoverlabel.font.color = color('--text');
    layout.title.subtitle.font.color = color('--soft');
    const titleChars = Math.floor((width - (narrow.matches ? 16 : 210)) / 9.8);
    const title = wrap(layout.title.text.replaceAll(' %', '\\u00a0%'), titleChars);
    layout.title.text = title.join('<br>');
    layout.margin.t += 24 * (title.length - 1);
    const subtitle = wrap(layout.title.subtitle.text || '', Math.floor((width - 24) / 6.6));
    layout.title.subtitle.text = subtitle.join('<br>');
    layout.margin.t += 18 * (subtitle.length - 1);
    for (const trace of figure.data)
      if (dark.matches && trace.type === 'heatmap') trace.colorscale = darkScale;
    if (!narrow.matches) return figure;
    layout.title.font.size = 17;
    if (layout.yaxis.title) layout.yaxis.title.text = '';
    layout.xaxis.title.font = {size: 12};
    const legend = figure.data.filter(trace => trace.name).length > 2 ? 64 : 0;
    Object.assign(layout.margin, {l: 44, r: 10, b: layout.margin.b + legend});
    layout.height += legend;
    for (const trace of figure.data) if (trace.mode === 'markers+text') trace.mode = 'markers';
    return figure;
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
