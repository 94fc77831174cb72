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
    const url = new URL(location.href);
    for (const name of ['run', 'job', 'tab', '__theme']) url.searchParams.delete(name);
    if (button.dataset.comparison) url.searchParams.set('comparison', button.dataset.comparison);
    const text = url.href;
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
      const open = document.querySelector('#shell').classList.toggle('rail-open');
      target.setAttribute('aria-expanded', String(open));
    }
  });

  /* The file dialogue offers images; what is chosen is judged by its content on the server. */
  document.addEventListener('click', (event) => {
    if (!event.target.closest?.('#upload')) return;
    for (const input of document.querySelectorAll('input[type=file]')) input.accept = '.png,.jpg,.jpeg,.webp,.tif,.tiff';
  }, true);

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

  /* Presses of [data-act] go to Python as the component's click, with all data- attributes. */
  const press = (element, trigger) => element.addEventListener('click', (event) => {
    const pressed = event.target.closest('[data-act]');
    if (!pressed || event.metaKey || event.ctrlKey || event.shiftKey || pressed.getAttribute('aria-disabled') === 'true') return;
    event.preventDefault();
    trigger('click', {...pressed.dataset});
  });

  /* How many runs are ticked, and whether that many can stand side by side. */
  const tellSelection = () => {
    const bar = document.querySelector('#run-selection .selection');
    if (!bar) return;
    const count = document.querySelectorAll('#run-list tbody input:checked').length;
    bar.querySelector('[data-act]').setAttribute('aria-disabled', String(count < 2 || count > 4));
    bar.querySelector('.picked').textContent = count === 0 ? bar.dataset.none
      : count === 1 ? '1 run selected, one more is needed.'
      : count > 4 ? `${count} runs selected, four is the most.`
      : `${count} runs selected.`;
  };

  window.keepmap = {
    dark,
    acts: press,
    /* A refused pane of the maps offers the lowest budget; it arrives as a message from their frame. */
    results(element, trigger) {
      press(element, trigger);
      window.addEventListener('message', (event) => {
        const {type, pane, budget} = event.data || {};
        if (event.origin === location.origin && type === 'keepmap:budget') trigger('click', {act: 'lowest', pane, tokens: budget});
      });
    },
    /* The list of runs: ticks are counted here, deleting asks once more in its row, the rest goes to Python. */
    runList(element, trigger, watch) {
      element.addEventListener('change', tellSelection);
      element.addEventListener('click', (event) => {
        const ask = event.target.closest('[data-ask]');
        if (!ask) return;
        const cell = ask.closest('td');
        const sure = cell.querySelector('.sure');
        const first = cell.querySelector('[data-ask=yes]');
        const open = ask.dataset.ask === 'yes';
        sure.hidden = !open;
        first.hidden = open;
        (open ? sure.querySelector('button') : first).focus();
      });
      press(element, trigger);
      watch('value', () => {
        for (const box of element.querySelectorAll('tbody input:checked')) box.checked = false;
        tellSelection();
      });
    },
    runSelection(element, trigger) {
      element.addEventListener('click', (event) => {
        const pressed = event.target.closest('[data-act]');
        if (!pressed || pressed.getAttribute('aria-disabled') === 'true') return;
        const runs = [...document.querySelectorAll('#run-list tbody input:checked')].map((box) => box.dataset.run);
        trigger('click', {act: 'compare', runs: runs.join(',')});
      });
    },
    /* Charts are drawn by the server in the colours of the theme: tell it when that changes. */
    watchTheme(trigger) {
      let last = dark();
      new MutationObserver(() => {
        if (dark() === last) return;
        last = dark();
        trigger('apply', {dark: last});
      }).observe(document.body, {attributes: true, attributeFilter: ['class']});
    },
    /* The comparison that is on screen; another one forgets the layer and the view of the one before. */
    show(id) {
      const url = new URL(location.href);
      if (!id) return;
      if (url.searchParams.get('comparison') !== id) this.address({comparison: id, tab: ''}, true);
      else if (url.searchParams.has('job')) this.address({});
    },
    /* After Compare: the address names the job, a folded rail closes, and what is said about it comes into view. */
    started(job) {
      if (job) {
        this.address({job});
        document.querySelector('#shell').classList.remove('rail-open');
        document.querySelector('.rail-toggle')?.setAttribute('aria-expanded', 'false');
      }
      this.look();
    },
    /* The head of the main column, where progress and errors stand, when it is scrolled away. */
    look() {
      const top = document.querySelector('#main').getBoundingClientRect().top;
      const said = document.querySelector('#notice [role=alert], #job .job');
      if (said && (top < 0 || top > window.innerHeight * .8)) window.scrollTo({top: window.scrollY + top});
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
