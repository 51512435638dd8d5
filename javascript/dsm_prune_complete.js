// Completion of tags as they are typed: the set's own first, then those of lists with their aliases.
"use strict";

(function () {
    const {h, get} = DSM;
    const pruning = (DSM.pruning = DSM.pruning || {});

    // Tags as they are typed, between commas that are not escaped.
    pruning.tagsOf = (text) => text.split(/(?<!\\),/).map((tag) => tag.trim()).filter(Boolean);

    // Gives a field a list of suggestions for what stands after its last comma. `folder()` is asked; `done()` follows a
    // plain Enter.
    pruning.complete = (field, folder, done) => {
        const list = h("div", {class: "dsm-complete", role: "listbox", hidden: true});
        const box = h("div", {class: "dsm-complete-box"}, field, list);
        let items = [];
        let at = -1;
        let serial = 0;

        const word = () => field.value.slice(field.value.lastIndexOf(",") + 1).trim();
        const hide = () => { list.hidden = true; at = -1; };

        function take(item) {
            const head = field.value.slice(0, field.value.lastIndexOf(",") + 1);
            field.value = `${head}${head ? " " : ""}${item.tag}`;
            hide();
        }

        function draw() {
            list.replaceChildren(...items.map((item, index) => h("div", {
                class: "dsm-complete-item" + (index === at ? " dsm-current" : ""), role: "option",
                onmousedown: (event) => { event.preventDefault(); take(item); field.focus(); },
            }, h("span", {}, item.alias ? `${item.alias} → ${item.tag}` : item.tag),
            h("span", {class: "dsm-subdued"}, item.count ? `${item.count} here` : item.known ? short(item.known) : ""))));
            list.hidden = !items.length;
        }

        async function ask() {
            const mine = ++serial;
            const text = word();
            if (!text) return hide();
            const answer = await get("prune/complete", {folder: folder(), text}).catch(() => null);
            if (!answer || mine !== serial || document.activeElement !== field) return;
            items = answer.tags;
            at = -1;
            draw();
        }

        field.setAttribute("autocomplete", "off");
        field.addEventListener("input", ask);
        field.addEventListener("blur", () => setTimeout(hide, 100));
        field.addEventListener("keydown", (event) => {
            const open = !list.hidden && items.length;
            if (open && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
                at = (at + (event.key === "ArrowDown" ? 1 : -1) + items.length + 1) % (items.length + 1);
                if (at === items.length) at = -1;
                draw();
            } else if (open && event.key === "Tab" && !event.shiftKey) take(items[Math.max(0, at)]);
            else if (open && event.key === "Escape") hide();
            else if (event.key === "Enter") {
                if (open && at >= 0) take(items[at]);
                else { serial++; hide(); done(); }
            } else return;
            event.preventDefault();
            event.stopPropagation();
        });
        return box;
    };

    const short = (count) => (count >= 1e6 ? `${(count / 1e6).toFixed(1)}M` : count >= 1e3 ? `${Math.round(count / 1e3)}k` : String(count));
})();
