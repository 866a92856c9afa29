"""What a served report has beside a written one: it asks for news, and takes its reader along."""

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark}
body{font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;margin:0}
main{max-width:640px;margin:15vh auto 0;padding:0 20px;overflow-wrap:anywhere}
"""

# Asks every two seconds whether the page is still the newest. A newer one is loaded when the reader
# has been still for a moment, with scroll position, opened parts and fields as they were.
SCRIPT: Final = """
(() => {
  const version = document.currentScript.dataset.version;
  const KEY = 'autocompress-watch', EVERY_MS = 2000, STILL_MS = 1500;
  const parts = () => [...document.querySelectorAll('details')];
  const fields = () => [...document.querySelectorAll('input,select,textarea')];
  const isTick = field => field.type === 'checkbox' || field.type === 'radio';
  let etag = '', hasNews = false, touchedAt = -STILL_MS;

  const bar = document.createElement('div');
  const text = document.createElement('span');
  const show = document.createElement('button');
  text.setAttribute('role', 'status');
  show.type = 'button';
  show.textContent = 'Show';
  show.hidden = true;
  show.addEventListener('click', () => reload());
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

  const remember = () => sessionStorage.setItem(KEY, JSON.stringify({
    scroll: [scrollX, scrollY],
    open: parts().map(part => part.open),
    fields: fields().map(field => isTick(field) ? field.checked : field.value),
  }));
  const restore = () => {
    const kept = JSON.parse(sessionStorage.getItem(KEY) || 'null');
    sessionStorage.removeItem(KEY);
    if (!kept) return;
    parts().forEach((part, i) => { if (i in kept.open) part.open = kept.open[i]; });
    if (kept.fields.length === fields().length) fields().forEach((field, i) => {
      const name = isTick(field) ? 'checked' : 'value';
      if (field.type === 'file' || field[name] === kept.fields[i]) return;
      field[name] = kept.fields[i];
      for (const kind of ['input', 'change'])
        field.dispatchEvent(new Event(kind, {bubbles: true}));
    });
    scrollTo(...kept.scroll);
  };
  const reload = () => { remember(); location.reload(); };
  const isStill = () => !document.hidden && performance.now() - touchedAt >= STILL_MS
    && String(getSelection()) === '';
  const touch = () => { touchedAt = performance.now(); };
  for (const kind of ['pointerdown', 'pointermove', 'keydown', 'wheel', 'touchmove'])
    addEventListener(kind, touch, {passive: true});

  const words = status => {
    if (status.problem) return 'Waiting for the run';
    const n = status.n_finished;
    const trials = `${n} trial${n === 1 ? '' : 's'} finished`;
    if (!status.is_driven) return `${trials}; no search is running`;
    return `Live: ${trials}` + (status.n_running ? `, ${status.n_running} running` : '');
  };
  const ask = async () => {
    try {
      const answer = await fetch('status' + location.search,
        {cache: 'no-store', headers: etag ? {'If-None-Match': etag} : {}});
      if (answer.ok) {
        const status = await answer.json();
        etag = answer.headers.get('ETag') || '';
        hasNews = status.version !== version;
        say(words(status));
      } else if (answer.status !== 304) {
        throw new Error(answer.status);
      }
    } catch {
      etag = '';
      say('No answer: autocompress watch has ended. What you see is its last page.');
    }
    if (hasNews && isStill()) return reload();
    show.hidden = !hasNews;
    setTimeout(ask, EVERY_MS);
  };
  if (document.readyState === 'complete') restore();
  else addEventListener('load', restore);
  ask();
})();
"""
