// The keys of a page that is worked with the keyboard.
"use strict";

(function () {
    // Keys of a page: the handler gets them while the page is in view and no field outside of it has the focus.
    DSM.keys = (page, handler) => {
        window.addEventListener("keydown", (event) => {
            const target = event.target;
            if (!DSM.visible(page) || document.querySelector(".dsm-overlay")) return;
            if (target !== document.body && !page.contains(target)) return;
            const typing = target.matches("input:not([type=checkbox]):not([type=color]), textarea, select");
            if (typing && event.key !== "Escape") return;
            if (typing) target.blur();
            else if (handler(event) === false) return;
            event.preventDefault();
            event.stopImmediatePropagation();
        }, true);
    };
})();
