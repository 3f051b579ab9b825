// Which letter does what on the Review page, as one reviewer chose it in this browser. An action is named by the letter
// that it has until somebody changes it.
(function () {
  "use strict";
  const RESERVED = ["g", "x"]; // the shell's own; digits are labels

  window.whetKeyMap = (user, actions) => {
    const storage = "whet.keys." + user;
    let chosen = {}; // action → letter, where they differ
    try { chosen = JSON.parse(localStorage.getItem(storage)) || {}; } catch (error) { /* storage is off: the letters stay */ }
    const letterOf = (action) => chosen[action] || action;
    const actionOf = (letter) => actions.find((action) => letterOf(action) === letter);

    function keep(found) {
      chosen = found;
      try { localStorage.setItem(storage, JSON.stringify(chosen)); } catch (error) { /* they hold for this page */ }
    }

    // Returns a sentence where the letter cannot be taken. An action that has the letter gets the other one's.
    function choose(action, letter) {
      if (!/^[a-z]$/.test(letter)) return "Expected one letter from a to z.";
      if (RESERVED.includes(letter)) return "The key " + letter + " has a meaning on every page. Take another one.";
      const other = actionOf(letter);
      const found = { ...chosen, [action]: letter };
      if (other && other !== action) found[other] = letterOf(action);
      keep(found);
      return "";
    }

    // Shows the letters that count now; what the page was written with is remembered on each.
    function label(root) {
      for (const key of root.querySelectorAll("kbd")) {
        const action = key.dataset.action || key.textContent;
        const afterGo = key.previousElementSibling?.textContent === "g"; // `g r` goes to another page
        if (!actions.includes(action) || afterGo) continue;
        key.dataset.action = action;
        key.textContent = letterOf(action);
      }
    }

    return { actionOf, letterOf, choose, label, reset: () => keep({}) };
  };
})();
