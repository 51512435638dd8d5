// Pruning: the edits that need more than a click, with what they would change before they are done.
"use strict";

(function () {
    const {h, post, plural} = DSM;
    const pruning = (DSM.pruning = DSM.pruning || {});
    const tagsOf = (text) => pruning.tagsOf(text);
    const escaped = (tag) => tag.replace(/=/g, "\\=");

    // Each edit: its name, its fields [key, label, kind, choices], and the options that they make.
    const EDITS = {
        replace: ["Replace or rename", [["old", "Tags, with commas; * and ? are wildcards", "tags"], ["new", "by", "tag"]],
            (v) => (tagsOf(v.old).length && v.new.trim() ? {replace: tagsOf(v.old).map((old) => `${escaped(old)}=${v.new.trim()}`)} : null)],
        remove: ["Remove", [["tags", "Tags, with commas; * and ? are wildcards", "tags"]], (v) => (tagsOf(v.tags).length ? {remove: tagsOf(v.tags)} : null)],
        add: ["Add", [["tags", "Tags, with commas", "tags"], ["place", "Where", "choice", [["last", "at the end"], ["first", "at the beginning"], ["at", "as the tag of this number"], ["before", "before this tag"], ["after", "after this tag"]]], ["beside", "Number or tag", "text"]],
            (v) => {
                if (!tagsOf(v.tags).length) return null;
                const options = {add: tagsOf(v.tags)};
                if (v.place === "first") options.add_first = true;
                if (v.place === "at") options.add_at = Math.max(1, Number(v.beside) || 1);
                if (v.place === "before") options.add_before = v.beside;
                if (v.place === "after") options.add_after = v.beside;
                return options;
            }],
        synonyms: ["Merge synonyms", [], () => ({synonyms: true})],
        implied: ["Implied tags", [["keep", "Where one tag implies another", "choice", [["specific", "keep the specific: very long hair"], ["general", "keep the general: long hair"], ["both", "have both"]]]], (v) => ({implied: v.keep})],
        sort: ["Sort", [["by", "By", "choice", [["kind", "kind"], ["alphabet", "alphabet"], ["count", "how many captions have it"]]], ["leave", "So many first tags stay", "number"]], (v) => ({sort: v.by, sort_leave: Number(v.leave) || 0})],
        keep: ["Keep the first tags", [["count", "So many tags", "number"]], (v) => (Number(v.count) > 0 ? {keep_first: Number(v.count)} : null)],
        dedupe: ["Remove repeated tags", [], () => ({dedupe: true})],
        utf8: ["Convert to UTF-8", [], () => ({utf8: true})],
    };

    pruning.editDialog = (app, first, given) => {
        const back = document.activeElement;
        let what = first || "replace";
        let values = {...(given || {})};
        let scope = app.chosen().size > 1 ? "selected" : app.where() ? "shown" : "all";
        let planned = null;
        let serial = 0;
        const kinds = h("div", {class: "dsm-edit-kinds", role: "tablist"});
        const form = h("div", {class: "dsm-form"});
        const scopes = h("div", {class: "dsm-segments"});
        const preview = h("div", {class: "dsm-diffs", id: "dsm_prune_preview", "aria-live": "polite"});
        const yes = h("button", {class: "dsm-button dsm-primary", id: "dsm_prune_edit_apply", onclick: apply}, "Change");
        const close = () => { overlay.remove(); if (back && back.focus) back.focus(); };
        const overlay = h("div", {class: "dsm-overlay", tabindex: "-1", role: "dialog", "aria-modal": "true", "aria-label": "Edit captions", onclick: (event) => event.target === overlay && close()},
            h("div", {class: "dsm-dialog dsm-wide", id: "dsm_prune_edit_dialog"}, h("h3", {}, "Edit captions"),
                h("div", {class: "dsm-edit"}, kinds, h("div", {class: "dsm-edit-main"}, form, scopes, preview)),
                h("div", {class: "dsm-dialog-buttons"}, h("button", {class: "dsm-button", onclick: close}, "Cancel"), yes)));

        function options() {
            const made = EDITS[what][2]({old: "", new: "", tags: "", place: "last", beside: "", keep: "specific", by: "kind", leave: "0", count: "", ...values});
            if (!made) return null;
            if (scope === "selected") return {...made, pictures: [...app.chosen()]};
            return scope === "shown" ? {...made, where: app.where()} : made;
        }

        function draw() {
            kinds.replaceChildren(...Object.entries(EDITS).map(([key, [label]]) => h("button", {
                class: "dsm-edit-kind", role: "tab", "aria-selected": String(key === what), onclick: () => { what = key; draw(); focus(); },
            }, label)));
            form.replaceChildren(...EDITS[what][1].map(([key, label, kind, choices]) => field(key, label, kind, choices)));
            const counts = {all: "All captions", shown: `The ${app.total()} shown`, selected: `The ${app.chosen().size} selected`};
            scopes.replaceChildren(...Object.entries(counts).filter(([key]) => key === "all" || (key === "shown" ? app.where() : app.chosen().size > 1)).map(([key, label]) => h("button", {
                "aria-pressed": String(key === scope), onclick: () => { scope = key; draw(); },
            }, label)));
            plan();
        }

        function field(key, label, kind, choices) {
            let input;
            if (kind === "choice") {
                input = h("select", {class: "dsm-field"}, choices.map(([value, text]) => h("option", {value}, text)));
                if (!values[key]) values[key] = choices[0][0];
            } else input = h("input", {class: "dsm-field", type: kind === "number" ? "number" : "text"});
            input.value = values[key] || "";
            const changed = () => { if (values[key] === input.value) return; values[key] = input.value; plan(); };
            input.addEventListener("input", changed);
            const shown = kind === "tags" || kind === "tag" ? pruning.complete(input, app.folder, () => { changed(); if (planned && planned.changes) apply(); }) : input;
            input.addEventListener("blur", changed);
            return h("label", {}, h("span", {}, label), shown);
        }

        function focus() {
            const input = form.querySelector("input, select") || yes;
            input.focus();
        }

        async function plan() {
            const mine = ++serial;
            const made = options();
            planned = null;
            yes.disabled = true;
            yes.textContent = "Change";
            if (!made) return preview.replaceChildren(h("span", {class: "dsm-subdued"}, "Fill in what is missing, and see here what will change."));
            let answer;
            try {
                answer = await post("prune/plan", {folder: app.folder(), options: made});
            } catch (error) {
                if (mine === serial) preview.replaceChildren(DSM.line("error", error.problem || error.message, error.remedy));
                return;
            }
            if (mine !== serial) return;
            planned = answer;
            yes.disabled = !answer.changes;
            yes.textContent = answer.changes ? `Change ${plural(answer.changes, "caption")}` : "Nothing to change";
            const tell = (counts, sign) => Object.entries(counts).slice(0, 10).map(([tag, count]) => h("span", {class: `dsm-diff dsm-diff-${sign}`}, `${tag} ${count}`));
            preview.replaceChildren(
                h("div", {}, h("b", {}, plural(answer.changes, "caption")), ` of ${answer.matched} will change. `, tell(answer.gone, "gone"), tell(answer.new, "new")),
                ...answer.changed.map((change) => h("div", {class: "dsm-example"}, h("img", {src: DSM.thumbnail(change.path, 128, 0), alt: ""}),
                    h("div", {}, h("div", {class: "dsm-subdued"}, change.name), pruning.difference(change.before, change.after).map(([tag, kind]) => h("span", {class: `dsm-diff dsm-diff-${kind}`}, tag))))));
        }

        async function apply() {
            const made = options();
            if (!made || !planned || !planned.changes) return;
            const expect = planned.changes;
            close();
            await app.edit(made, expect);
        }

        overlay.addEventListener("keydown", (event) => { event.stopPropagation(); if (event.key === "Escape") close(); });
        DSM.over(overlay);
        overlay.focus();
        draw();
        focus();
    };
})();
