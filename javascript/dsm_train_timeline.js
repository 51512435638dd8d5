// The previews of a run: prompts down, steps across. A step chosen here can be used, continued from, or compared.
"use strict";

(function () {
    const {h, thumbnail} = DSM;
    const train = (DSM.train = DSM.train || {});
    const SIZES = {small: 88, medium: 128, large: 208}; // pixels a picture
    const SIZE_KEY = "dsm.train.thumbs";

    // Where a request's pictures stand: runs of earlier times tell it by the file's name alone.
    const rowOf = (preview) => preview.index ?? Number((/-(\d+)\.\w+$/.exec(preview.path) || [0, 1])[1]) - 1;

    // acts: {use(step), go(step), busy()}; `update(data)` gets a run's data.
    train.timeline = (acts) => {
        let [steps, rows, saved, chosen, published, key] = [[], [], [], null, null, ""];
        let follows = true; // the newest step stays chosen until the person chooses another one
        let side = localStorage.getItem(SIZE_KEY) in SIZES ? localStorage.getItem(SIZE_KEY) : "medium";

        const grid = h("div", {class: "dsm-timeline", id: "dsm_previews", role: "grid", "aria-label": "Previews: prompts down, steps across"});
        const sizes = h("div", {class: "dsm-segments", role: "group", "aria-label": "Size of the pictures"}, Object.keys(SIZES).map((name) =>
            h("button", {"aria-pressed": String(name === side), title: `${name} pictures`, onclick: (event) => {
                side = name;
                localStorage.setItem(SIZE_KEY, name);
                for (const button of event.target.parentNode.children) button.setAttribute("aria-pressed", String(button === event.target));
                resize();
            }}, name[0].toUpperCase())));
        const select = h("select", {class: "dsm-field", id: "dsm_step", "aria-label": "Step", onchange: () => choose(Number(select.value))});
        const use = h("button", {class: "dsm-button", id: "dsm_use_step", onclick: () => acts.use(chosen)}, "Use this one");
        const go = h("button", {class: "dsm-button", id: "dsm_continue_step", onclick: () => acts.go(chosen)}, "Continue from here…");
        const compare = h("button", {class: "dsm-button", id: "dsm_compare_step", title: "Look at two steps side by side, with a slider between them", onclick: () => {
            const others = steps.filter((step) => step !== chosen);
            if (steps.includes(chosen) && others.length) open(0, chosen, others[chosen === steps[0] ? others.length - 1 : 0]);
        }}, "Compare");
        const note = h("span", {class: "dsm-subdued"});
        const bar = h("div", {class: "dsm-toolbar dsm-step-bar"}, h("label", {}, "Step", select), use, go, compare, note);
        const empty = h("div", {class: "dsm-timeline-empty"});
        const element = h("div", {class: "dsm-timeline-box"}, h("div", {class: "dsm-caption"}, "Previews", h("span", {class: "dsm-subdued"}, "click a picture for the large view; arrow keys move"), h("span", {class: "dsm-spring"}), sizes), empty, grid, bar);
        element.style.setProperty("--side", `${SIZES[side]}px`);

        function resize() {
            element.style.setProperty("--side", `${SIZES[side]}px`);
            for (const image of grid.querySelectorAll("img")) image.src = picture(image.dataset.path, image.dataset.stamp);
        }

        const picture = (path, stamp) => thumbnail(path, Math.min(512, Math.ceil(SIZES[side] * Math.min(2, window.devicePixelRatio || 1) / 64) * 64), stamp);

        // The newest step stays in view until the person scrolls away from it; also where the tab was not open yet.
        let atEnd = true;
        const toEnd = () => { if (atEnd) grid.scrollLeft = grid.scrollWidth; };
        grid.addEventListener("scroll", () => { atEnd = grid.scrollLeft + grid.clientWidth >= grid.scrollWidth - 8; });
        new ResizeObserver(toEnd).observe(grid);

        function update(data, running) {
            const previews = data.previews || [];
            saved = data.saved || [];
            published = data.published_step ?? null;
            const now = JSON.stringify([previews.map((preview) => [preview.path, preview.step]), saved, published]);
            empty.textContent = previews.length ? "" : running ? "The first preview comes at its step, or with Preview now." : "No previews were made.";
            empty.hidden = Boolean(previews.length);
            if (now !== key) {
                key = now;
                draw(previews);
            }
            refresh();
        }

        function draw(previews) {
            steps = [...new Set(previews.map((preview) => preview.step))].sort((a, b) => a - b);
            const byRow = new Map();
            for (const preview of previews) {
                const row = rowOf(preview);
                if (!byRow.has(row)) byRow.set(row, new Map());
                byRow.get(row).set(preview.step, preview);
            }
            rows = [...byRow.keys()].sort((a, b) => a - b).map((row) => {
                const cells = byRow.get(row);
                const prompt = [...cells.values()].map((preview) => preview.prompt).find(Boolean) || `Preview ${row + 1}`;
                return {row, cells, prompt, seed: [...cells.values()].map((preview) => preview.seed).find((seed) => seed !== undefined && seed !== null)};
            });
            const all = [...new Set([...steps, ...saved])].sort((a, b) => a - b);
            if (follows || !all.includes(chosen)) chosen = steps.length ? steps[steps.length - 1] : all.length ? all[all.length - 1] : null;
            select.replaceChildren(...all.map((step) => h("option", {value: String(step)}, `${step}${step === published ? " (in use)" : ""}`)));
            const focus = document.activeElement && grid.contains(document.activeElement) ? document.activeElement.dataset.place : null;
            grid.style.setProperty("--columns", steps.length);
            grid.hidden = !steps.length;
            grid.replaceChildren(h("div", {class: "dsm-timeline-corner", role: "columnheader"}, "prompt \\ step"), ...steps.map((step) => header(step)),
                ...rows.flatMap((row, index) => [
                    h("div", {class: "dsm-timeline-prompt", role: "rowheader", title: row.prompt}, h("span", {}, row.prompt), row.seed !== undefined ? h("small", {}, `seed ${row.seed}`) : null),
                    ...steps.map((step) => cell(index, step)),
                ]));
            if (focus) { const again = grid.querySelector(`[data-place="${focus}"]`); if (again) again.focus({preventScroll: true}); }
            toEnd();
        }

        const header = (step) => h("button", {class: "dsm-timeline-step", role: "columnheader", "data-step": String(step), onclick: () => choose(step),
            title: step === published ? "This step is in use" : saved.includes(step) ? "Saved: it can be used and continued from" : "It can be used and continued from, with the optimizer begun anew"},
        String(step), h("i", {class: step === published ? "dsm-used" : saved.includes(step) ? "dsm-saved" : ""}));

        function cell(index, step) {
            const preview = rows[index].cells.get(step);
            if (!preview) return h("div", {class: "dsm-timeline-none", role: "gridcell"});
            return h("button", {class: "dsm-preview", role: "gridcell", "data-place": `${index}/${step}`, "data-step": String(step), title: `step ${step}: ${rows[index].prompt}`,
                onclick: () => { choose(step); open(index, step, null); }, onkeydown: (event) => move(event, index, step)},
            h("img", {src: picture(preview.path, preview.stamp), alt: `step ${step}: ${rows[index].prompt}`, loading: "lazy", "data-path": preview.path, "data-stamp": String(preview.stamp || 0)}));
        }

        function move(event, index, step) {
            const place = steps.indexOf(step);
            const [down, across] = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key] || [0, 0];
            if (!down && !across) return;
            event.preventDefault();
            const next = grid.querySelector(`[data-place="${index + down}/${steps[place + across]}"]`);
            if (next) { next.focus(); choose(Number(next.dataset.step)); }
        }

        function choose(step) {
            chosen = step;
            follows = steps.length > 0 && step === steps[steps.length - 1];
            refresh();
        }

        function refresh() {
            bar.hidden = chosen === null;
            select.value = String(chosen);
            for (const item of grid.querySelectorAll("[data-step]")) item.classList.toggle("dsm-chosen", Number(item.dataset.step) === chosen);
            // A step that was not saved has a preview, which holds its vectors.
            const busy = acts.busy();
            use.disabled = chosen === published || busy;
            go.disabled = busy;
            compare.disabled = !steps.includes(chosen) || steps.length < 2;
            note.textContent = chosen === published ? "is the one in use." : busy ? "can be used and continued from when the run has ended."
                : saved.includes(chosen) ? "" : "is kept in its preview, without the optimizer's state.";
        }

        function open(row, step, other) {
            train.compare({steps, rows, published, busy: acts.busy()}, {row, step, other},
                {use: acts.use, go: acts.go, closed: (last) => { choose(last.step); const at = grid.querySelector(`[data-place="${last.row}/${last.step}"]`); if (at) at.focus(); }});
        }

        return {element, update};
    };
})();
