// What a reader has chosen: the theme, kept by the browser, and the text and the sliders, kept in the address, so that a link shows them.

const LONGEST = 2000; // characters of a text that an address holds

/** Let a select choose between light, dark and the system's colors; `onChange()` is called after each choice. */
export function chooseTheme(select, onChange) {
  const apply = () => {
    document.documentElement.dataset.theme = select.value;
    onChange();
  };
  select.value = stored("makegpt-theme") ?? "auto";
  document.documentElement.dataset.theme = select.value;
  select.addEventListener("change", () => {
    store("makegpt-theme", select.value);
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
}

/** The settings in the address, as URLSearchParams. */
export function readAddress() {
  return new URLSearchParams(location.hash.slice(1));
}

/** Put `entries`, pairs of name and value, into the address; a long text is left out. */
export function writeAddress(entries) {
  const fields = new URLSearchParams(entries.filter(([, value]) => value.length <= LONGEST));
  try {
    history.replaceState(null, "", `#${fields}`);
  } catch {
    // some browsers refuse it to a page that was opened from a file, or that asks too often
  }
}

// Some browsers refuse to store anything.
function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function store(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // the choice lasts until the page is loaded again
  }
}
