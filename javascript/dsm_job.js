// The panel of a long act: title, bar, time left, log, picture, Cancel. A training run shows its curve and previews too.
"use strict";

(function () {
    const {h, svg, get, post, attempt, line, duration, lightbox, fileAddress} = DSM;
    const POLL = 700; // milliseconds between two looks

    function follow(place, id, view, ended) {
        const look = async () => {
            if (!place.isConnected || place.dsmJob !== id) return;
            let wait = POLL;
            try {
                const job = await get(`jobs/${id}`);
                view.update(job);
                if (job.state !== "running") return ended(job);
            } catch (error) {
                view.problem(error);
                if (error.status) return; // the job is gone
                wait = 4 * POLL;
            }
            setTimeout(look, document.hidden ? 4 * POLL : wait);
        };
        place.dsmJob = id;
        look();
    }

    function panel(job) {
        const training = job.data.kind === "training";
        const fillBar = h("div", {class: "dsm-bar-fill"});
        const bar = h("div", {class: "dsm-bar", role: "progressbar", "aria-label": job.title}, fillBar);
        const title = h("b", {class: "dsm-job-title"}, job.title);
        const numbers = h("span", {class: "dsm-job-numbers"});
        const text = h("div", {class: "dsm-job-text"});
        const log = h("details", {class: "dsm-log"}, h("summary", {}, "Log"), h("pre", {}));
        const picture = h("img", {class: "dsm-job-picture", alt: "", hidden: true});
        const notes = h("div", {class: "dsm-job-notes"});
        const ask = (wish) => attempt(async () => {
            await post(`jobs/${job.id}/ask`, {wish});
            DSM.toast(wish === "save" ? "A copy will be saved at the next step." : "A preview will be made at the next step.");
        });
        const cancel = h("button", {
            class: "dsm-button dsm-stop", id: `dsm_cancel_${job.data.tab || "job"}`,
            onclick: () => attempt(() => post(`jobs/${job.id}/cancel`)),
        }, training ? "Stop and save" : "Cancel");
        const buttons = h("div", {class: "dsm-job-buttons"},
            training ? h("button", {class: "dsm-button", id: "dsm_preview_now", onclick: () => ask("preview")}, "Preview now") : null,
            training ? h("button", {class: "dsm-button", id: "dsm_save_now", onclick: () => ask("save")}, "Save now") : null,
            cancel);
        const chart = training ? lossChart() : null;
        const gallery = training ? previews() : null;
        const element = h("div", {class: "dsm-job-panel"},
            h("div", {class: "dsm-job-head"}, title, numbers, buttons), bar, h("div", {class: "dsm-job-now"}, picture, text), notes,
            chart && chart.element, gallery && gallery.element, log);

        function update(now) {
            const share = now.total ? Math.min(1, now.done / now.total) : 0;
            const running = now.state === "running";
            element.dataset.state = now.state;
            fillBar.style.width = `${100 * (now.state === "done" ? 1 : share)}%`;
            bar.classList.toggle("dsm-unknown", running && !now.total);
            bar.setAttribute("aria-valuenow", Math.round(100 * share));
            const rate = now.rate >= 1 ? `${now.rate.toFixed(1)} ${now.unit || "steps"}/s` : now.rate > 0 ? `${(1 / now.rate).toFixed(1)} s each` : "";
            numbers.textContent = [
                now.total ? `${now.done} / ${now.total} ${now.unit}`.trim() : "",
                running ? rate : "",
                running && now.left !== null ? `${duration(now.left)} left` : `${duration(now.elapsed)}`,
                now.cancelling ? "stopping…" : {done: "done", failed: "failed", cancelled: "stopped", running: ""}[now.state],
            ].filter(Boolean).join("  ·  ");
            text.textContent = running ? now.text : now.data.summary || now.text;
            buttons.hidden = !running;
            cancel.disabled = now.cancelling;
            const lines = log.querySelector("pre");
            log.hidden = !now.lines.length;
            if (lines.textContent !== now.lines.join("\n")) {
                lines.textContent = now.lines.join("\n");
                lines.scrollTop = lines.scrollHeight;
            }
            if (now.picture && !training && picture.dataset.path !== now.picture) {
                picture.dataset.path = now.picture;
                picture.src = DSM.thumbnail(now.picture, 128);
                picture.hidden = false;
            }
            if (!running) picture.hidden = true;
            notes.replaceChildren(...noteLines(now));
            if (chart) chart.update(now.data.losses || [], now.total);
            if (gallery) gallery.update(now.data.previews || []);
        }

        return {element, update, problem: (error) => { text.textContent = error.message; }};
    }

    function noteLines(job) {
        const found = (job.data.findings || []).map((finding) => DSM.line(finding.severity, finding.problem, finding.remedy));
        if (job.state === "failed") found.unshift(line("error", job.error));
        if (job.state !== "running" && (job.data.problems || []).length) {
            found.push(...job.data.problems.map((problem) => line("warn", problem)));
        }
        if (job.state !== "running" && job.data.published) {
            found.push(line("ok", `${job.data.name} is ready.`, `Write ${job.data.name} in a prompt to use it; the file is ${job.data.published}.`));
        }
        return found;
    }

    // ---- the loss curve ------------------------------------------------------------------------------------------

    function smooth(points) {
        // An exponential mean without the bias of its start.
        const weight = 1 - 1 / Math.max(1, Math.min(25, points.length / 8));
        let [sum, norm] = [0, 0];
        return points.map(([step, loss]) => {
            sum = weight * sum + (1 - weight) * loss;
            norm = weight * norm + (1 - weight);
            return [step, sum / norm];
        });
    }

    function ticks(low, high, count) {
        const rough = (high - low) / count || 1;
        const power = 10 ** Math.floor(Math.log10(rough));
        const size = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
        const found = [];
        for (let value = Math.ceil(low / size) * size; value <= high + 1e-9 * size; value += size) found.push(value);
        return found;
    }

    function lossChart() {
        const [width, height, left, right, top, bottom] = [900, 200, 52, 12, 12, 26];
        const drawing = svg("svg", {viewBox: `0 0 ${width} ${height}`, class: "dsm-chart", role: "img", "aria-label": "Loss by step"});
        const tip = h("div", {class: "dsm-chart-tip"});
        const element = h("div", {class: "dsm-chart-box", hidden: true}, h("div", {class: "dsm-caption"}, "Loss", tip), drawing);
        let shown = 0;
        let place = null;

        function update(losses, total) {
            const points = losses.filter(([, loss]) => loss !== null);
            if (points.length < 2 || points.length === shown) return;
            shown = points.length;
            element.hidden = false;
            const [first, last] = [points[0][0], Math.max(points[points.length - 1][0], points[0][0] + 1)];
            const sorted = points.map(([, loss]) => loss).sort((a, b) => a - b);
            const [low, high] = [sorted[0], sorted[sorted.length - 1]];
            const margin = (high - low) * 0.08 || high * 0.1 || 1;
            const x = (step) => left + ((step - first) / (last - first)) * (width - left - right);
            const y = (loss) => height - bottom - ((loss - low + margin) / (high - low + 2 * margin)) * (height - top - bottom);
            const path = (list) => list.map(([step, loss], index) => `${index ? "L" : "M"}${x(step).toFixed(1)} ${y(loss).toFixed(1)}`).join("");
            const parts = [];
            for (const value of ticks(low, high, 4)) {
                const label = svg("text", {x: left - 8, y: y(value) + 4, class: "dsm-tick dsm-tick-y"});
                label.textContent = Number(value.toPrecision(3));
                parts.push(svg("line", {x1: left, x2: width - right, y1: y(value), y2: y(value), class: "dsm-grid"}), label);
            }
            for (const value of ticks(first, last, 8).filter(Number.isInteger)) {
                const label = svg("text", {x: x(value), y: height - 8, class: "dsm-tick dsm-tick-x"});
                label.textContent = value;
                parts.push(label);
            }
            const mean = smooth(points);
            parts.push(svg("path", {d: path(points), class: "dsm-curve-raw"}), svg("path", {d: path(mean), class: "dsm-curve"}));
            place = {points, mean, x};
            drawing.replaceChildren(...parts);
            const [step, loss] = mean[mean.length - 1];
            tip.textContent = `${loss.toPrecision(3)} at step ${step}${total ? ` of ${total}` : ""}`;
        }

        drawing.addEventListener("mousemove", (event) => {
            if (!place) return;
            const box = drawing.getBoundingClientRect();
            const at = ((event.clientX - box.left) / box.width) * width;
            let nearest = 0;
            place.points.forEach(([step], index) => {
                if (Math.abs(place.x(step) - at) < Math.abs(place.x(place.points[nearest][0]) - at)) nearest = index;
            });
            const [step, loss] = place.points[nearest];
            tip.textContent = `step ${step}: ${loss.toPrecision(3)}, smoothed ${place.mean[nearest][1].toPrecision(3)}`;
        });
        return {element, update};
    }

    // ---- previews by step ----------------------------------------------------------------------------------------

    function previews() {
        const strip = h("div", {class: "dsm-previews", id: "dsm_previews"});
        const element = h("div", {hidden: true}, h("div", {class: "dsm-caption"}, "Previews"), strip);
        let shown = "";
        function update(list) {
            const key = list.map((item) => item.path).join("\n");
            if (key === shown) return;
            shown = key;
            element.hidden = !list.length;
            const items = [...list].reverse();
            const views = items.map((item) => ({address: fileAddress(item.path), label: `step ${item.step}${item.prompt ? ": " + item.prompt : ""}`}));
            strip.replaceChildren(...items.map((item, index) => h("button", {class: "dsm-preview", title: item.prompt || "", onclick: () => lightbox(views, index)},
                h("img", {src: views[index].address, alt: views[index].label, loading: "lazy"}), h("span", {}, `step ${item.step}`))));
        }
        return {element, update};
    }

    // What a training leaves behind can be chosen at once.
    DSM.on("ended", (job) => {
        if (job.data.kind === "training") for (const id of ["dsm_lora_refresh", "dsm_train_runs_refresh"]) DSM.press(id);
    });

    // ---- the place in a tab ----------------------------------------------------------------------------------------

    // data-tab: whose jobs; data-job: the one just started; else the tab's newest, so that a reload finds it again.
    DSM.widgets.job = async (place) => {
        const {tab, problem, remedy, note, kind} = place.dataset;
        const messages = [];
        if (problem) messages.push(line(kind || "error", problem, remedy));
        if (note) messages.push(line(kind || "ok", note, remedy));
        place.replaceChildren(...messages);
        let id = place.dataset.job;
        if (!id) {
            const answer = await get("jobs", {tab}).catch(() => ({jobs: []}));
            const newest = answer.jobs[answer.jobs.length - 1];
            if (!newest || (newest.state !== "running" && (messages.length || tab !== "train"))) return;
            id = newest.id;
        }
        let job;
        try {
            job = await get(`jobs/${id}`);
        } catch (error) {
            place.replaceChildren(...messages, line("error", error.problem, error.remedy));
            return;
        }
        const fresh = job.state === "running" || Boolean(place.dataset.job);
        const view = panel(job);
        view.update(job);
        place.replaceChildren(...messages, view.element);
        if (place.dataset.job && DSM.visible(place)) view.element.scrollIntoView({block: "nearest", behavior: "smooth"});
        follow(place, id, view, (ended) => {
            if (!fresh) return;
            DSM.tell("ended", ended);
            DSM.project.refresh();
            if (ended.state !== "failed") return;
            DSM.toast(ended.error, "error");
            if (DSM.visible(place)) view.element.scrollIntoView({block: "nearest"});
        });
    };

})();
