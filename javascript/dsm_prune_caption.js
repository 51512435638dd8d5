// Pruning, the right column: the caption of one picture as chips, or what the captions of several have in common.
"use strict";

(function () {
    const {h, post, attempt, empty, lightbox, thumbnail, plural} = DSM;
    const pruning = (DSM.pruning = DSM.pruning || {});
    const TOKENS = 75;

    pruning.caption = (app) => {
        const side = h("div", {class: "dsm-side", id: "dsm_prune_side"});
        const removed = new Map(); // path → tags that were removed here, to be restored
        let serial = 0;
        let dragged = null;
        let drawn = ""; // what is drawn, so that a look at what others did does not take the focus or a drag away

        function draw() {
            if (app.chosen().size > 1) { drawn = ""; return drawSeveral(); }
            serial++;
            const picture = app.current();
            const state = picture ? JSON.stringify([picture, removed.get(picture.path), picture.tags.filter((tag) => app.selected().has(tag))]) : "";
            if (state && state === drawn && !side.querySelector(".dsm-chip-edit")) return;
            drawn = state;
            const holder = document.activeElement;
            const held = holder && holder.parentNode && holder.parentNode.id === "dsm_prune_chips" ? [...holder.parentNode.children].indexOf(holder) : -1;
            if (!picture) return side.replaceChildren(empty("No picture", ""));
            if (picture.problem) return side.replaceChildren(h("b", {}, picture.name), DSM.line("warn", picture.problem));
            const field = side.querySelector("#dsm_prune_add");
            const focused = field && document.activeElement === field;
            const typed = focused ? field.value : "";
            const known = app.loaded().filter((item) => !item.problem);
            const views = known.map((item) => ({address: thumbnail(item.path, 2048, item.stamp), label: item.name}));
            const chips = h("div", {class: "dsm-chips", id: "dsm_prune_chips", role: "list"}, picture.tags.map((tag, index) => chip(picture, tag, index)));
            const ghosts = (removed.get(picture.path) || []).filter((tag) => !picture.tags.includes(tag));
            side.replaceChildren(
                h("img", {src: thumbnail(picture.path, 768, picture.stamp), alt: picture.name, title: "Enlarge", onclick: () => lightbox(views, known.indexOf(picture))}),
                h("div", {class: "dsm-subdued"}, `${picture.name}  ·  ${picture.width}×${picture.height}  ·  ${plural(picture.tags.length, "tag")}  ·  `,
                    h("span", {class: picture.tokens > TOKENS ? "dsm-warn-text" : ""}, plural(picture.tokens, "token"))),
                picture.note ? DSM.line("warn", picture.note) : "",
                chips,
                ghosts.length ? h("div", {class: "dsm-chips dsm-ghosts", title: "Removed here; click to restore"}, ghosts.map((tag) => h("button", {
                    class: "dsm-chip dsm-ghost", "aria-label": `Restore ${tag}`, onclick: () => write(picture, [...picture.tags, tag]),
                }, `${tag} ↺`))) : "",
                adder("Add tags to this picture", (text) => write(picture, [...picture.tags, ...text], true)));
            if (focused) { const again = side.querySelector("#dsm_prune_add"); again.value = app.writing() ? "" : typed; again.focus(); }
            if (held >= 0 && chips.children.length) chips.children[Math.min(held, chips.children.length - 1)].focus();
        }

        function adder(label, done) {
            const field = h("input", {class: "dsm-field", id: "dsm_prune_add", placeholder: label, "aria-label": label});
            return pruning.complete(field, app.folder, () => {
                const tags = pruning.tagsOf(field.value);
                if (tags.length) done(tags);
            });
        }

        function chip(picture, tag, index) {
            const move = (to) => {
                const tags = picture.tags.filter((_, other) => other !== index);
                tags.splice(Math.max(0, Math.min(tags.length, to)), 0, tag);
                return write(picture, tags, false, Math.max(0, Math.min(tags.length - 1, to)));
            };
            const item = h("span", {
                class: "dsm-chip" + (app.selected().has(tag) ? " dsm-on" : ""), draggable: "true", tabindex: "0", role: "listitem",
                title: "Drag to move; double-click to edit", "aria-label": tag,
            },
            h("span", {class: "dsm-chip-text"}, tag),
            h("button", {"aria-label": `Remove ${tag}`, title: "Remove from this picture", tabindex: "-1", onclick: (event) => { event.stopPropagation(); remove(picture, index); }}, "×"));
            item.addEventListener("mouseenter", () => app.light(tag));
            item.addEventListener("mouseleave", () => app.light(null));
            item.addEventListener("dblclick", () => edit(picture, item, tag, index));
            item.addEventListener("dragstart", (event) => { dragged = index; item.classList.add("dsm-dragged"); event.dataTransfer.effectAllowed = "move"; event.dataTransfer.setData("text/plain", tag); });
            item.addEventListener("dragend", () => { dragged = null; item.classList.remove("dsm-dragged"); });
            item.addEventListener("dragover", (event) => {
                if (dragged === null) return;
                event.preventDefault();
                const box = item.getBoundingClientRect();
                const after = event.clientX > box.left + box.width / 2;
                item.classList.toggle("dsm-drop-after", after);
                item.classList.toggle("dsm-drop-before", !after);
            });
            const clear = () => item.classList.remove("dsm-drop-after", "dsm-drop-before");
            item.addEventListener("dragleave", clear);
            item.addEventListener("drop", (event) => {
                event.preventDefault();
                const after = item.classList.contains("dsm-drop-after");
                clear();
                if (dragged === null) return;
                const tags = [...picture.tags];
                const [moved] = tags.splice(dragged, 1);
                tags.splice(index + (after ? 1 : 0) - (dragged < index ? 1 : 0), 0, moved);
                dragged = null;
                write(picture, tags);
            });
            item.addEventListener("keydown", (event) => {
                if (event.target !== item) return;
                const chips = [...item.parentNode.children];
                const modified = event.ctrlKey || event.altKey;
                if (modified && event.key === "ArrowLeft") move(index - 1);
                else if (modified && event.key === "ArrowRight") move(index + 1);
                else if (event.key === "ArrowLeft" && index) chips[index - 1].focus();
                else if (event.key === "ArrowRight" && index + 1 < chips.length) chips[index + 1].focus();
                else if (event.key === "Delete" || event.key === "Backspace") remove(picture, index, true);
                else if (event.key === "Enter" || event.key === "F2") edit(picture, item, tag, index);
                else return;
                event.preventDefault();
                event.stopPropagation();
            });
            return item;
        }

        function remove(picture, index, stay) {
            const kept = removed.get(picture.path) || [];
            removed.set(picture.path, [...kept.filter((tag) => tag !== picture.tags[index]), picture.tags[index]]);
            return write(picture, picture.tags.filter((_, other) => other !== index), false, stay ? Math.min(index, picture.tags.length - 2) : -1);
        }

        function edit(picture, item, tag, index) {
            const field = h("input", {class: "dsm-field dsm-chip-edit", "aria-label": `Edit ${tag}`});
            field.value = tag;
            let over = false;
            const end = (keep) => {
                if (over) return;
                over = true;
                const text = field.value.trim();
                if (keep && text && text !== tag) write(picture, picture.tags.flatMap((other, at) => (at === index ? [text] : [other])));
                else draw();
            };
            field.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.stopPropagation(); end(false); } }, true);
            const box = pruning.complete(field, app.folder, () => end(true));
            field.addEventListener("blur", () => end(true));
            item.draggable = false;
            item.replaceChildren(box);
            field.focus();
            field.select();
        }

        async function write(picture, tags, again, focus) {
            await app.write(picture, tags);
            if (again) { const field = side.querySelector("#dsm_prune_add"); if (field) field.focus(); }
            if (focus >= 0) { const item = side.querySelectorAll("#dsm_prune_chips .dsm-chip")[focus]; if (item) item.focus(); }
        }

        // ---- several pictures ----------------------------------------------------------------------------------------
        async function drawSeveral() {
            const mine = ++serial;
            const names = [...app.chosen()];
            const answer = await attempt(() => post("prune/common", {folder: app.folder(), pictures: names}));
            if (!answer || mine !== serial) return;
            const all = answer.tags.filter((item) => item.count === answer.pictures);
            const some = answer.tags.filter((item) => item.count < answer.pictures);
            const act = (options) => app.edit({...options, pictures: names});
            const one = (item, partial) => h("span", {class: "dsm-chip" + (partial ? " dsm-partial" : "")},
                h("span", {title: "Show only pictures with this tag", onclick: () => app.filter(item.tag, "with")}, item.tag),
                partial ? h("span", {class: "dsm-subdued"}, ` ${item.count}`) : null,
                partial ? h("button", {"aria-label": `Add ${item.tag} to all of them`, title: "Add to all of them", onclick: () => act({add: [item.tag]})}, "+") : null,
                h("button", {"aria-label": `Remove ${item.tag} from all of them`, title: "Remove from all of them", onclick: () => act({remove: [app.literal(item.tag)]})}, "×"));
            side.replaceChildren(
                h("div", {class: "dsm-toolbar"}, h("b", {}, `${plural(names.length, "picture")} selected`), h("span", {class: "dsm-spring"}),
                    h("button", {class: "dsm-button dsm-small", id: "dsm_prune_take_out", onclick: app.takeOut}, "Take out of the set…"),
                    h("button", {class: "dsm-button dsm-small", title: "Esc", onclick: app.clearPictures}, "Clear")),
                h("div", {class: "dsm-caption"}, `All of them have`),
                h("div", {class: "dsm-chips", id: "dsm_prune_common"}, all.length ? all.map((item) => one(item, false)) : h("span", {class: "dsm-subdued"}, "no tag in common")),
                h("div", {class: "dsm-caption"}, `Some of them have`),
                h("div", {class: "dsm-chips", id: "dsm_prune_partial"}, some.slice(0, 120).map((item) => one(item, true)), some.length > 120 ? h("span", {class: "dsm-subdued"}, `and ${some.length - 120} more`) : null),
                adder(`Add tags to these ${names.length}`, (tags) => act({add: tags})));
        }

        return {element: side, draw};
    };
})();
