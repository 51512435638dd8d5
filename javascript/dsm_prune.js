// Pruning: tags with counts on the left, pictures in the middle, the caption of one picture or of several on the right.
"use strict";

(function () {
    const {h, get, post, call, attempt, empty, thumbnail, plural, toast} = DSM;
    const pruning = (DSM.pruning = DSM.pruning || {});
    const CHUNK = 100; // pictures that are asked for at once
    const WATCH = 3000; // milliseconds between looks at what others did
    const ROW = 28; // pixels of a tag
    const KINDS = ["hair", "eyes", "body", "clothes", "expression", "pose", "camera", "background", "count", "meta", "other"];
    const KEYS = [
        ["/", "search the tags"],
        ["q", "write a filter"],
        ["↑ ↓", "move through the tags"],
        ["x", "select the tag, or take the selection back"],
        ["f", "show only pictures with the tag; once more: without it; once more: all"],
        ["Shift+F", "show only pictures without the tag"],
        ["g", "group the tags by kind, or not"],
        ["k", "change the tag's kind"],
        ["c", "prune the character: proposals with reasons"],
        ["e", "edit captions: replace, add, merge, sort …"],
        ["Delete", "remove the selected tags from the pictures selected, or else from those shown"],
        ["← →", "the picture before, the picture after"],
        ["Space", "select the picture, or take it back"],
        ["Ctrl+A", "select all pictures shown"],
        ["Enter", "enlarge the picture"],
        ["a", "add tags to the picture, or to those selected"],
        ["t", "to the picture's tags: ← → go, Ctrl+← → move, Enter edits, Delete removes"],
        ["m", "take the pictures out of the set"],
        ["PgUp PgDn", "turn the page"],
        ["Home End", "the first picture, the last one"],
        ["u Ctrl+Z", "undo"],
        ["r Ctrl+Y", "redo"],
        ["h", "history: everything that was done"],
        ["Esc", "leave a field, then clear the selections, then the filter"],
        ["?", "this list"],
    ];
    const HELP = [
        ["click", "a tag: only its pictures"], ["Shift click", "a tag: without its pictures"], ["Ctrl click", "a tag or a picture: select it"],
        ["Shift click", "a picture: select from the one before"],
    ];

    const quoted = (tag) => `"${tag.replace(/"/g, '\\"')}"`;
    const literal = (tag) => tag.replace(/[*?]/g, "\\$&"); // wildcards of a pattern
    const main = (kind) => kind.split("/")[0];

    DSM.widgets.prune = (place) => {
        let tags = [];
        let [total, captions] = [0, 0];
        let revision = "";
        let seen = 0; // the program's time of the last look
        let chunks = new Map(); // number → its pictures, or null while they are on their way
        let currentIndex = 0; // place of the picture on the right
        let currentPath = null;
        let cursor = null; // the tag that the keys act on
        let lit = null; // the tag whose pictures light up
        let rows = []; // what the list of tags shows: tags and headings
        let together = null; // {tag, counts} for the order by co-occurrence
        let anchor = 0; // where a selection of pictures with Shift begins
        const selected = new Set(); // tags
        const chosen = new Set(); // pictures, by name
        const folded = new Set(); // kinds whose tags are hidden
        const filters = new Map(); // tag → "with" or "without"
        let serial = 0;
        let grouped = localStorage.getItem("dsm.prune.grouped") !== "no";

        // ---- elements ----------------------------------------------------------------------------------------------
        const folderName = h("b", {});
        const query = h("input", {class: "dsm-field", id: "dsm_prune_query", placeholder: "Filter: hat AND NOT outdoors, tokens > 75  (q)", "aria-label": "Filter", title: "AND OR NOT ( ) * ? \"as it is\"  ·  tags > 30  tokens > 75  width < 512  height  pixels  ratio  count(* hair) > 1  ·  name:*.png  is:missing  is:empty  is:repeated  is:foreign", onchange: () => load(true)});
        const queryError = h("div", {class: "dsm-query-error", id: "dsm_prune_query_error", role: "alert", hidden: true});
        const filterChips = h("span", {class: "dsm-chips"});
        const button = (id, title, act, ...label) => h("button", {class: "dsm-button", id, title, onclick: act}, ...label);
        const undoButton = button("dsm_prune_undo", "u", () => turn("undo"), "↶ Undo");
        const redoButton = button("dsm_prune_redo", "r", () => turn("redo"), "↷ Redo");
        const historyButton = button("dsm_prune_history", "Everything that was done (h)", () => pruning.history(app), "History");
        const fillSet = button("dsm_prune_fill_set", "", copyToSet, "Copy to SET");
        const help = h("button", {class: "dsm-button", id: "dsm_prune_keys", title: "Keys", "aria-label": "Keys", onclick: showKeys}, "?");
        const search = h("input", {class: "dsm-field", id: "dsm_prune_search", type: "search", placeholder: "Search tags  /", "aria-label": "Search tags", oninput: () => drawTags(true)});
        const sort = h("select", {class: "dsm-field", id: "dsm_prune_sort", "aria-label": "Sort tags", onchange: resort},
            [["count", "most used first"], ["rare", "rarest first"], ["name", "by alphabet"], ["unusual", "most unusual first"], ["together", "together with the tag"], ["long", "longest first"]].map(([value, text]) => h("option", {value}, text)));
        const groupButton = h("button", {class: "dsm-button", id: "dsm_prune_group", title: "Group by kind (g)", "aria-pressed": String(grouped), onclick: toggleGroups}, "Groups");
        const characterButton = h("button", {class: "dsm-button dsm-primary", id: "dsm_prune_character", title: "Propose the tags that describe the character (c)", onclick: () => pruning.character(app)}, "Prune the character…");
        const list = h("div", {class: "dsm-tags", id: "dsm_prune_tags", role: "listbox", "aria-label": "Tags", "aria-multiselectable": "true"});
        const thumbs = h("div", {class: "dsm-shelf", id: "dsm_prune_thumbs"});
        const foot = h("div", {class: "dsm-pager", id: "dsm_prune_total"});
        const said = h("span", {class: "dsm-subdued"});
        const removeAll = h("button", {class: "dsm-button", id: "dsm_prune_remove_all", onclick: () => remove(false)});
        const removeShown = h("button", {class: "dsm-button", id: "dsm_prune_remove_shown", onclick: () => remove(true)});
        const renameButton = button("dsm_prune_rename", "", () => pruning.editDialog(app, "replace", {old: [...selected].map(literal).join(", "), new: selected.size === 1 ? [...selected][0] : ""}), "Replace…");
        const editButton = button("dsm_prune_edit", "Replace, add, merge, sort … (e)", () => pruning.editDialog(app), "Edit…");
        const addField = h("input", {class: "dsm-field", id: "dsm_prune_add_all", placeholder: "Add tags to all shown", "aria-label": "Add tags to all shown"});
        const clear = button("", "Esc", () => { selected.clear(); drawTags(); side.draw(); drawAct(); }, "Clear");
        const act = h("div", {class: "dsm-prune-act", id: "dsm_prune_act"}, characterButton, said, removeAll, removeShown, renameButton, clear, h("span", {class: "dsm-spring"}), editButton, pruning.complete(addField, () => folder(), addToShown));

        const app = {
            folder: () => folder(), where: () => where(), literal, total: () => total, chosen: () => chosen, selected: () => selected,
            current: () => pictureAt(currentIndex), loaded: () => [...chunks.keys()].sort((a, b) => a - b).flatMap((key) => chunks.get(key) || []),
            light, edit, report, writing: () => writing > 0, write, takeOut, clearPictures, reload: () => load(), filter: (tag, how) => { filters.set(tag, how); load(true); },
        };
        const side = pruning.caption(app);
        const page = h("div", {class: "dsm-page dsm-page-prune", tabindex: "-1"},
            h("div", {class: "dsm-toolbar"}, h("span", {class: "dsm-subdued"}, "Captions in ", folderName), query, filterChips, undoButton, redoButton, historyButton, fillSet, help),
            queryError, act,
            h("div", {class: "dsm-prune"},
                h("div", {class: "dsm-column"}, search, h("div", {class: "dsm-toolbar dsm-nowrap"}, sort, groupButton), list),
                h("div", {class: "dsm-column"}, thumbs, foot),
                h("div", {class: "dsm-column"}, side.element)));

        const grid = DSM.virtual(thumbs, {gap: 8, columns: (width) => Math.floor((width + 8) / 132), height: (width) => width + 24, item: drawThumb, seen: want});
        const tagRows = DSM.virtual(list, {height: () => ROW, item: (index) => drawRow(rows[index])});

        const folder = () => DSM.state.project && DSM.state.project.tag;
        const where = () => [query.value.trim() && `(${query.value.trim()})`,
            ...[...filters].map(([tag, how]) => (how === "with" ? "" : "NOT ") + quoted(tag))].filter(Boolean).join(" AND ");
        const pictureAt = (index) => (chunks.get(Math.floor(index / CHUNK)) || [])[index % CHUNK];

        // ---- loading -----------------------------------------------------------------------------------------------
        // Everything anew; `top`: another set of pictures, seen from its beginning.
        async function load(top) {
            if (!folder()) return;
            const mine = ++serial;
            const filter = where();
            let answers;
            try {
                const first = top ? 0 : Math.floor(currentIndex / CHUNK);
                answers = await Promise.all([
                    get("tags", {folder: folder(), where: filter}), pictures(first, filter),
                    get("history", {project: DSM.state.project.path}), get("watch", {folder: folder()}), first,
                ]);
            } catch (error) {
                if (mine === serial) fault(error);
                return;
            }
            if (mine !== serial) return;
            queryError.hidden = true;
            const [counts, listing, acts, watched, first] = answers;
            tags = counts.tags;
            captions = counts.captions;
            [revision, seen] = [watched.revision, watched.now];
            const known = new Set(tags.map((item) => item.tag));
            for (const tag of [...selected]) if (!known.has(tag)) selected.delete(tag);
            total = listing.total;
            chunks = new Map([[first, listing.pictures]]);
            for (const text of acts.recovered) toast(text, "warn");
            undoButton.disabled = !acts.undo;
            redoButton.disabled = !acts.redo;
            const done = acts.acts.find((item) => item.state === "done");
            undoButton.title = done ? `Undo: ${done.title} (u)` : DSM.translated("Nothing to undo");
            folderName.textContent = folder().split(/[\\/]/).pop();
            fillSet.disabled = !captions;
            if (top) currentIndex = anchor = 0;
            const same = listing.pictures.findIndex((picture) => picture.path === currentPath);
            if (same >= 0) currentIndex = first * CHUNK + same;
            currentIndex = Math.max(0, Math.min(total - 1, currentIndex));
            currentPath = (pictureAt(currentIndex) || {path: null}).path;
            if (!page.isConnected) place.replaceChildren(page);
            if (sort.value === "together") await beside();
            drawFilters();
            drawTags();
            drawThumbs(top);
            side.draw();
            drawAct();
        }

        const pictures = (number, filter) => get("pictures", {folder: folder(), where: filter, page: number, size: CHUNK, brief: true});

        // A query that cannot be understood is shown with its place, and what was there stays.
        function fault(error) {
            const place = /at character (\d+) of "/.exec(error.problem || "");
            if (!place) return toast(error.message, "error");
            const typed = query.value.trim();
            const at = Math.max(0, Number(place[1]) - 2); // the bracket that where() puts before it
            queryError.replaceChildren(h("b", {}, error.problem.replace(/ at character .*/, "")), " ", error.remedy,
                h("pre", {}, `${typed}\n${" ".repeat(Math.min(at, typed.length))}▲`));
            queryError.hidden = false;
            query.focus();
            query.setSelectionRange(Math.min(at, query.value.length), query.value.length);
        }

        // The pictures that come into view, in chunks.
        async function want(first, end) {
            for (let number = Math.floor(first / CHUNK); number * CHUNK < Math.min(end, total); number++) {
                if (chunks.has(number)) continue;
                const mine = serial;
                chunks.set(number, null);
                pictures(number, where()).then((listing) => {
                    if (mine !== serial) return;
                    chunks.set(number, listing.pictures);
                    for (const index of [...grid.drawn.keys()]) if (Math.floor(index / CHUNK) === number) grid.replace(index);
                    if (Math.floor(currentIndex / CHUNK) === number) { currentPath = (pictureAt(currentIndex) || {path: null}).path; side.draw(); }
                }, (error) => { if (mine === serial) { chunks.delete(number); toast(error.message, "error"); } });
            }
        }

        // What other pages and other programs did.
        async function watch() {
            if (!folder() || !DSM.visible(page) || document.hidden || writing) return;
            const now = await get("watch", {folder: folder(), since: seen}).catch(() => null);
            if (!now || now.revision === revision) return;
            if (now.foreign.length) toast(`${plural(now.foreign.length, "caption")} changed by another program, read again: ${now.foreign.slice(0, 3).join(", ")}${now.foreign.length > 3 ? " …" : ""}`, "warn");
            if (document.activeElement && document.activeElement.classList.contains("dsm-chip-edit")) return;
            await load();
        }

        // ---- the tags ----------------------------------------------------------------------------------------------
        function shownTags() {
            const needle = search.value.trim().toLowerCase().replace(/_/g, " ");
            const found = needle ? tags.filter((item) => item.tag.toLowerCase().replace(/_/g, " ").includes(needle)) : [...tags];
            const unusual = (item) => Math.log((item.count / Math.max(1, captions) + 1e-4) / (item.elsewhere + 1e-4));
            const beside = (item) => (together ? (together.counts.get(item.tag) || 0) / item.count : 0);
            const orders = {
                rare: (a, b) => a.count - b.count, name: (a, b) => a.tag.localeCompare(b.tag), long: (a, b) => b.tag.length - a.tag.length,
                unusual: tags.some((item) => item.elsewhere) ? (a, b) => unusual(b) - unusual(a) : (a, b) => (b.kind === "other") - (a.kind === "other") || a.count - b.count,
                together: (a, b) => beside(b) - beside(a) || b.count - a.count,
            };
            return orders[sort.value] ? found.sort(orders[sort.value]) : found;
        }

        function drawTags(top) {
            const found = shownTags();
            const lost = !found.some((item) => item.tag === cursor);
            if (lost) cursor = found.length ? found[0].tag : null;
            if (!grouped) rows = found;
            else {
                rows = [];
                for (const kind of KINDS) {
                    const own = found.filter((item) => main(item.kind) === kind);
                    if (!own.length) continue;
                    rows.push({heading: kind, count: own.length, selected: own.filter((item) => selected.has(item.tag)).length, tags: own});
                    if (!folded.has(kind) || search.value.trim()) rows.push(...own);
                }
                if (lost) cursor = (rows.find((row) => row.tag) || {tag: null}).tag;
            }
            const scroll = list.scrollTop;
            if (rows.length) tagRows.show(rows.length);
            else {
                tagRows.show(0);
                rows = [{note: tags.length ? "No such tag" : "No tags yet. Tag the pictures first, on the tab before."}];
                tagRows.show(1);
            }
            list.scrollTop = top ? 0 : scroll;
            tagRows.draw();
        }

        function drawRow(item) {
            if (item.note) return h("div", {class: "dsm-subdued dsm-tag-note"}, item.note);
            if (item.heading) {
                const box = h("input", {type: "checkbox", tabindex: "-1", "aria-label": `Select all ${item.heading}`});
                box.checked = item.selected === item.count;
                box.indeterminate = item.selected > 0 && !box.checked;
                box.addEventListener("click", (event) => {
                    event.stopPropagation();
                    for (const own of item.tags) if (item.selected) selected.delete(own.tag); else selected.add(own.tag);
                    selectionChanged();
                });
                return h("div", {class: "dsm-tag dsm-tag-heading", onclick: () => { if (!folded.delete(item.heading)) folded.add(item.heading); drawTags(); }},
                    box, h("span", {class: "dsm-tag-name"}, `${folded.has(item.heading) ? "▸" : "▾"} ${item.heading}`), h("span", {class: "dsm-tag-count"}, item.count));
            }
            const box = h("input", {type: "checkbox", tabindex: "-1", "aria-label": `Select ${item.tag}`});
            box.checked = selected.has(item.tag);
            box.addEventListener("click", (event) => { event.stopPropagation(); cursor = item.tag; toggle(item.tag); });
            const how = filters.get(item.tag);
            const count = sort.value === "together" && together ? `${together.counts.get(item.tag) || 0} / ${item.count}` : where() ? `${item.filtered} / ${item.count}` : item.count;
            const row = h("div", {
                class: "dsm-tag" + (item.tag === cursor ? " dsm-current" : "") + (how ? ` dsm-filtered dsm-${how}` : ""),
                role: "option", "aria-selected": String(box.checked), title: `${item.tag} (${item.kind}): click for its pictures alone, Shift+click for those without it`,
                onclick: (event) => {
                    cursor = item.tag;
                    if (event.ctrlKey || event.metaKey) toggle(item.tag);
                    else filterBy(item.tag, event.shiftKey ? "without" : "with");
                },
                onmouseenter: () => light(item.tag), onmouseleave: () => light(null),
            }, box, h("span", {class: "dsm-tag-name"}, item.tag), h("span", {class: "dsm-tag-count"}, count),
            h("span", {class: "dsm-tag-share", style: `width: ${(100 * item.count) / Math.max(1, captions)}%`}));
            row.dataset.tag = item.tag;
            return row;
        }

        function selectionChanged() {
            drawTags();
            side.draw();
            drawAct();
        }

        function toggle(tag) {
            if (!selected.delete(tag)) selected.add(tag);
            selectionChanged();
        }

        function filterBy(tag, how) {
            if (filters.get(tag) === how) filters.delete(tag);
            else filters.set(tag, how);
            load(true);
        }

        function cycleFilter(tag) {
            const now = filters.get(tag);
            if (!now) filters.set(tag, "with");
            else if (now === "with") filters.set(tag, "without");
            else filters.delete(tag);
            load(true);
        }

        async function beside() {
            const tag = cursor || (tags[0] && tags[0].tag);
            if (!tag) return;
            const answer = await attempt(() => post("prune/common", {folder: folder(), where: quoted(tag)}));
            if (answer) together = {tag, counts: new Map(answer.tags.map((item) => [item.tag, item.count]))};
        }

        async function resort() {
            if (sort.value === "together") {
                await beside();
                if (together) toast(`Sorted by how often a tag comes together with “${together.tag}”.`);
            }
            drawTags(true);
        }

        function toggleGroups() {
            grouped = !grouped;
            localStorage.setItem("dsm.prune.grouped", grouped ? "yes" : "no");
            groupButton.setAttribute("aria-pressed", String(grouped));
            groupButton.classList.toggle("dsm-on", grouped);
            drawTags();
        }
        groupButton.classList.toggle("dsm-on", grouped);

        async function changeKind() {
            const item = tags.find((other) => other.tag === cursor);
            if (!item) return;
            const select = h("select", {class: "dsm-field"}, [...KINDS, "clothes/accessory", "clothes/state", "hair/state", "eyes/state", "body/state", "body/nudity"].map((kind) => h("option", {value: kind}, kind)));
            select.value = item.kind;
            const answer = DSM.confirm(`What kind of tag is “${item.tag}”?`, h("div", {class: "dsm-form"}, select, h("p", {class: "dsm-subdued"}, "Kept in your own table, for all projects.")), "Keep");
            select.focus();
            if (await answer && select.value !== item.kind && await attempt(() => call("PUT", "prune/kinds", {tag: item.tag, kind: select.value}))) load();
        }

        function drawFilters() {
            filterChips.replaceChildren(...[...filters].map(([tag, how]) => h("span", {class: "dsm-chip dsm-on"},
                h("span", {onclick: () => cycleFilter(tag)}, how === "with" ? tag : `not ${tag}`),
                h("button", {"aria-label": `Do not filter by ${tag}`, onclick: () => { filters.delete(tag); load(true); }}, "×"))));
        }

        // ---- the pictures ------------------------------------------------------------------------------------------
        function drawThumbs(top) {
            if (top) thumbs.scrollTop = 0;
            thumbs.classList.toggle("dsm-nothing", !total);
            grid.show(total);
            const shown = where() ? `${plural(total, "picture")} shown` : plural(total, "picture");
            foot.replaceChildren(h("span", {}, shown), chosen.size ? h("span", {}, `${chosen.size} selected`) : "");
            if (!total) foot.replaceChildren(h("span", {}, "No picture matches. Take a filter away with Esc."));
        }

        function drawThumb(index) {
            const picture = pictureAt(index);
            if (!picture) return h("div", {class: "dsm-thumb dsm-waiting"});
            const item = h("button", {
                class: "dsm-thumb" + (index === currentIndex ? " dsm-current" : "") + (chosen.has(picture.name) ? " dsm-chosen" : "") + (lit && picture.tags.includes(lit) ? " dsm-lit" : ""),
                tabindex: "-1", title: `${picture.name}\n${picture.text || ""}`, onclick: (event) => click(event, index),
            },
            picture.problem ? empty("✕", "cannot be read") : h("img", {src: thumbnail(picture.path, 256, picture.stamp), alt: picture.name, loading: "lazy", draggable: "false"}),
            h("span", {class: "dsm-badge" + (picture.captioned ? "" : " dsm-bad")}, picture.captioned ? picture.tags.length : "no caption"),
            h("span", {class: "dsm-thumb-name"}, picture.name));
            item.dataset.path = picture.path;
            return item;
        }

        function light(tag) {
            lit = tag;
            thumbs.classList.toggle("dsm-lighting", Boolean(tag));
            for (const [index, element] of grid.drawn) {
                const picture = pictureAt(index);
                element.classList.toggle("dsm-lit", Boolean(tag && picture && picture.tags.includes(tag)));
            }
        }

        async function click(event, index) {
            const picture = pictureAt(index);
            if (event.shiftKey) {
                const [first, last] = [Math.min(anchor, index), Math.max(anchor, index)];
                const answer = await attempt(() => get("pictures/names", {folder: folder(), where: where(), first, last}));
                if (answer) for (const name of answer.names) chosen.add(name);
            } else if (event.ctrlKey || event.metaKey) {
                if (!chosen.size && index !== currentIndex && pictureAt(currentIndex)) chosen.add(pictureAt(currentIndex).name);
                if (!chosen.delete(picture.name)) chosen.add(picture.name);
                anchor = index;
            } else {
                chosen.clear();
                anchor = index;
            }
            choose(index);
        }

        function choose(index) {
            if (index < 0 || index >= total) return;
            currentIndex = index;
            const picture = pictureAt(index);
            currentPath = picture ? picture.path : null;
            grid.reveal(index);
            picturesChanged();
        }

        function picturesChanged() {
            for (const [index, element] of grid.drawn) {
                const picture = pictureAt(index);
                element.classList.toggle("dsm-current", index === currentIndex);
                element.classList.toggle("dsm-chosen", Boolean(picture && chosen.has(picture.name)));
            }
            want(currentIndex, currentIndex + 1);
            foot.lastChild.textContent = chosen.size ? `${chosen.size} selected` : "";
            side.draw();
            drawAct();
        }

        function clearPictures() {
            chosen.clear();
            picturesChanged();
        }

        async function chooseAll() {
            const answer = await attempt(() => get("pictures/names", {folder: folder(), where: where()}));
            if (!answer) return;
            for (const name of answer.names) chosen.add(name);
            picturesChanged();
        }

        async function takeOut() {
            const names = chosen.size ? [...chosen] : pictureAt(currentIndex) ? [pictureAt(currentIndex).name] : [];
            if (!names.length) return;
            const text = `They go with their captions to .dsm/removed in ${folderName.textContent}; undo brings them back.`;
            if (!await DSM.confirm(`Take ${plural(names.length, "picture")} out of the set`, text, "Take out")) return;
            const answer = await attempt(() => post("prune/remove-pictures", {folder: folder(), pictures: names}));
            if (answer) toast(`${plural(names.length, "picture")} moved to ${answer.folder}.`);
            chosen.clear();
            await load();
            DSM.project.refresh();
        }

        // ---- acts --------------------------------------------------------------------------------------------------
        let planning = 0;
        async function drawAct() {
            const mine = ++planning;
            const any = selected.size > 0;
            for (const element of [removeAll, removeShown, renameButton, clear]) element.hidden = !any;
            characterButton.hidden = any;
            const filter = where();
            addField.placeholder = chosen.size > 1 ? `Add tags to the ${chosen.size} selected` : filter ? `Add tags to the ${total} shown` : DSM.translated("Add tags to all captions");
            if (!any) {
                said.textContent = "or select tags to remove or replace them.";
                return;
            }
            said.textContent = plural(selected.size, "tag") + " selected:";
            const plan = (range) => post("prune/plan", {folder: folder(), options: {...range, remove: [...selected].map(literal)}});
            const range = chosen.size > 1 ? {pictures: [...chosen]} : filter ? {where: filter} : null;
            const [all, some] = await attempt(() => Promise.all([plan({}), range ? plan(range) : null])) || [];
            if (mine !== planning || !all) return;
            const show = (element, made, text) => {
                element.textContent = text;
                element.title = "Will change:\n" + made.examples.join("\n");
                element.dsmExpect = made.changes;
                element.disabled = !made.changes;
            };
            show(removeAll, all, `Remove from ${plural(all.changes, "caption")}`);
            removeShown.hidden = !some;
            if (some) show(removeShown, some, `Remove from the ${some.changes} ${chosen.size > 1 ? "selected" : "shown"}`);
            removeAll.classList.toggle("dsm-primary", !some);
            removeShown.classList.toggle("dsm-primary", Boolean(some));
        }

        async function edit(options, expect) {
            const answer = await attempt(() => post("prune/apply", {folder: folder(), options, ...(expect === undefined ? {} : {expect})}));
            if (answer) report(answer, "changed");
            await load();
            return answer;
        }

        function report(answer, verb) {
            for (const text of answer.recovered || []) toast(text, "warn");
            const moved = answer.moved ? `, ${plural(answer.moved, "file")} moved` : "";
            toast(`${answer.title}: ${plural(answer.changed, "caption")} ${verb}${moved}.`);
            if (answer.conflicts.length) toast(`${plural(answer.conflicts.length, "caption")} left alone. ${answer.conflicts[0]}`, "error");
        }

        // `part`: only from the pictures selected, or else from those shown.
        async function remove(part) {
            const scope = !part ? {} : chosen.size > 1 ? {pictures: [...chosen]} : {where: where()};
            const expect = (part ? removeShown : removeAll).dsmExpect;
            if (await edit({...scope, remove: [...selected].map(literal)}, expect)) selected.clear();
            drawTags();
            drawAct();
        }

        async function addToShown() {
            const added = pruning.tagsOf(addField.value);
            if (!added.length) return;
            const options = {...(chosen.size > 1 ? {pictures: [...chosen]} : {where: where()}), add: added};
            const plan = await attempt(() => post("prune/plan", {folder: folder(), options}));
            if (!plan) return;
            const text = `This will change ${plural(plan.changes, "caption")}; it can be undone.`;
            if (plan.changes && await DSM.confirm(`Add ${added.join(", ")}`, text, `Change ${plural(plan.changes, "caption")}`)) {
                addField.value = "";
                await edit(options, plan.changes);
            }
        }

        let writing = 0; // changes of one caption that are on their way
        async function write(picture, wanted) {
            writing++;
            try {
                await attempt(() => call("PUT", "caption", {path: picture.path, tags: wanted, digest: picture.digest}));
                await load();
            } finally {
                writing--;
            }
        }

        async function turn(which) {
            const answer = await attempt(() => post(which, {project: DSM.state.project.path}));
            if (answer) report(answer, which === "undo" ? "put back" : "changed again");
            await load();
        }

        async function copyToSet() {
            const answer = await attempt(() => post("project/fill-set", {path: DSM.state.project.path, tab: "prune"}));
            if (!answer) return;
            DSM.job.quietly(answer.job, (job) => {
                if (job.state === "failed") return toast(job.error, "error");
                toast(`SET: ${job.data.summary}`);
                for (const problem of job.data.problems.slice(0, 3)) toast(problem, "error");
                DSM.project.refresh();
            });
        }

        // ---- keys --------------------------------------------------------------------------------------------------
        function showKeys() {
            DSM.showKeys("Keys of this page", [...KEYS, ...HELP]);
        }

        function moveCursor(step) {
            let at = rows.findIndex((row) => row.tag && row.tag === cursor) + step;
            while (rows[at] && !rows[at].tag) at += step;
            if (!rows[at]) return;
            cursor = rows[at].tag;
            tagRows.refresh();
            tagRows.reveal(at);
        }

        const screen = () => grid.columns * Math.max(1, Math.floor(thumbs.clientHeight / (thumbs.querySelector(".dsm-thumb") || {offsetHeight: 150}).offsetHeight));

        function escape() {
            if (selected.size || chosen.size) { selected.clear(); chosen.clear(); picturesChanged(); drawTags(); return; }
            if (filters.size || query.value) { filters.clear(); query.value = ""; return load(true); }
            drawTags();
            side.draw();
            drawAct();
        }

        function toggleCurrent() {
            const picture = pictureAt(currentIndex);
            if (!picture) return;
            if (!chosen.delete(picture.name)) chosen.add(picture.name);
            anchor = currentIndex;
            picturesChanged();
        }

        const to = (id) => () => { const field = page.querySelector(id); if (field) field.focus(); };
        const actions = {
            "/": () => search.focus(), q: () => query.focus(), ArrowDown: () => moveCursor(1), ArrowUp: () => moveCursor(-1),
            x: () => cursor && toggle(cursor), f: () => cursor && cycleFilter(cursor), F: () => cursor && filterBy(cursor, "without"),
            g: toggleGroups, k: changeKind, e: () => pruning.editDialog(app), h: () => pruning.history(app), m: takeOut,
            Delete: () => selected.size && remove(Boolean(where()) || chosen.size > 1), c: () => pruning.character(app),
            ArrowLeft: () => choose(currentIndex - 1), ArrowRight: () => choose(currentIndex + 1), " ": toggleCurrent,
            Enter: () => { const image = side.element.querySelector("img"); if (image) image.click(); },
            a: to("#dsm_prune_add"), t: to("#dsm_prune_chips .dsm-chip"),
            PageUp: () => choose(Math.max(0, currentIndex - screen())), PageDown: () => choose(Math.min(total - 1, currentIndex + screen())),
            Home: () => choose(0), End: () => choose(total - 1),
            u: () => turn("undo"), r: () => turn("redo"), Escape: escape, "?": showKeys,
        };
        // What a focused button or chip does with a key itself.
        const itsOwn = (target, key) => (target.matches("[role=listitem]")
            ? key.startsWith("Arrow") || ["Delete", "Backspace", "Enter"].includes(key)
            : target.matches("button:not(.dsm-thumb), input[type=checkbox]") && [" ", "Enter"].includes(key));
        DSM.keys(page, (event) => {
            if (itsOwn(event.target, event.key)) return false;
            const modified = event.ctrlKey || event.metaKey;
            if (modified && event.key.toLowerCase() === "z") return turn(event.shiftKey ? "redo" : "undo");
            if (modified && event.key.toLowerCase() === "y") return turn("redo");
            if (modified && event.key.toLowerCase() === "a") return chooseAll();
            if (modified || event.altKey || !actions[event.key]) return false;
            actions[event.key]();
        });

        // ---- beginning ---------------------------------------------------------------------------------------------
        place.append(DSM.tour.noProject());
        DSM.on("project", () => { filters.clear(); selected.clear(); chosen.clear(); query.value = ""; currentPath = null; load(true); });
        DSM.on("changed", () => load());
        setInterval(watch, WATCH);
        load(true);
    };
})();
