// The panel of a long act: title, bar, time left, log, picture, Cancel. A training has a panel of its own (dsm_train_run).
"use strict";

(function () {
    const {h, get, post, attempt, line, duration} = DSM;
    const POLL = 700; // milliseconds between two looks

    // Look at a job until it has ended or `wanted` says no; `view` has update(job) and problem(error).
    function follow(id, wanted, view, ended) {
        const look = async () => {
            if (!wanted()) return;
            let wait = POLL;
            try {
                const job = await get(`jobs/${id}`);
                if (!wanted()) return;
                view.update(job);
                if (job.state !== "running") return ended(job);
            } catch (error) {
                view.problem(error);
                if (error.status) return; // the job is gone
                wait = 4 * POLL;
            }
            setTimeout(look, document.hidden ? 4 * POLL : wait);
        };
        look();
    }

    function panel(job) {
        const fillBar = h("div", {class: "dsm-bar-fill"});
        const bar = h("div", {class: "dsm-bar", role: "progressbar", "aria-label": job.title}, fillBar);
        const title = h("b", {class: "dsm-job-title"}, job.title);
        const numbers = h("span", {class: "dsm-job-numbers"});
        const text = h("div", {class: "dsm-job-text"});
        const log = DSM.log();
        const picture = h("img", {class: "dsm-job-picture", alt: "", hidden: true});
        const notes = h("div", {class: "dsm-job-notes"});
        const cancel = h("button", {
            class: "dsm-button dsm-stop", id: `dsm_cancel_${job.data.tab || "job"}`,
            onclick: () => attempt(() => post(`jobs/${job.id}/cancel`)),
        }, "Cancel");
        const element = h("div", {class: "dsm-job-panel"},
            h("div", {class: "dsm-job-head"}, title, numbers, h("div", {class: "dsm-job-buttons"}, cancel)), bar,
            h("div", {class: "dsm-job-now"}, picture, text), notes, log.element);

        function update(now) {
            const running = now.state === "running";
            element.dataset.state = now.state;
            showBar(bar, fillBar, now);
            const rate = now.rate >= 1 ? `${now.rate.toFixed(1)} ${now.unit || "steps"}/s` : now.rate > 0 ? `${(1 / now.rate).toFixed(1)} s each` : "";
            numbers.textContent = [
                now.total ? `${now.done} / ${now.total} ${now.unit}`.trim() : "",
                running ? rate : "",
                running && now.left !== null ? `${duration(now.left)} left` : `${duration(now.elapsed)}`,
                now.cancelling ? "stopping…" : {done: "done", failed: "failed", cancelled: "stopped", running: ""}[now.state],
            ].filter(Boolean).join("  ·  ");
            text.textContent = running ? now.text : now.data.summary || now.text;
            cancel.hidden = !running;
            cancel.disabled = now.cancelling;
            log.update(now.lines);
            if (now.picture && picture.dataset.path !== now.picture) {
                picture.dataset.path = now.picture;
                picture.src = DSM.thumbnail(now.picture, 128);
                picture.hidden = false;
            }
            if (!running) picture.hidden = true;
            notes.replaceChildren(...noteLines(now));
        }

        return {element, update, problem: (error) => { text.textContent = error.message; }};
    }

    function showBar(bar, fill, job) {
        const share = job.total ? Math.min(1, job.done / job.total) : 0;
        fill.style.width = `${100 * (job.state === "done" ? 1 : share)}%`;
        bar.classList.toggle("dsm-unknown", job.state === "running" && !job.total);
        bar.setAttribute("aria-valuenow", Math.round(100 * share));
    }

    function noteLines(job) {
        const found = (job.data.findings || []).map((finding) => line(finding.severity, finding.problem, finding.remedy));
        if (job.state === "failed") found.unshift(line("error", job.error));
        if (job.state !== "running") found.push(...(job.data.problems || []).map((problem) => line("warn", problem)));
        return found;
    }

    // A job's log, folded; it stays at its end unless the person scrolled up.
    DSM.log = () => {
        const lines = h("pre", {tabindex: "0"});
        const element = h("details", {class: "dsm-log", ontoggle: () => { lines.scrollTop = lines.scrollHeight; }}, h("summary", {}, "Log"), lines);
        return {element, update: (list) => {
            element.hidden = !list.length;
            const text = list.join("\n");
            if (lines.textContent === text) return;
            const atEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 4;
            lines.textContent = text;
            if (atEnd) lines.scrollTop = lines.scrollHeight;
        }};
    };

    // Follow a job that has no panel: its end is told, and what goes wrong meanwhile.
    const quietly = (id, ended, wanted = () => true) => follow(id, wanted, {update: () => {}, problem: (error) => DSM.toast(error.message, "error")}, ended);
    DSM.job = {follow, quietly, showBar};

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
            if (!newest || newest.state !== "running") return;
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
        place.dsmJob = id;
        if (job.state === "running") DSM.tell("running", {job, place});
        follow(id, () => place.isConnected && place.dsmJob === id, view, (ended) => {
            if (!fresh) return;
            DSM.tell("ended", ended);
            DSM.project.refresh();
            if (ended.state !== "failed") return;
            DSM.toast(ended.error, "error");
            if (DSM.visible(place)) view.element.scrollIntoView({block: "nearest"});
        });
    };
})();
