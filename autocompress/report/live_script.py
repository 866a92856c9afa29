"""What a served report has beside a written one: it asks for news, and takes its reader along."""

import json
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark}
body{font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;margin:0}
main{max-width:640px;margin:15vh auto 0;padding:0 20px;overflow-wrap:anywhere}
"""

# Asks every two seconds whether the page is still the newest. When the reader has been still for a
# moment the report takes over newer data; filters, scroll position and the open card stay. A page
# without a report is loaded anew, and so is one whose run is gone.
_SCRIPT: Final = """
(() => {
  let version = VERSION;
  const EVERY_MS = 2000, STILL_MS = 1500;
  let etag = '', status = {version}, touchedAt = -STILL_MS;

  const bar = document.createElement('div');
  const text = document.createElement('span');
  const show = document.createElement('button');
  text.setAttribute('role', 'status');
  show.type = 'button';
  show.textContent = 'Show';
  show.hidden = true;
  show.addEventListener('click', () => renew());
  bar.id = 'autocompress-watch';
  Object.assign(bar.style, {position: 'fixed', right: '12px', bottom: '12px', zIndex: '1000',
    padding: '6px 12px', borderRadius: '8px', font: '14px/1.4 system-ui, sans-serif',
    background: '#22262b', color: '#fff', maxWidth: 'calc(100vw - 24px)',
    boxSizing: 'border-box'});
  Object.assign(show.style, {marginLeft: '10px', font: 'inherit'});
  const region = document.createElement('aside');
  region.setAttribute('aria-label', 'Live updates');
  bar.append(text, show);
  region.append(bar);
  document.body.append(region);
  const say = words => { if (text.textContent !== words) text.textContent = words; };

  const load = async (name, headers = {}) => {
    const answer = await fetch(name + location.search, {cache: 'no-store', headers});
    if (!answer.ok && answer.status !== 304) throw new Error(answer.status);
    return answer;
  };
  const renew = async () => {
    if (status.problem || !window.autocompressReport) return location.reload();
    const answer = await load('data');
    autocompressReport.update(await answer.json());
    version = answer.headers.get('ETag').replaceAll('\"', '');
    show.hidden = true;
  };
  const isStill = () => !document.hidden && performance.now() - touchedAt >= STILL_MS
    && String(getSelection()) === '';
  const touch = () => { touchedAt = performance.now(); };
  for (const kind of ['pointerdown', 'pointermove', 'keydown', 'wheel', 'touchmove'])
    addEventListener(kind, touch, {passive: true});

  const words = () => {
    if (status.problem) return 'Waiting for the run';
    const n = status.n_finished;
    const trials = `${n} trial${n === 1 ? '' : 's'} finished`;
    if (!status.is_driven) return `${trials}; no search is running`;
    return `Live: ${trials}` + (status.n_running ? `, ${status.n_running} running` : '');
  };
  const ask = async () => {
    try {
      const answer = await load('status', etag ? {'If-None-Match': etag} : {});
      if (answer.ok) {
        status = await answer.json();
        etag = answer.headers.get('ETag');
        say(words());
      }
      if (status.version !== version && isStill()) await renew();
    } catch {
      etag = '';
      say('No answer: autocompress watch has ended. What you see is its last page.');
    }
    show.hidden = status.version === version;
    setTimeout(ask, EVERY_MS);
  };
  ask();
})();
"""


def live_script(version: str) -> str:
    """The script of a served page.

    Args:
        version: Of the data that the page holds; compared with the status.
    """
    return _SCRIPT.replace("VERSION", json.dumps(version), 1)
