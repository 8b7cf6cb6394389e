// Which theme? Set before the first paint, so that nothing flashes. Without a choice the browser's wish counts.
"use strict";
(() => {
  const KEY = "portcullis-theme";
  const read = () => {
    try { return localStorage.getItem(KEY); } catch { return null; }
  };
  const set = (theme) => {
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  set(read());
  window.portcullisTheme = {
    isDark: () => document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches,
    toggle() {
      const next = this.isDark() ? "light" : "dark";
      set(next);
      try { localStorage.setItem(KEY, next); } catch { /* a browser that keeps nothing: for this page only */ }
      return next;
    },
  };
})();
