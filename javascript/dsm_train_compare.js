// The large view of a preview: step by step with the arrow keys, and two steps over each other with a slider between.
"use strict";

(function () {
    const {h, fileAddress, thumbnail} = DSM;
    const train = (DSM.train = DSM.train || {});

    // run: {steps, rows [{prompt, seed, cells: Map step → preview}], published, busy}; at: {row, step, other};
    // acts: {use(step), go(step), closed({row, step})}.
    train.compare = (run, at, acts) => {
        let {row, step, other} = at;
        let share = 50; // where the slider stands, percent from the left
        const after = h("img", {alt: "", draggable: "false"});
        const before = h("img", {class: "dsm-compare-before", alt: "", draggable: "false"});
        const line = h("div", {class: "dsm-compare-line", role: "slider", tabindex: "0", "aria-label": "Slider between the two steps", "aria-valuemin": "0", "aria-valuemax": "100"}, h("i", {}, "⇔"));
        const [left, right] = [h("span", {class: "dsm-compare-label dsm-compare-left"}), h("span", {class: "dsm-compare-label dsm-compare-right"})];
        const stage = h("div", {class: "dsm-compare-stage"}, after, before, line, left, right);
        const prompt = h("div", {class: "dsm-compare-prompt"});
        const strip = h("div", {class: "dsm-compare-strip", role: "listbox", "aria-label": "Steps"});
        const button = (text, act, attributes) => h("button", {class: "dsm-button", onclick: act, ...attributes}, text);
        const toggle = button("Compare", () => { other = other === null ? opposite() : null; draw(); }, {id: "dsm_compare_toggle"});
        const use = button("Use this one", () => { close(); acts.use(step); });
        const go = button("Continue from here…", () => { close(); acts.go(step); });
        // Inside the WebUI alone; its own tab draws with the step that is in use.
        const send = DSM.webui ? button("→ txt2img", async () => {
            const [sent, path] = [step, here().get(step).path];
            close();
            if (await DSM.webui.sendToTxt2img(path) && sent !== run.published) DSM.toast(`txt2img draws with ${run.published === null ? "what is in use, if anything" : `step ${run.published}, which is in use`}; “Use step ${sent}” changes that.`);
        }, {id: "dsm_send_txt2img", title: "Put this picture's prompt and settings into the tab txt2img"}) : null;
        const overlay = h("div", {class: "dsm-overlay dsm-compare", tabindex: "-1", role: "dialog", "aria-modal": "true", "aria-label": "Preview"},
            h("div", {class: "dsm-compare-head"}, prompt, toggle, ...[send].filter(Boolean), use, go, button("Close", () => close(), {"aria-label": "Close"})), stage, strip,
            h("div", {class: "dsm-compare-keys"}, h("kbd", {}, "←"), h("kbd", {}, "→"), "step", h("kbd", {}, "↑"), h("kbd", {}, "↓"), "prompt", h("kbd", {}, "C"), "compare",
                h("kbd", {}, "Shift"), h("kbd", {}, "←"), h("kbd", {}, "→"), "the other step", h("kbd", {}, "A"), h("kbd", {}, "D"), "slider", h("kbd", {}, "Esc"), "close"));

        const here = () => run.rows[row].cells;
        const known = () => run.steps.filter((item) => here().has(item));

        // What a step is compared with at first: the newest one, or the oldest.
        const opposite = () => { const list = known(); return list.length < 2 ? null : step === list[list.length - 1] ? list[0] : list[list.length - 1]; };

        function show(image, preview) {
            const address = preview ? fileAddress(preview.path, preview.stamp) : "";
            if (image.getAttribute("src") !== address) image.setAttribute("src", address);
        }

        function draw() {
            if (!here().has(step)) step = known()[known().length - 1];
            if (other !== null && (!here().has(other) || other === step)) other = opposite();
            const two = other !== null;
            // The earlier of the two is on the left, so that the slider moves along the training.
            const [first, second] = two && other > step ? [step, other] : [other, step];
            const main = here().get(step);
            show(after, here().get(second));
            if (two) show(before, here().get(first));
            before.hidden = line.hidden = left.hidden = !two;
            const size = main.width && main.height ? main.width / main.height : 0;
            stage.style.aspectRatio = size ? String(size) : "";
            after.alt = `step ${second}`;
            before.alt = two ? `step ${first}` : "";
            left.textContent = `step ${first}`;
            right.textContent = `step ${second}`;
            prompt.replaceChildren(h("b", {}, two ? `Step ${first} against ${second}` : `Step ${step}`), h("span", {}, run.rows[row].prompt),
                h("small", {}, [run.rows.length > 1 ? `prompt ${row + 1} of ${run.rows.length}` : "", main.seed !== undefined && main.seed !== null ? `seed ${main.seed}` : ""].filter(Boolean).join("  ·  ")));
            toggle.textContent = two ? "One picture" : "Compare";
            toggle.disabled = known().length < 2;
            use.disabled = run.busy || step === run.published;
            go.disabled = run.busy;
            use.textContent = step === run.published ? `Step ${step} is in use` : `Use step ${step}`;
            go.textContent = `Continue from ${step}…`;
            use.title = go.title = run.busy ? DSM.translated("When the run has ended") : "";
            strip.replaceChildren(...known().map((item) => h("button", {
                class: `dsm-compare-thumb${item === step ? " dsm-chosen" : ""}${item === other ? " dsm-other" : ""}`, role: "option", "aria-selected": String(item === step),
                onclick: (event) => { if (event.shiftKey || (other !== null && event.altKey)) other = item; else step = item; draw(); },
            }, h("img", {src: thumbnail(here().get(item).path, 128, here().get(item).stamp), alt: "", loading: "lazy"}), String(item))));
            const current = strip.querySelector(".dsm-chosen");
            if (current) current.scrollIntoView({block: "nearest", inline: "nearest"});
            slide(share);
            for (const neighbour of [-1, 1]) { // so that the next key shows its picture at once
                const next = here().get(known()[known().indexOf(step) + neighbour]);
                if (next) new Image().src = fileAddress(next.path, next.stamp);
            }
        }

        function slide(to) {
            share = Math.min(100, Math.max(0, to));
            before.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
            line.style.left = `${share}%`;
            line.setAttribute("aria-valuenow", String(Math.round(share)));
        }

        const turn = (from, by) => { const list = known(); return list[Math.min(list.length - 1, Math.max(0, list.indexOf(from) + by))]; };

        function close() {
            overlay.remove();
            acts.closed({row, step});
        }

        stage.addEventListener("pointerdown", (event) => {
            if (other === null) return;
            event.preventDefault();
            stage.setPointerCapture(event.pointerId);
            const follow = (now) => { const box = stage.getBoundingClientRect(); slide((100 * (now.clientX - box.left)) / box.width); };
            follow(event);
            stage.addEventListener("pointermove", follow);
            stage.addEventListener("lostpointercapture", () => stage.removeEventListener("pointermove", follow), {once: true});
        });
        overlay.addEventListener("click", (event) => { if (event.target === overlay) close(); });
        overlay.addEventListener("keydown", (event) => {
            event.stopPropagation();
            const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
            if ((key === "Enter" || key === " ") && event.target.tagName === "BUTTON") return;
            if (key === "Tab") return trap(event);
            if (key === "Escape") close();
            else if (key === "ArrowLeft" || key === "ArrowRight") {
                const by = key === "ArrowLeft" ? -1 : 1;
                if (event.shiftKey && other !== null) {
                    const next = turn(other, by);
                    other = next === step ? turn(next, by) : next;
                    if (other === step) other = turn(step, -by);
                } else step = turn(step, by);
                draw();
            } else if (key === "ArrowUp" || key === "ArrowDown") {
                row = Math.min(run.rows.length - 1, Math.max(0, row + (key === "ArrowUp" ? -1 : 1)));
                draw();
            } else if (key === "c") toggle.click();
            else if (key === "a" || key === "d") slide(share + (key === "a" ? -4 : 4));
            else return;
            event.preventDefault();
        });

        // Tab stays in the dialog.
        function trap(event) {
            const stops = [...overlay.querySelectorAll("button:not(:disabled), [tabindex='0']")].filter((item) => item.offsetParent !== null);
            const [first, last] = [stops[0], stops[stops.length - 1]];
            if (event.shiftKey && (document.activeElement === first || document.activeElement === overlay)) { event.preventDefault(); last.focus(); }
            else if (!event.shiftKey && document.activeElement === last) { event.preventDefault(); first.focus(); }
        }

        DSM.over(overlay);
        draw();
        overlay.focus();
    };
})();
