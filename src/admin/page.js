// Keeps the page fresh and filters its rows. Without it the page reloads itself, and the browser's own
// search finds a topic.
'use strict';
(() => {
  const EVERY = 5000;
  const tools = document.getElementById('tools');
  const text = document.getElementById('filter');
  const attention = document.getElementById('attention');
  const late = document.getElementById('late');
  const shown = document.getElementById('shown');
  let fresh = Date.now();

  function filter() {
    if (!tools) return;
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    const rows = document.querySelectorAll('#live tbody tr[data-topic]');
    for (const row of rows) {
      const about = row.dataset.topic;
      const fits = words.every((word) => about.includes(word)) && !(attention.checked && row.dataset.calm);
      row.hidden = !fits;
      count += fits ? 1 : 0;
    }
    shown.textContent = count === rows.length ? '' : `${count} of ${rows.length} topics shown`;
  }

  async function refresh() {
    if (document.hidden) return;
    try {
      const answer = await fetch(location.pathname, { cache: 'no-store', signal: AbortSignal.timeout(EVERY) });
      if (!answer.ok) throw new Error(`it answered ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const focus = document.activeElement && document.activeElement.id;
      document.getElementById('live').replaceWith(page.getElementById('live'));
      document.getElementById('head').replaceWith(page.getElementById('head'));
      document.title = page.title;
      if (focus && document.getElementById(focus)) document.getElementById(focus).focus();
      filter();
      fresh = Date.now();
      late.hidden = true;
    } catch (error) {
      const seconds = Math.round((Date.now() - fresh) / 1000);
      late.textContent = `The worker does not answer; what you see is ${seconds} s old (${error.message}).`;
      late.hidden = false;
    }
  }

  if (tools) {
    tools.hidden = false;
    text.addEventListener('input', filter);
    attention.addEventListener('change', filter);
  }
  setInterval(refresh, EVERY);
  document.addEventListener('visibilitychange', refresh);
})();
