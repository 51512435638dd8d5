// Pruning: tags with counts on the left, pictures in the middle, the caption of one picture on the right.
"use strict";

(function () {
    const {h, get, post, call, attempt, empty, lightbox, thumbnail, plural, toast} = DSM;
    const PAGE = 60;
    const TAGS_SHOWN = 400;
    const KEYS = [
        ["/", "search the tags"],
        ["↑ ↓", "move through the tags"],
        ["x", "select the tag, or take the selection back"],
        ["f", "show only pictures with the tag; once more: without it; once more: all"],
        ["Delete", "remove the selected tags from the pictures shown"],
        ["c", "select the tags that describe the character"],
        ["← →", "the picture before, the picture after"],
        ["a", "add tags to this picture"],
        ["PgUp PgDn", "turn the page"],
        ["u Ctrl+Z", "undo"],
        ["r Ctrl+Y", "redo"],
        ["Esc", "leave a field, then clear the selection, then the filter"],
        ["?", "this list"],
    ];

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

    const quoted = (tag) => `"${tag.replace(/"/g, '\\"')}"`;
    const literal = (tag) => tag.replace(/[*?]/g, "\\$&"); // wildcards of a pattern

    DSM.widgets.prune = (place) => {
        let tags = [];
        let pictures = [];
        let [pageNumber, pages, total, captions] = [0, 1, 0, 0];
        let current = null; // path of the picture on the right
        let cursor = null; // the tag that the keys act on
        const selected = new Set();
        const filters = new Map(); // tag → "with" or "without"
        let serial = 0;

        // ---- elements ----------------------------------------------------------------------------------------------
        const folderName = h("b", {});
        const query = h("input", {class: "dsm-field", id: "dsm_prune_query", placeholder: "Filter: hat AND NOT outdoors", "aria-label": "Filter", style: "flex: 1 1 220px", onchange: () => load(0)});
        const filterChips = h("span", {class: "dsm-chips"});
        const undoButton = h("button", {class: "dsm-button", id: "dsm_prune_undo", title: "u", onclick: () => turn("undo")}, "↶ Undo");
        const redoButton = h("button", {class: "dsm-button", id: "dsm_prune_redo", title: "r", onclick: () => turn("redo")}, "↷ Redo");
        const fillSet = h("button", {class: "dsm-button", id: "dsm_prune_fill_set", onclick: copyToSet}, "Copy to SET");
        const help = h("button", {class: "dsm-button", id: "dsm_prune_keys", title: "Keys", "aria-label": "Keys", onclick: () => DSM.showKeys("Keys of this page", KEYS)}, "?");
        const search = h("input", {class: "dsm-field", id: "dsm_prune_search", type: "search", placeholder: "Search tags  /", "aria-label": "Search tags", oninput: drawTags});
        const sort = h("select", {class: "dsm-field", id: "dsm_prune_sort", "aria-label": "Sort tags", onchange: drawTags},
            h("option", {value: "count"}, "most used first"), h("option", {value: "rare"}, "rarest first"),
            h("option", {value: "name"}, "by alphabet"), h("option", {value: "long"}, "longest first"));
        const characterButton = h("button", {class: "dsm-button", id: "dsm_prune_character", title: "c", onclick: selectCharacter}, "Character tags");
        const list = h("div", {class: "dsm-tags", id: "dsm_prune_tags", role: "listbox", "aria-label": "Tags", "aria-multiselectable": "true"});
        const thumbs = h("div", {class: "dsm-thumbs", id: "dsm_prune_thumbs"});
        const pager = h("div", {});
        const side = h("div", {class: "dsm-side", id: "dsm_prune_side"});
        const said = h("span", {class: "dsm-subdued"});
        const removeAll = h("button", {class: "dsm-button dsm-primary", id: "dsm_prune_remove_all", onclick: () => remove("")});
        const removeShown = h("button", {class: "dsm-button", id: "dsm_prune_remove_shown", onclick: () => remove(where())});
        const renameButton = h("button", {class: "dsm-button", id: "dsm_prune_rename", onclick: rename}, "Rename…");
        const addField = h("input", {class: "dsm-field", id: "dsm_prune_add_all", placeholder: "Add tags to all shown", "aria-label": "Add tags to all shown", onkeydown: (event) => event.key === "Enter" && addToShown()});
        const clear = h("button", {class: "dsm-button", onclick: () => { selected.clear(); drawTags(); drawAct(); }}, "Clear");
        const act = h("div", {class: "dsm-prune-act", id: "dsm_prune_act"}, said, removeAll, removeShown, renameButton, clear, h("span", {class: "dsm-spring", style: "flex: 1"}), addField);
        const page = h("div", {class: "dsm-page dsm-page-prune", tabindex: "-1"},
            h("div", {class: "dsm-toolbar"}, h("span", {class: "dsm-subdued"}, "Captions in ", folderName), query, filterChips, undoButton, redoButton, fillSet, help),
            act,
            h("div", {class: "dsm-prune"},
                h("div", {class: "dsm-column"}, search, h("div", {class: "dsm-toolbar"}, sort, characterButton), list),
                h("div", {class: "dsm-column"}, thumbs, pager),
                h("div", {class: "dsm-column"}, side)));

        const folder = () => DSM.state.project && DSM.state.project.tag;
        const where = () => [query.value.trim() && `(${query.value.trim()})`,
            ...[...filters].map(([tag, how]) => (how === "with" ? "" : "NOT ") + quoted(tag))].filter(Boolean).join(" AND ");

        // ---- loading -----------------------------------------------------------------------------------------------
        async function load(number) {
            if (!folder()) return;
            const mine = ++serial;
            const filter = where();
            const answers = await attempt(() => Promise.all([
                get("tags", {folder: folder(), where: filter}),
                get("pictures", {folder: folder(), where: filter, page: number, size: PAGE}),
                get("history", {folder: folder()}),
            ]));
            if (!answers || mine !== serial) return;
            const [counts, listing, acts] = answers;
            tags = counts.tags;
            captions = counts.captions;
            for (const tag of [...selected]) if (!tags.some((item) => item.tag === tag)) selected.delete(tag);
            ({pictures, total, pages} = listing);
            pageNumber = listing.page;
            undoButton.disabled = !acts.undo;
            redoButton.disabled = !acts.redo;
            const done = acts.acts.find((item) => item.state === "done");
            undoButton.title = done ? `Undo: ${done.title} (u)` : "Nothing to undo";
            folderName.textContent = folder().split(/[\\/]/).pop();
            fillSet.disabled = !captions;
            if (!pictures.some((picture) => picture.path === current)) current = pictures.length ? pictures[0].path : null;
            if (!page.isConnected) place.replaceChildren(page);
            drawFilters();
            drawTags();
            drawThumbs();
            drawSide();
            drawAct();
        }

        // ---- drawing -----------------------------------------------------------------------------------------------
        function shownTags() {
            const needle = search.value.trim().toLowerCase().replace(/_/g, " ");
            const found = tags.filter((item) => item.tag.toLowerCase().replace(/_/g, " ").includes(needle));
            const orders = {
                rare: (a, b) => a.count - b.count, name: (a, b) => a.tag.localeCompare(b.tag), long: (a, b) => b.tag.length - a.tag.length,
            };
            return orders[sort.value] ? found.sort(orders[sort.value]) : found;
        }

        function drawTags() {
            const found = shownTags();
            if (!found.some((item) => item.tag === cursor)) cursor = found.length ? found[0].tag : null;
            const filtering = Boolean(where());
            const rows = found.slice(0, TAGS_SHOWN).map((item) => {
                const box = h("input", {type: "checkbox", tabindex: "-1", "aria-label": `Select ${item.tag}`});
                box.checked = selected.has(item.tag);
                box.addEventListener("click", (event) => { event.stopPropagation(); cursor = item.tag; toggle(item.tag); });
                const row = h("div", {
                    class: "dsm-tag" + (item.tag === cursor ? " dsm-current" : "") + (filters.has(item.tag) ? " dsm-filtered" : ""),
                    role: "option", "aria-selected": String(box.checked), title: `${item.tag}: click to show only its pictures`,
                    style: `--share: ${(100 * item.count) / Math.max(1, captions)}%`,
                    onclick: () => { cursor = item.tag; cycleFilter(item.tag); },
                }, box, h("span", {class: "dsm-tag-name"}, item.tag),
                h("span", {class: "dsm-tag-count"}, filtering ? `${item.filtered} / ${item.count}` : item.count));
                row.dataset.tag = item.tag;
                return row;
            });
            if (!rows.length) rows.push(empty(tags.length ? "No such tag" : "No tags yet", tags.length ? "" : "Tag the pictures first, on the tab before."));
            if (found.length > TAGS_SHOWN) rows.push(h("div", {class: "dsm-tag dsm-subdued"}, "", `${found.length - TAGS_SHOWN} more; search to see them`));
            const scroll = list.scrollTop;
            list.replaceChildren(...rows);
            list.scrollTop = scroll;
        }

        function drawFilters() {
            filterChips.replaceChildren(...[...filters].map(([tag, how]) => h("span", {class: "dsm-chip dsm-on"},
                h("span", {onclick: () => cycleFilter(tag)}, how === "with" ? tag : `not ${tag}`),
                h("button", {"aria-label": `Do not filter by ${tag}`, onclick: () => { filters.delete(tag); load(0); }}, "×"))));
        }

        function drawThumbs() {
            const scroll = thumbs.scrollTop;
            thumbs.replaceChildren(...pictures.map((picture) => {
                const item = h("button", {
                    class: "dsm-thumb" + (picture.path === current ? " dsm-current" : ""), tabindex: "-1",
                    title: `${picture.name}\n${picture.text || ""}`, onclick: () => choose(picture.path),
                },
                picture.problem ? empty("✕", "cannot be read") : h("img", {src: thumbnail(picture.path, 256, picture.stamp), alt: picture.name, loading: "lazy"}),
                h("span", {class: "dsm-badge" + (picture.captioned ? "" : " dsm-bad")}, picture.captioned ? picture.tags.length : "no caption"),
                h("span", {class: "dsm-thumb-name"}, picture.name));
                item.dataset.path = picture.path;
                return item;
            }));
            if (!pictures.length) thumbs.append(empty("No picture matches", "Take a filter away with Esc."));
            thumbs.scrollTop = scroll;
            pager.replaceChildren(DSM.pager(pageNumber, pages, load) || h("div", {class: "dsm-pager"}, plural(total, "picture")));
        }

        function drawSide() {
            const picture = pictures.find((item) => item.path === current);
            if (!picture) return side.replaceChildren(empty("No picture", ""));
            const readable = pictures.filter((item) => !item.problem);
            const views = readable.map((item) => ({address: thumbnail(item.path, 2048, item.stamp), label: item.name}));
            const field = h("input", {class: "dsm-field", id: "dsm_prune_add", placeholder: "Add tags to this picture", "aria-label": "Add tags to this picture"});
            field.addEventListener("keydown", (event) => {
                if (event.key === "Enter" && field.value.trim()) { event.stopPropagation(); write(picture, [...picture.tags, field.value], true); }
            });
            if (picture.problem) return side.replaceChildren(h("b", {}, picture.name), DSM.line("warn", picture.problem));
            side.replaceChildren(
                h("img", {src: thumbnail(picture.path, 768, picture.stamp), alt: picture.name, title: "Enlarge", onclick: () => lightbox(views, readable.indexOf(picture))}),
                h("div", {class: "dsm-subdued"}, `${picture.name}  ·  ${picture.width}×${picture.height}  ·  ${plural(picture.tags.length, "tag")}`),
                picture.note ? DSM.line("warn", picture.note) : "",
                h("div", {class: "dsm-chips", id: "dsm_prune_chips"}, picture.tags.map((tag) => h("span", {class: "dsm-chip" + (selected.has(tag) ? " dsm-on" : "")},
                    h("span", {title: "Show only pictures with this tag", onclick: () => cycleFilter(tag)}, tag),
                    h("button", {"aria-label": `Remove ${tag}`, title: "Remove from this picture", onclick: () => write(picture, picture.tags.filter((other) => other !== tag))}, "×")))),
                field);
        }

        let planning = 0;
        async function drawAct() {
            const mine = ++planning;
            const any = selected.size > 0;
            for (const button of [removeAll, removeShown, renameButton, clear]) button.hidden = !any;
            renameButton.hidden = selected.size !== 1;
            const filter = where();
            addField.placeholder = filter ? `Add tags to the ${total} shown` : "Add tags to all captions";
            if (!any) {
                said.textContent = "Select the tags that describe the character itself: pruned, they go into the embedding.";
                return;
            }
            said.textContent = plural(selected.size, "tag") + " selected:";
            const plan = (range) => post("prune/plan", {folder: folder(), options: {where: range, remove: [...selected].map(literal)}});
            const [all, some] = await attempt(() => Promise.all([plan(""), filter ? plan(filter) : null])) || [];
            if (mine !== planning || !all) return;
            removeAll.textContent = `Remove from ${plural(all.changes, "caption")}`;
            removeAll.title = "Will change:\n" + all.examples.join("\n");
            removeAll.dsmExpect = all.changes;
            removeAll.disabled = !all.changes;
            removeShown.hidden = !some;
            if (some) {
                removeShown.textContent = `Remove from the ${some.changes} shown`;
                removeShown.dsmExpect = some.changes;
                removeShown.disabled = !some.changes;
            }
        }

        // ---- acts --------------------------------------------------------------------------------------------------
        function toggle(tag) {
            if (!selected.delete(tag)) selected.add(tag);
            drawTags();
            drawSide();
            drawAct();
        }

        function cycleFilter(tag) {
            const now = filters.get(tag);
            if (!now) filters.set(tag, "with");
            else if (now === "with") filters.set(tag, "without");
            else filters.delete(tag);
            load(0);
        }

        function choose(path) {
            current = path;
            for (const item of thumbs.children) item.classList.toggle("dsm-current", item.dataset.path === path);
            const item = thumbs.querySelector(".dsm-current");
            if (item) item.scrollIntoView({block: "nearest"});
            drawSide();
        }

        async function edit(options, expect) {
            const answer = await attempt(() => post("prune/apply", {folder: folder(), options, ...(expect === undefined ? {} : {expect})}));
            if (answer) report(answer, "changed");
            await load(pageNumber);
            return answer;
        }

        function report(answer, verb) {
            toast(`${answer.title}: ${plural(answer.changed, "caption")} ${verb}.`);
            if (answer.conflicts.length) toast(`${plural(answer.conflicts.length, "caption")} left alone. ${answer.conflicts[0]}`, "error");
        }

        async function remove(range) {
            const expect = (range ? removeShown : removeAll).dsmExpect;
            const options = {where: range, remove: [...selected].map(literal)};
            if (await edit(options, expect)) selected.clear();
            drawTags();
            drawAct();
        }

        async function rename() {
            const old = [...selected][0];
            const field = h("input", {class: "dsm-field", value: old, "aria-label": "New name", style: "width: 100%"});
            field.value = old;
            field.addEventListener("keydown", (event) => event.key === "Enter" && field.closest(".dsm-dialog").querySelector(".dsm-primary").click());
            const answer = DSM.confirm(`Rename “${old}”`, field, "Rename");
            field.select();
            field.focus();
            if (await answer && field.value.trim() && field.value.trim() !== old) {
                selected.clear();
                await edit({where: where(), replace: [`${literal(old)}=${field.value.trim()}`]});
            }
        }

        async function addToShown() {
            const added = addField.value.split(",").map((tag) => tag.trim()).filter(Boolean);
            if (!added.length) return;
            const options = {where: where(), add: added};
            const plan = await attempt(() => post("prune/plan", {folder: folder(), options}));
            if (!plan) return;
            const text = `This will change ${plural(plan.changes, "caption")}; it can be undone.`;
            if (plan.changes && await DSM.confirm(`Add ${added.join(", ")}`, text, `Change ${plural(plan.changes, "caption")}`)) {
                addField.value = "";
                await edit(options, plan.changes);
            }
        }

        async function write(picture, wanted, again) {
            const answer = await attempt(() => call("PUT", "caption", {path: picture.path, tags: wanted, digest: picture.digest}));
            await load(pageNumber);
            if (answer && again) side.querySelector("#dsm_prune_add").focus();
        }

        async function turn(which) {
            const answer = await attempt(() => post(which, {folder: folder()}));
            if (answer) report(answer, which === "undo" ? "put back" : "changed again");
            await load(pageNumber);
        }

        async function selectCharacter() {
            const answer = await attempt(() => get("prune/character", {folder: folder()}));
            if (!answer) return;
            if (!answer.proposals.length) return toast("No frequent tag looks like the character's own.");
            for (const proposal of answer.proposals) selected.add(proposal.tag);
            const kinds = [...new Set(answer.proposals.map((proposal) => proposal.kind))].join(", ");
            toast(`${plural(answer.proposals.length, "tag")} selected (${kinds}). Look through them before removing.`);
            drawTags();
            drawSide();
            drawAct();
        }

        async function copyToSet() {
            const answer = await attempt(() => post("project/fill-set", {path: DSM.state.project.path, tab: "prune"}));
            if (!answer) return;
            const follow = async () => {
                const job = await attempt(() => get(`jobs/${answer.job}`));
                if (!job) return;
                if (job.state === "running") return setTimeout(follow, 300);
                if (job.state === "failed") return toast(job.error, "error");
                toast(`SET: ${job.data.summary}`);
                for (const problem of job.data.problems.slice(0, 3)) toast(problem, "error");
                DSM.project.refresh();
            };
            follow();
        }

        // ---- keys --------------------------------------------------------------------------------------------------
        function moveCursor(step) {
            const found = shownTags().slice(0, TAGS_SHOWN);
            const at = found.findIndex((item) => item.tag === cursor);
            const next = found[Math.max(0, Math.min(found.length - 1, at + step))];
            if (!next) return;
            cursor = next.tag;
            drawTags();
            list.querySelector(".dsm-current").scrollIntoView({block: "nearest"});
        }

        function movePicture(step) {
            const at = pictures.findIndex((picture) => picture.path === current) + step;
            if (at >= 0 && at < pictures.length) choose(pictures[at].path);
            else if (at >= pictures.length && pageNumber + 1 < pages) load(pageNumber + 1);
            else if (at < 0 && pageNumber > 0) load(pageNumber - 1);
        }

        function escape() {
            if (selected.size) selected.clear();
            else if (filters.size || query.value) { filters.clear(); query.value = ""; return load(0); }
            drawTags();
            drawSide();
            drawAct();
        }

        const actions = {
            "/": () => search.focus(), ArrowDown: () => moveCursor(1), ArrowUp: () => moveCursor(-1),
            x: () => cursor && toggle(cursor), f: () => cursor && cycleFilter(cursor),
            Delete: () => selected.size && remove(where()), c: selectCharacter,
            ArrowLeft: () => movePicture(-1), ArrowRight: () => movePicture(1),
            a: () => { const field = side.querySelector("#dsm_prune_add"); if (field) field.focus(); },
            PageUp: () => pageNumber > 0 && load(pageNumber - 1), PageDown: () => pageNumber + 1 < pages && load(pageNumber + 1),
            u: () => turn("undo"), r: () => turn("redo"), Escape: escape, "?": () => DSM.showKeys("Keys of this page", KEYS),
        };
        DSM.keys(page, (event) => {
            const modified = event.ctrlKey || event.metaKey;
            if (modified && event.key.toLowerCase() === "z") return turn(event.shiftKey ? "redo" : "undo");
            if (modified && event.key.toLowerCase() === "y") return turn("redo");
            if (modified || event.altKey || !actions[event.key]) return false;
            actions[event.key]();
        });

        // ---- beginning ---------------------------------------------------------------------------------------------
        place.append(empty("No project is open", "Open one at the top of the page."));
        DSM.on("project", () => { filters.clear(); selected.clear(); query.value = ""; current = null; load(0); });
        DSM.on("changed", () => load(pageNumber));
        load(0);
    };
})();
