/* Sets the chosen theme before the first paint. A classic script, so that it blocks rendering. */
(function () {
  try {
    const theme = localStorage.getItem("tailor.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // storage is closed in some private windows; the system's theme then holds
  }
})();
