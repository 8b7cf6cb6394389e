// What is shown, and what is done? Facts come as server-sent events over fetch, which can carry the token; actions go to
// the admin API, each after a question. Rows are patched, never built anew, and only those that are on the screen.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const TOKEN = "portcullis-token";
  const kept = {
    get: () => { try { return sessionStorage.getItem(TOKEN); } catch { return null; } },
    set: (token) => { try { sessionStorage.setItem(TOKEN, token); } catch { /* for this page only */ } },
    clear: () => { try { sessionStorage.removeItem(TOKEN); } catch { /* it was never kept */ } },
  };
  let token = kept.get();
  let status = null;
  let received = 0, heard = 0, skew = 0;
  const rows = new Map(), sections = new Map();
  const filter = { text: "", state: null };
  let sort = "file", shown_changes = 12, order_due = 0, latest_change = 0, has_announced = false, open_key = null, frame = 0, focused = null;

  const now = () => Date.now() + skew;
  const key_of = (upstream, backend) => `${upstream}\n${backend}`;
  const path_of = (row, what = "") => `/upstreams/${encodeURIComponent(row.upstream)}/backends/${encodeURIComponent(row.data.name)}${what}`;

  // ---- asking

  const headers = (more = {}) => token ? { ...more, Authorization: `Bearer ${token}` } : more;

  async function ask(method, path, body) {
    const options = { method, headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }) };
    if (body !== undefined) options.body = JSON.stringify(body);
    const answer = await fetch(path, options);
    if (answer.status === 401) { log_in("The token is not the right one any more."); throw new Error("the token is missing or wrong"); }
    const text = await answer.text();
    if (answer.ok) return (answer.headers.get("Content-Type") ?? "").includes("json") ? JSON.parse(text) : text;
    let problem = {};
    try { problem = JSON.parse(text); } catch { /* not ours */ }
    const error = new Error(problem.detail ? `${problem.detail}. ${problem.help ?? ""}` : `${answer.status} ${answer.statusText}`);
    error.problem = problem;
    throw error;
  }

  async function listen() {
    for (let pause = 1000; ; pause = Math.min(pause * 1.7, 10000)) {
      const stop = new AbortController();
      // A second passes between two events; many without one mean that nobody is there any more.
      const watchdog = setInterval(() => { if (Date.now() - heard > 20000) stop.abort(); }, 2000);
      heard = Date.now();
      try {
        const answer = await fetch("/events", { headers: headers({ Accept: "text/event-stream" }), signal: stop.signal });
        if (answer.status === 401) {
          await log_in(token ? "This is not the right token." : "");
          pause = 600;
          continue;
        }
        if (answer.status === 503) throw new Error("too many pages are open");
        if (!answer.ok) throw new Error(`the front door says ${answer.status}`);
        if (token) kept.set(token);
        await read(answer.body, () => { pause = 1000; });
        live(false, "the connection ended, trying again");
      } catch (error) {
        live(false, `${error.name === "TypeError" || error.name === "AbortError" ? "no connection" : error.message}, trying again`);
      } finally {
        clearInterval(watchdog);
      }
      await new Promise((done) => setTimeout(done, pause));
    }
  }

  async function read(body, on_event) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let pending = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard = Date.now();
      pending += value;
      if (!value.includes("\n")) continue;
      const events = pending.split("\n\n");
      pending = events.pop();
      for (const event of events) {
        const lines = event.split("\n");
        const kind = lines.find((line) => line.startsWith("event: "))?.slice(7);
        const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
        if (!kind) continue;
        on_event();
        if (kind === "state") take_all(JSON.parse(data));
        else take_change(JSON.parse(data));
      }
    }
  }

  function live(is, words) {
    $("live").dataset.live = is ? "yes" : "no";
    document.body.dataset.stale = is || !status ? "no" : "yes";
    put($("live"), words);
  }

  // ---- taking over what was said

  function take_all(next) {
    status = next;
    skew = Date.parse(next.now) - Date.now();
    received += 1;
    const wanted = new Set(), present = new Set();
    for (const upstream of next.upstreams) {
      present.add(upstream.name);
      if (!sections.has(upstream.name)) sections.set(upstream.name, new Section(upstream.name));
      for (const backend of upstream.backends) {
        const key = key_of(upstream.name, backend.name);
        wanted.add(key);
        let row = rows.get(key);
        if (!row) {
          row = new Row(key, upstream.name);
          rows.set(key, row);
          watcher.observe(row.node);
        }
        row.take(backend);
      }
    }
    for (const [key, row] of rows) if (!wanted.has(key)) { watcher.unobserve(row.node); row.node.remove(); rows.delete(key); }
    for (const [name, section] of sections) if (!present.has(name)) { section.node.remove(); sections.delete(name); }
    $("main").hidden = false;
    after();
    arrange();
  }

  function take_change(change) {
    if (!status) return;
    const { upstreams = [], ...rest } = change;
    Object.assign(status, rest);
    if (rest.now) skew = Date.parse(rest.now) - Date.now();
    received += 1;
    const by_name = new Map(status.upstreams.map((upstream) => [upstream.name, upstream]));
    let moved = false;
    for (const { name, backends = [], ...facts } of upstreams) {
      Object.assign(by_name.get(name) ?? {}, facts);
      for (const { name: backend, ...changed } of backends) {
        const row = rows.get(key_of(name, backend));
        if (!row) continue;
        moved ||= "state" in changed;
        Object.assign(row.data, changed);
      }
    }
    for (const row of rows.values()) row.tick();
    after();
    if (moved || (sort !== "file" && sort !== "name")) arrange_soon(moved);
  }

  function after() {
    live(true, "live");
    announce();
    if (!frame) frame = requestAnimationFrame(draw);
  }

  // ---- drawing

  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const row = rows.get(target.dataset.key);
      if (!row) continue;
      row.seen = isIntersecting;
      if (isIntersecting && row.dirty) row.draw(now());
    }
  }, { rootMargin: "300px 0px" });

  function draw() {
    frame = 0;
    if (!status) return;
    const moment = now();
    for (const row of rows.values()) if (row.seen && row.dirty) row.draw(moment);
    for (const upstream of status.upstreams) sections.get(upstream.name)?.draw(upstream);
    draw_totals(moment);
    draw_chips();
    draw_secondary(moment);
    if (open_key) draw_panel();
    document.body.dataset.received = received;
  }

  function draw_totals(moment) {
    const { totals, readiness, configuration } = status;
    put($("version"), status.version);
    $("readiness").dataset.ready = readiness.ready ? "yes" : "no";
    put($("readiness"), readiness.ready ? "Ready" : `Not ready: ${readiness.why}`);
    put($("t-rps"), rate(totals.requests_per_second));
    put($("t-errors"), rate(totals.errors_per_second));
    mark($("t-errors").parentNode, "bad", totals.errors_per_second > 0);
    put($("t-flight"), count(totals.in_flight));
    put($("t-connections"), count(totals.connections));
    put($("t-connections-most"), `of ${count(totals.max_connections)}`);
    const healthy = [...rows.values()].filter((row) => row.data.state === "HEALTHY").length;
    put($("t-healthy"), count(healthy));
    put($("t-backends"), `of ${count(rows.size)}`);
    const hits = status.cache?.hit_ratio;
    put($("t-cache"), hits === null || hits === undefined ? "–" : (hits * 100).toFixed(hits < 0.1 ? 1 : 0));
    put($("t-cache-unit"), hits === null || hits === undefined ? "" : "%");
    put($("t-uptime"), span((moment - Date.parse(status.started)) / 1000));
    $("trouble").hidden = !configuration.problem;
    put($("trouble"), configuration.problem ? `The last reload changed nothing: ${configuration.problem}` : "");
    const differs = configuration.differences;
    $("differences-button").hidden = differs === 0;
    put($("differences-button"), `${differs} change${differs === 1 ? "" : "s"} beside the file`);
    const title = `${healthy < rows.size ? `(${rows.size - healthy}) ` : ""}Portcullis`;
    if (document.title !== title) document.title = title;
  }

  const chips = new Map();
  function draw_chips() {
    const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
    for (const row of rows.values()) counts[row.data.state] += 1;
    for (const state of STATES) {
      let chip = chips.get(state);
      if (!chip) {
        chip = make("button");
        chip.type = "button";
        chip.append(word(state), make("b"));
        chip.addEventListener("click", () => { filter.state = filter.state === state ? null : state; arrange(); draw_chips(); });
        chips.set(state, chip);
        $("states").append(chip);
      }
      put(chip.lastChild, count(counts[state]));
      chip.hidden = counts[state] === 0 && filter.state !== state;
      chip.setAttribute("aria-pressed", String(filter.state === state));
    }
  }

  // Lists of the right column are short and change seldom: they are built anew when their text is another.
  const texts = new Map();
  function list(id, items, none) {
    const said = JSON.stringify(items);
    if (texts.get(id) === said) return;
    texts.set(id, said);
    $(id).replaceChildren(...(items.length ? items : [[none, "", "none"]]).map(([left, right, kind, below]) => {
      const item = make("li"), first = make("span", kind === "none" ? "none" : ""), second = make("span", kind === "none" ? "" : kind ?? "");
      put(first, left);
      put(second, right);
      if (below) { first.append(make("br"), make("span", "muted", below)); }
      item.append(first, second);
      return item;
    }));
  }

  function draw_secondary(moment) {
    const days = (left) => left < 0 ? "expired" : left === 0 ? "today" : `${left} day${left === 1 ? "" : "s"} left`;
    list("certificates", status.certificates.map((it) => {
      const kind = it.days_left < 3 ? "failing" : it.days_left < 15 ? "low" : "";
      return [it.names.slice(0, 3).join(", ") + (it.names.length > 3 ? ` and ${it.names.length - 3} more` : ""), days(it.days_left), kind, `${it.listener}, until ${it.expires.slice(0, 10)}`];
    }), "No listener speaks TLS.");
    $("cache-card").hidden = !status.cache;
    if (status.cache) {
      const it = status.cache;
      list("cache", [
        ["Answered from it", count(it.hits)], ["Answered by backends", count(it.misses)], ["Stored", `${count(it.objects)} object${it.objects === 1 ? "" : "s"}`],
        ["Memory", `${size(it.bytes)} of ${size(it.size)}`],
        ...(it.disk ? [
          ["Disk", `${size(it.disk.bytes)} of ${size(it.disk.size)}`], ["Found on disk", `${count(it.disk.hits)} of ${count(it.disk.hits + it.disk.misses)}`],
          ["Written to disk", count(it.disk.stored), it.disk.dropped ? "low" : "", it.disk.dropped ? `${count(it.disk.dropped)} were not: it was behind` : ""],
        ] : []),
      ], "");
    }
    $("limits-card").hidden = status.limits.length === 0;
    list("limits", status.limits.map((it) => [it.route, it.rate, "", `${it.key.replaceAll("_", " ")}, burst ${count(it.burst)}${it.dry_run ? ", dry run" : ""}; ${it.refused ? `${count(it.refused)} refused` : "nobody refused"}`]), "");
    const refused = Object.entries(status.refused).filter(([, times]) => times > 0);
    $("refused-card").hidden = refused.length === 0;
    list("refused", refused.map(([label, times]) => [label.replaceAll("_", " "), count(times)]), "");
    const { configuration } = status;
    list("configuration", [
      ["In effect since", `${configuration.since.slice(0, 10)} ${clock(configuration.since)}`],
      ["Hash", configuration.hash],
      ["Beside the file", configuration.differences === 0 ? "nothing" : `${configuration.differences} change${configuration.differences === 1 ? "" : "s"}`],
    ], "");
    draw_changes($("changes"), status.changes.slice(0, shown_changes), true);
    $("more-changes").hidden = status.changes.length <= shown_changes;
  }

  function draw_changes(node, changes, with_names) {
    const said = changes.map((it) => it.id).join() || "none";
    if (node.dataset.said === said) return;
    node.dataset.said = said;
    if (!changes.length) { node.replaceChildren(make("li", "muted", "Nothing has changed yet.")); node.firstChild.style.display = "block"; return; }
    node.replaceChildren(...changes.map((it) => {
      const item = make("li"), time = make("time", "", clock(it.at)), what = make("div");
      time.dateTime = it.at;
      time.title = it.at;
      if (with_names && it.backend) what.append(make("span", "name", `${it.upstream} / ${it.backend}`), make("br"));
      if (it.to) what.append(word(it.to), make("span", "why", `  ${it.what}`));
      else what.append(make("span", "why", it.what));
      item.append(time, what);
      return item;
    }));
  }

  function announce() {
    const fresh = status.changes.filter((it) => it.id > latest_change && it.kind === "state");
    const first = !has_announced;
    has_announced = true;
    latest_change = Math.max(latest_change, ...status.changes.map((it) => it.id), 0);
    if (first || !fresh.length) return;
    const told = fresh.slice(0, 3).map((it) => `${it.upstream}: ${it.backend} is ${it.to}`);
    if (fresh.length > 3) told.push(`and ${fresh.length - 3} more`);
    put($("announcer"), told.join("; "));
  }

  // ---- filtering and sorting

  const matches = (row) => (!filter.state || row.data.state === filter.state)
    && (!filter.text || `${row.upstream} ${row.data.name} ${row.data.state} ${row.data.last_error?.what ?? ""}`.toLowerCase().includes(filter.text));

  function sorted(list) {
    const by_name = (a, b) => a.data.name.localeCompare(b.data.name, "en", { numeric: true });
    if (sort === "file") return list;
    if (sort === "name") return list.toSorted(by_name);
    if (sort === "state") return list.toSorted((a, b) => STATES.indexOf(a.data.state) - STATES.indexOf(b.data.state) || by_name(a, b));
    return list.toSorted((a, b) => (b.data[sort] ?? -1) - (a.data[sort] ?? -1) || by_name(a, b));
  }

  // Rows that jump while somebody points at one would be hit by mistake.
  function arrange_soon(moved) {
    const busy = document.querySelector("tbody tr:hover") || document.activeElement?.closest?.("tbody");
    if (busy && !(moved && filter.state)) return;
    if (Date.now() < order_due && !moved) return;
    arrange();
  }

  function arrange() {
    order_due = Date.now() + 3000;
    const container = $("upstreams");
    const active = document.activeElement?.closest?.("tbody tr")?.dataset.key ?? null;
    let visible = 0;
    status.upstreams.forEach((upstream, index) => {
      const section = sections.get(upstream.name);
      const list = sorted(upstream.backends.map((backend) => rows.get(key_of(upstream.name, backend.name))).filter((row) => row && matches(row)));
      visible += list.length;
      const present = section.body.children;
      if (present.length !== list.length || list.some((row, place) => present[place] !== row.node)) section.body.replaceChildren(...list.map((row) => row.node));
      section.node.hidden = list.length === 0 && Boolean(filter.text || filter.state);
      if (container.children[index] !== section.node) container.insertBefore(section.node, container.children[index] ?? null);
    });
    const is_filtered = Boolean(filter.text || filter.state);
    $("count").hidden = !is_filtered || visible === 0;
    put($("count"), `${count(visible)} of ${count(rows.size)} backends`);
    $("nothing").hidden = visible > 0 || !is_filtered;
    if (active && rows.get(active)?.node.isConnected) rows.get(active).node.focus({ preventScroll: true });
    rove();
  }

  // One row of all can be reached with Tab; the arrows lead on from there.
  function rove(to) {
    const first = to ?? (focused && rows.get(focused)?.node.isConnected ? rows.get(focused).node : document.querySelector("tbody tr"));
    for (const row of document.querySelectorAll('tbody tr[tabindex="0"]')) if (row !== first) row.tabIndex = -1;
    if (first) { first.tabIndex = 0; focused = first.dataset.key; }
  }

  function step(by) {
    const list = [...document.querySelectorAll("tbody tr")].filter((row) => !row.closest("[hidden]"));
    if (!list.length) return;
    const at = list.indexOf(document.activeElement?.closest?.("tbody tr"));
    const next = list[at < 0 ? 0 : Math.min(list.length - 1, Math.max(0, at + by))];
    rove(next);
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  // ---- asking back, and doing

  function open(dialog) { if (!dialog.open) dialog.showModal(); }

  function log_in(error) {
    if (!$("login").open) { token = null; kept.clear(); $("token").value = ""; open($("login")); }
    put($("login-error"), error);
    return new Promise((done) => $("login").addEventListener("close", done, { once: true }));
  }

  function confirmed(title, text, yes) {
    put($("confirm-title"), title);
    put($("confirm-text"), text);
    put($("confirm-yes"), yes);
    $("confirm").returnValue = "no";
    open($("confirm"));
    $("confirm-yes").focus();
    return new Promise((done) => $("confirm").addEventListener("close", () => done($("confirm").returnValue === "yes"), { once: true }));
  }

  let toast_timer = 0;
  function toast(text) {
    put($("toast"), text);
    $("toast").hidden = false;
    clearTimeout(toast_timer);
    toast_timer = setTimeout(() => { $("toast").hidden = true; }, 6000);
  }

  async function doing(what) {
    try { toast(await what()); } catch (error) { toast(`Not done: ${error.message}`); }
  }

  async function drain(row) {
    const drained = row.data.state === "DRAINING";
    const others = [...rows.values()].filter((it) => it.upstream === row.upstream && it !== row && it.data.state === "HEALTHY").length;
    const left = others === 0 ? "Nobody else of this upstream is healthy." : `${count(others)} other${others === 1 ? " stays" : "s stay"} healthy.`;
    const text = drained ? "It takes requests again." : `It takes nothing new, and finishes ${count(row.data.in_flight)} in flight. ${left}`;
    if (!await confirmed(`${drained ? "Undrain" : "Drain"} ${row.data.name}?`, text, drained ? "Undrain" : "Drain")) return;
    await doing(async () => {
      await ask("POST", path_of(row, drained ? "/undrain" : "/drain"));
      return `${row.data.name} ${drained ? "takes requests again" : "drains"}`;
    });
  }

  async function weigh(row, weight) {
    if (!await confirmed(`Weight ${weight} for ${row.data.name}?`, weight === 0 ? "With a weight of 0 it takes nothing new." : `It was ${row.data.weight}.`, "Set weight")) return;
    await doing(async () => {
      await ask("PUT", path_of(row, "/weight"), { weight });
      return `${row.data.name} has the weight ${weight}`;
    });
  }

  async function reload() {
    if (!await confirmed("Reload the configuration?", "The file is read again. If it has problems, nothing is changed.", "Reload")) return;
    try {
      const { changes, needs_restart, warnings } = await ask("POST", "/reload");
      const more = [needs_restart.length ? `a change of ${needs_restart.join(", ")} needs a restart` : "", warnings.length ? `${warnings.length} warnings, see the log` : ""];
      toast(["Reloaded", changes.length ? `${changes.length} change${changes.length === 1 ? "" : "s"}` : "the file says what it said before", ...more].filter(Boolean).join(": ").replace(": a ", "; a "));
    } catch (error) {
      put($("problems-text"), error.message);
      $("problems-list").replaceChildren(...(error.problem?.problems ?? []).map((it) => {
        const item = make("li");
        item.append(make("span", "name", `${it.file}:${it.line}:${it.column} ${it.key}`), make("br"), `${it.what}`, make("br"), make("span", "muted", it.help));
        return item;
      }));
      open($("problems"));
    }
  }

  // ---- the panel of one backend

  function open_panel(row) {
    open_key = row.key;
    $("panel-weight").value = row.data.weight;
    $("panel-changes").dataset.said = "";
    draw_panel();
    open($("panel"));
  }

  function draw_panel() {
    const row = rows.get(open_key);
    if (!row) { $("panel").close(); return; }
    const it = row.data, moment = now();
    put($("panel-title"), `${row.upstream} / ${it.name}`);
    const state = $("panel-state");
    if (state.dataset.said !== it.state + row.note_of(moment)) {
      state.dataset.said = it.state + row.note_of(moment);
      state.replaceChildren(word(it.state), make("span", "muted", `  ${row.note_of(moment)}`));
    }
    const highest = Math.max(...row.history.map((value) => value ?? 0), 0);
    const { line, area } = curve(row.history, 480, 95, highest);
    $("panel-chart").querySelector(".line").setAttribute("d", line);
    $("panel-chart").querySelector(".area").setAttribute("d", area);
    const text = highest ? `p95 of each second of the last minute, at most ${millis(highest)}` : "No answer within the last minute";
    put($("panel-chart-text"), text);
    $("panel-chart").setAttribute("aria-label", text);
    list("panel-facts", [
      ["Requests", `${rate(it.requests_per_second)}/s`], ["Errors", `${rate(it.errors_per_second)}/s`, it.errors_per_second > 0 ? "failing" : ""],
      ["Latency, last minute", `p50 ${millis(it.p50_ms)}, p95 ${millis(it.p95_ms)}`],
      ["In flight", it.max_in_flight === null ? count(it.in_flight) : `${count(it.in_flight)} of ${count(it.max_in_flight)}`],
      ["Weight and tier", `${it.weight}, tier ${it.tier}`],
      ["Named by", { file: "the file", discovery: "discovery", api: "an operator", gone: "nobody any more" }[it.source]],
      ["Last healthy", it.state === "HEALTHY" ? "now" : it.last_healthy ? ago(it.last_healthy, moment) : "never"],
      ...(it.quota ? [["Quota left", `${count(it.quota.left)} of ${it.quota.quota}`]] : []),
      ...(it.last_error ? [["Last error", ago(it.last_error.at, moment), "", it.last_error.what]] : []),
    ], "");
    draw_changes($("panel-changes"), status.changes.filter((change) => change.upstream === row.upstream && change.backend === it.name).slice(0, 6), false);
    const gone = it.source === "gone";
    put($("panel-drain"), it.state === "DRAINING" ? "Undrain…" : "Drain…");
    $("panel-drain").disabled = gone;
    $("panel-weight-form").hidden = gone;
  }

  // ---- wiring

  const row_at = (event) => rows.get(event.target.closest?.("tbody tr")?.dataset.key);

  $("upstreams").addEventListener("click", (event) => {
    const row = row_at(event);
    if (row && !getSelection().toString()) { rove(row.node); open_panel(row); }
  });
  $("upstreams").addEventListener("focusin", (event) => { const row = row_at(event); if (row) rove(row.node); });
  $("panel-close").addEventListener("click", () => $("panel").close());
  $("panel").addEventListener("close", () => { const row = rows.get(open_key); open_key = null; row?.node.focus({ preventScroll: true }); });
  $("panel-drain").addEventListener("click", () => { const row = rows.get(open_key); if (row) drain(row); });
  $("panel-weight-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const row = rows.get(open_key);
    if (row) weigh(row, Number($("panel-weight").value));
  });
  $("search").addEventListener("input", () => { filter.text = $("search").value.trim().toLowerCase(); if (status) arrange(); });
  $("sort").addEventListener("change", () => { sort = $("sort").value; if (status) arrange(); });
  const clear = () => { filter.text = ""; filter.state = null; $("search").value = ""; if (status) { arrange(); draw_chips(); } };
  $("clear-filter").addEventListener("click", clear);
  $("more-changes").addEventListener("click", () => { shown_changes = 1000; draw_secondary(now()); });
  $("reload-button").addEventListener("click", reload);
  const theme_word = () => put($("theme-button"), portcullisTheme.isDark() ? "Light" : "Dark");
  const switch_theme = () => { portcullisTheme.toggle(); theme_word(); };
  $("theme-button").addEventListener("click", switch_theme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme_word);
  $("help-button").addEventListener("click", () => open($("help")));
  $("logout-button").addEventListener("click", () => { kept.clear(); location.reload(); });
  $("login").addEventListener("cancel", (event) => event.preventDefault());
  $("login-form").addEventListener("submit", () => { token = $("token").value.trim(); $("logout-button").hidden = false; });
  $("differences-button").addEventListener("click", () => doing_quietly(async () => {
    put($("differences-yaml"), await ask("GET", "/config/differences?form=yaml"));
    open($("differences"));
  }));
  $("differences-close").addEventListener("click", () => $("differences").close());
  $("differences-copy").addEventListener("click", async () => {
    try { await navigator.clipboard.writeText($("differences-yaml").textContent); toast("Copied"); } catch { getSelection().selectAllChildren($("differences-yaml")); toast("Selected: copy it with Ctrl+C"); }
  });
  $("differences-undo").addEventListener("click", async () => {
    $("differences").close();
    if (!await confirmed("Undo all changes beside the file?", "The file alone counts again, from now on.", "Undo all")) return;
    await doing(async () => { await ask("DELETE", "/config/differences"); return "All is as the file says"; });
  });
  async function doing_quietly(what) { try { await what(); } catch (error) { toast(`Not done: ${error.message}`); } }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const typing = event.target.closest?.("input, select, textarea");
    if (event.key === "Escape") {
      if (typing || filter.text || filter.state) clear();
      if (typing) event.target.blur();
      return;
    }
    if (typing) return;
    const row = row_at(event);
    const actions = {
      "/": () => $("search").focus(), "?": () => open($("help")), t: switch_theme, r: reload,
      j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
      ...(row ? { Enter: () => open_panel(row), d: () => drain(row), w: () => { open_panel(row); $("panel-weight").select(); } } : {}),
    };
    const action = actions[event.key] ?? actions[event.key.toLowerCase()];
    // The arrows scroll the page unless a row has the focus.
    if (!action || (event.key.startsWith("Arrow") && !row)) return;
    event.preventDefault();
    action();
  });

  // Times go on between two events.
  setInterval(() => {
    if (!status || document.hidden) return;
    for (const row of rows.values()) if (row.data.state !== "HEALTHY") row.dirty = true;
    if (!frame) frame = requestAnimationFrame(draw);
  }, 5000);

  theme_word();
  $("logout-button").hidden = !token;
  listen();
})();
