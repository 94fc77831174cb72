/* What the page does without asking the server: theme, links, the folding rail, the address. */
(() => {
  'use strict';
  const STORED = 'keepmap-theme';
  const read = () => { try { return localStorage.getItem(STORED); } catch { return null; } };
  const write = (value) => { try { localStorage.setItem(STORED, value); } catch { /* private windows forget */ } };
  const dark = () => document.body.classList.contains('dark');

  /* Gradio sets `dark` from the system when it starts; a stored choice goes first. */
  const settle = () => {
    const wanted = read();
    if (wanted && dark() !== (wanted === 'dark')) document.body.classList.toggle('dark', wanted === 'dark');
  };
  const toggleTheme = () => {
    write(dark() ? 'light' : 'dark');
    settle();
  };

  const copy = async (button) => {
    const text = button.dataset.link ? new URL(button.dataset.link, location.href).href : location.href;
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const field = document.createElement('textarea');
      field.value = text;
      field.className = 'sr';
      document.body.append(field);
      field.select();
      done = document.execCommand('copy');
      field.remove();
    }
    const before = button.dataset.words || button.textContent;
    button.dataset.words = before;
    button.textContent = done ? 'Copied' : text;
    setTimeout(() => { button.textContent = before; }, 1600);
  };

  document.addEventListener('click', (event) => {
    const target = event.target.closest('[data-km]');
    if (!target) return;
    const act = target.dataset.km;
    if (act === 'theme') toggleTheme();
    if (act === 'copy') copy(target);
    if (act === 'upload') document.querySelector('#upload')?.click();
    if (act === 'rail') {
      const open = document.body.classList.toggle('rail-open');
      target.setAttribute('aria-expanded', String(open));
    }
  });

  /* A slider's words follow the thumb at once; the server confirms them afterwards. */
  const follow = (range) => {
    const row = range.closest('.strat');
    const words = row?.querySelector('.readout [data-total]');
    if (!words) return;
    const total = Number(words.dataset.total);
    words.textContent = `${Number(range.value).toLocaleString('en')} of ${total.toLocaleString('en')}`;
    range.setAttribute('aria-valuetext', `${words.textContent} tokens`);
  };
  document.addEventListener('input', (event) => {
    if (event.target.matches?.('.strat .budget input[type=range]')) follow(event.target);
  });

  window.keepmap = {
    dark,
    /* The comparison that is on screen; another one forgets the layer and the view of the one before. */
    show(id) {
      const url = new URL(location.href);
      if (!id) return;
      if (url.searchParams.get('comparison') !== id) this.address({comparison: id, tab: ''}, true);
      else if (url.searchParams.has('job')) this.address({});
    },
    /* After a page was opened by a run or a job, its address names the comparison; a job that still works stays in it. */
    opened(id, job) {
      const asked = new URL(location.href).searchParams;
      if (id && !job && (asked.has('run') || asked.has('job'))) this.address({comparison: id});
    },
    /* Parameters of the address that are ours; an empty value takes one away. Layers and views (km_…) belong to the maps. */
    address(changes, forget) {
      const url = new URL(location.href);
      for (const name of ['run', 'job', '__theme']) url.searchParams.delete(name);
      if (forget) for (const name of [...url.searchParams.keys()]) if (name.startsWith('km_')) url.searchParams.delete(name);
      for (const [name, value] of Object.entries(changes)) {
        if (value) url.searchParams.set(name, value); else url.searchParams.delete(name);
      }
      if (url.href !== location.href) history.replaceState(history.state, '', url);
    },
  };

  const start = () => {
    settle();
    new MutationObserver(settle).observe(document.body, {attributes: true, attributeFilter: ['class']});
  };
  if (document.body) start(); else document.addEventListener('DOMContentLoaded', start);
})();
