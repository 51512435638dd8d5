// Cleaning a set before it is cropped: what was found, with pictures, to keep or to set aside.
"use strict";

(function () {
    const {h, get, post, attempt, thumbnail, plural, toast} = DSM;
    const KINDS = {
        duplicate: "Nearly equal", blurred: "Blurred", small: "Too small", long: "Very long", marked: "Watermark", text: "Mostly text", broken: "Unreadable",
    };
    const CHOSEN = ["duplicate", "broken"]; // what is ticked when the list is shown
    const POLL = 250; // milliseconds

    // Looks through the set and shows a list; `after` is called when pictures were moved.
    DSM.cropClean = async (after) => {
        const project = DSM.state.project.path;
        const started = await attempt(() => post("crop/clean", {project}));
        if (!started) return;
        const back = document.activeElement;
        const chosen = new Set();
        const progress = h("p", {class: "dsm-subdued"}, "Looking …");
        const list = h("div", {class: "dsm-clean", id: "dsm_clean_list"});
        const filter = h("div", {class: "dsm-toolbar"});
        const button = h("button", {class: "dsm-button dsm-primary", id: "dsm_clean_aside", disabled: true, onclick: move}, "Set aside");
        const undo = h("button", {class: "dsm-button", id: "dsm_clean_undo", title: "Bring back what was set aside last", disabled: true, onclick: bringBack}, "Undo");
        const acts = []; // numbers in the folder's history of what was set aside here
        const overlay = h("div", {class: "dsm-overlay", role: "dialog", "aria-modal": "true", "aria-label": "Clean the set"},
            h("div", {class: "dsm-dialog dsm-wide"}, h("h3", {}, "Clean the set"), progress, filter, list,
                h("div", {class: "dsm-dialog-buttons"}, undo, h("button", {class: "dsm-button", id: "dsm_clean_close", onclick: close}, "Close"), button)));
        overlay.addEventListener("keydown", (event) => { event.stopPropagation(); if (event.key === "Escape") close(); });
        DSM.over(overlay);
        button.focus();

        function close() {
            overlay.remove();
            if (back && back.focus) back.focus();
        }

        const flaws = await found(started.job);
        if (!flaws) return;
        const byPicture = new Map(); // path → its flaws
        for (const flaw of flaws) byPicture.set(flaw.path, [...(byPicture.get(flaw.path) || []), flaw]);
        const kept = new Set(flaws.map((flaw) => flaw.like).filter(Boolean)); // the better ones of copies
        for (const [path, own] of byPicture) if (!kept.has(path) && own.some((flaw) => CHOSEN.includes(flaw.kind))) chosen.add(path);
        const shown = new Set(Object.keys(KINDS));
        progress.textContent = byPicture.size
            ? `${plural(byPicture.size, "picture")} to look at. What is ticked is moved aside with its caption; nothing is deleted.`
            : "Nothing was found that the set had better be without.";
        filter.replaceChildren(...Object.entries(KINDS).filter(([kind]) => flaws.some((flaw) => flaw.kind === kind)).map(([kind, label]) => {
            const input = h("input", {type: "checkbox", onchange: () => { shown[input.checked ? "add" : "delete"](kind); draw(); }});
            input.checked = true;
            return h("label", {}, input, `${label} (${flaws.filter((flaw) => flaw.kind === kind).length})`);
        }));
        draw();

        function draw() {
            list.replaceChildren(...[...byPicture].filter(([, own]) => own.some((flaw) => shown.has(flaw.kind))).map(([path, own]) => {
                const input = h("input", {type: "checkbox", onchange: () => { chosen[input.checked ? "add" : "delete"](path); count(); }});
                input.checked = chosen.has(path);
                const look = () => DSM.lightbox([...new Set([path, ...own.map((flaw) => flaw.like).filter(Boolean)])].map((one) => ({address: thumbnail(one, 1400), label: one.split(/[\\/]/).pop()})), 0);
                return h("div", {class: "dsm-clean-item"}, h("img", {src: thumbnail(path, 256, own[0].stamp), alt: own[0].name, loading: "lazy", title: "Look at it, and at the one it is like", onclick: look}),
                    h("label", {}, input, own[0].name), own.map((flaw) => h("span", {class: "dsm-subdued"}, h("b", {}, KINDS[flaw.kind]), " ", flaw.text)));
            }));
            count();
        }

        function count() {
            const visible = [...chosen].filter((path) => byPicture.has(path) && byPicture.get(path).some((flaw) => shown.has(flaw.kind)));
            button.textContent = visible.length ? `Set ${plural(visible.length, "picture")} aside` : "Set aside";
            button.disabled = !visible.length;
            return visible;
        }

        async function found(job) {
            while (overlay.isConnected) {
                const state = await attempt(() => get(`jobs/${job}`));
                if (!state) return null;
                if (state.state === "done") return state.data.flaws;
                if (state.state !== "running") { progress.textContent = state.error; return null; }
                progress.textContent = state.total ? `Looking at picture ${state.done} of ${state.total} …` : "Looking …";
                await new Promise((resolve) => setTimeout(resolve, POLL));
            }
            await attempt(() => post(`jobs/${job}/cancel`));
            return null;
        }

        async function move() {
            const paths = count();
            const answer = await attempt(() => post("crop/aside", {project, names: paths.map((path) => byPicture.get(path)[0].name)}));
            if (!answer) return;
            for (const path of paths) { byPicture.delete(path); chosen.delete(path); }
            acts.push(answer.act);
            undo.disabled = false;
            toast(`${answer.title}: they are in ${answer.folder}.`);
            draw();
            DSM.project.refresh();
            if (after) after();
        }

        async function bringBack() {
            const answer = await attempt(() => post("crop/back", {project, act: acts[acts.length - 1]}));
            if (!answer) return;
            toast(`Undone: ${answer.title}.`);
            DSM.project.refresh();
            close();
            if (after) after();
        }
    };
})();
