// Pruning: everything that was done to the project's captions, to be read and stepped through.
"use strict";

(function () {
    const {h, get, post, attempt, plural} = DSM;
    const pruning = (DSM.pruning = DSM.pruning || {});
    const STATES = {done: "in force", undone: "taken back", dropped: "taken back, then overtaken", open: "not complete", undoing: "not complete", redoing: "not complete"};

    const time = (text) => { const when = new Date(text); return isNaN(when) ? text : when.toLocaleString(undefined, {dateStyle: "short", timeStyle: "medium"}); };

    pruning.history = async (app) => {
        const back = document.activeElement;
        const project = DSM.state.project.path;
        const list = h("div", {class: "dsm-acts", role: "listbox", tabindex: "0", "aria-label": "Edits, the newest first"});
        const detail = h("div", {class: "dsm-act-detail"});
        const close = () => { overlay.remove(); if (back && back.focus) back.focus(); };
        const overlay = h("div", {class: "dsm-overlay", tabindex: "-1", role: "dialog", "aria-modal": "true", "aria-label": "History", onclick: (event) => event.target === overlay && close()},
            h("div", {class: "dsm-dialog dsm-wide", id: "dsm_prune_history_dialog"}, h("h3", {}, "History of the project"),
                h("div", {class: "dsm-history"}, list, detail),
                h("div", {class: "dsm-dialog-buttons"}, h("button", {class: "dsm-button", onclick: close}, "Close"))));
        let acts = [];
        let chosen = 0;

        async function load() {
            const answer = await attempt(() => get("history", {project}));
            if (!answer) return;
            acts = answer.acts;
            chosen = Math.min(chosen, Math.max(0, acts.length - 1));
            draw();
        }

        async function go(act) {
            const answer = await attempt(() => post("history/go", act ? {project, folder: act.folder, act: act.id} : {project, act: 0}));
            if (answer) app.report(answer, "written");
            await app.reload();
            await load();
        }

        function draw() {
            list.replaceChildren(...acts.map((act, index) => h("div", {
                class: `dsm-act dsm-act-${act.state}` + (index === chosen ? " dsm-current" : ""), role: "option", "aria-selected": String(index === chosen),
                onclick: () => { chosen = index; draw(); },
            }, h("span", {class: "dsm-act-title"}, act.title),
            h("span", {class: "dsm-subdued"}, [time(act.time), act.where, act.moved && !act.captions ? plural(act.moved, "file") : plural(act.captions, "caption"), STATES[act.state],
                act.recovered ? "completed after a crash" : ""].filter(Boolean).join("  ·  ")))));
            if (!acts.length) list.replaceChildren(DSM.empty("Nothing was edited yet", ""));
            else list.append(h("div", {class: "dsm-act"}, h("span", {class: "dsm-act-title"}, "The captions as they were first"), h("button", {class: "dsm-button dsm-small", id: "dsm_prune_originals", onclick: () => go(null)}, "Go back to them")));
            show();
        }

        async function show() {
            const act = acts[chosen];
            if (!act) return detail.replaceChildren();
            const told = await attempt(() => get("history/act", {folder: act.folder, act: act.id}));
            if (!told || acts[chosen] !== act) return;
            const one = (tag, kind) => h("span", {class: `dsm-diff dsm-diff-${kind}`}, tag);
            detail.replaceChildren(
                h("b", {}, act.title),
                h("div", {class: "dsm-dialog-buttons"},
                    act.state === "done" || act.state === "undone" ? h("button", {class: "dsm-button dsm-small", id: "dsm_prune_go", onclick: () => go(act)}, act.state === "done" ? "Take back what came after it" : "Do again up to this one") : null),
                h("div", {class: "dsm-diffs"}, told.changes.map((change) => h("div", {}, h("div", {class: "dsm-subdued"}, change.name),
                    pruning.difference(change.before || [], change.after || []).map(([tag, kind]) => one(tag, kind)),
                    change.after === null ? h("span", {class: "dsm-subdued"}, "the caption was removed") : null)),
                told.moves.map((move) => h("div", {}, `${move.from} → ${move.to}`)),
                told.captions > told.changes.length ? h("div", {class: "dsm-subdued"}, `and ${told.captions - told.changes.length} more`) : null));
        }

        overlay.addEventListener("keydown", (event) => {
            event.stopPropagation();
            if (event.key === "Escape") close();
            else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
                chosen = Math.max(0, Math.min(acts.length - 1, chosen + (event.key === "ArrowDown" ? 1 : -1)));
                draw();
                event.preventDefault();
            } else if (event.key === "Enter" && event.target === list && acts[chosen]) go(acts[chosen]);
        });
        DSM.over(overlay);
        overlay.focus();
        await load();
        list.focus();
    };

    // What went, what came and, in between, what stayed beside it: [[tag, "gone" | "new" | "kept"], …].
    pruning.difference = (before, after) => {
        const [old, now] = [new Set(before), new Set(after)];
        const result = [];
        for (const tag of before) if (!now.has(tag)) result.push([tag, "gone"]);
        for (const tag of after) if (!old.has(tag)) result.push([tag, "new"]);
        if (!result.length) result.push([after.slice(0, 12).join(", ") + (after.length > 12 ? ", …" : ""), "kept"]);
        return result;
    };
})();
