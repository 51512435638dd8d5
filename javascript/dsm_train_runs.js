// The runs there are, and the one that is looked at: a running one by itself, others when they are chosen.
"use strict";

(function () {
    const {h, get, line, thumbnail, plural} = DSM;
    const train = (DSM.train = DSM.train || {});
    const LOOK = 6000; // milliseconds between two looks at the list
    const listeners = [];
    let shown = {job: null, run: null}; // what the panel shows
    let picked = false; // the person looks at a run that was chosen

    const shows = (subject) => { shown = {job: null, run: null, ...subject}; listeners.forEach((listener) => listener()); };

    DSM.widgets.trainrun = (place) => {
        const messages = h("div", {"aria-live": "polite"});
        const stage = h("div", {});
        place.replaceChildren(messages, stage);
        let turn = 0; // a later wish makes an earlier answer worthless

        // Takes a line that is made, or the parts of one.
        train.say = (kind, problem, remedy) => {
            messages.replaceChildren(kind instanceof Node ? kind : line(kind, problem, remedy));
            if (DSM.visible(place)) messages.scrollIntoView({block: "nearest", behavior: "smooth"});
        };

        // Follow a job to its end. `quiet`: found by looking, not started here just now.
        train.follow = async (id, quiet) => {
            const mine = ++turn;
            if (!quiet) picked = false;
            let job;
            try {
                job = await get(`jobs/${id}`);
            } catch (error) {
                return train.say("error", error.problem || error.message, error.remedy);
            }
            if (mine !== turn) return;
            if (!quiet) messages.replaceChildren(); // what was said meanwhile stays
            const view = train.panel(job, null);
            view.update(job);
            stage.replaceChildren(view.element);
            shows({job: id, run: job.data.name});
            if (!quiet && DSM.visible(place)) view.element.scrollIntoView({block: "start", behavior: "smooth"});
            DSM.job.follow(id, () => mine === turn && place.isConnected, view, (ended) => {
                DSM.tell("ended", ended);
                DSM.project.refresh();
                shows({job: id, run: ended.data.name});
                if (ended.state === "failed") DSM.toast(ended.error, "error");
            });
        };

        train.showRun = async (name, quiet) => {
            const mine = ++turn;
            try {
                const {job, stamp, begun} = await get("train/run", {run: name});
                if (mine !== turn) return;
                if (!quiet) messages.replaceChildren();
                const view = train.panel(job, {name, stamp, begun});
                view.update(job);
                stage.replaceChildren(view.element);
                shows({run: name});
                if (!quiet && DSM.visible(place)) view.element.scrollIntoView({block: "nearest", behavior: "smooth"});
            } catch (error) {
                if (mine === turn && !quiet) train.say("error", error.problem || error.message, error.remedy);
            }
        };

        train.loadRun = async (name) => {
            try {
                const {config} = await get("train/run", {run: name});
                const notes = train.take(config);
                train.say(train.taken(name, notes, "Give it another name, or allow overwriting, to start anew."));
            } catch (error) {
                train.say("error", error.problem || error.message, error.remedy);
            }
        };

        // On a page that was loaded anew: the job that runs, else the newest run.
        const begin = async () => {
            const {jobs} = await get("jobs", {tab: "train"}).catch(() => ({jobs: []}));
            const running = jobs.filter((job) => job.state === "running" && job.unit === "steps").pop();
            if (running) return train.follow(running.id, true);
            const {runs} = await get("train/runs").catch(() => ({runs: []}));
            const newest = runs.find((run) => !run.problem);
            if (newest && !turn) train.showRun(newest.name, true);
            return undefined;
        };
        begin();
    };

    DSM.widgets.trainruns = (place) => {
        const strip = h("div", {class: "dsm-runs", id: "dsm_train_runs"});
        const count = h("span", {class: "dsm-subdued"});
        const box = h("div", {hidden: true}, h("div", {class: "dsm-caption"}, "Runs", count), strip);
        place.replaceChildren(box);
        let known = "";
        let runs = [];
        let followed = null;

        async function look() {
            if (!DSM.visible(place.parentElement) || document.hidden) return;
            try {
                runs = (await get("train/runs")).runs;
            } catch (error) {
                return; // the panel tells of a program that is gone
            }
            // Another window started a training: it appears here, unless the person looks at another run.
            const running = runs.find((run) => run.job);
            if (running && running.job !== shown.job && running.job !== followed && (shown.run === running.name || !picked)) {
                followed = running.job;
                train.follow(running.job, true);
            }
            draw();
        }

        function draw() {
            const text = JSON.stringify([runs, shown.run]);
            if (text === known) return;
            known = text;
            box.hidden = !runs.length;
            count.textContent = `${runs.length}, the newest first`;
            const focus = document.activeElement && strip.contains(document.activeElement) ? document.activeElement.dataset.run : null;
            strip.replaceChildren(...runs.map(card));
            if (focus) { const again = [...strip.children].find((item) => item.dataset.run === focus); if (again) again.focus({preventScroll: true}); }
        }

        function card(run) {
            const where = run.problem || (run.job ? `training, ${run.step} / ${run.max_steps}` : `${run.step} / ${run.max_steps} steps`);
            return h("button", {class: `dsm-run-card${run.job ? " dsm-running" : ""}`, "aria-pressed": String(run.name === shown.run), "data-run": run.name,
                title: `${run.name}\n${where}${run.begun ? `\nbegun ${run.begun.replace("T", " ")}` : ""}`,
                onclick: () => { if (run.problem) return train.say("warn", `${run.name} cannot be shown.`, run.problem); picked = !run.job; return run.job ? train.follow(run.job) : train.showRun(run.name); }},
            run.picture ? h("img", {src: thumbnail(run.picture, 128, run.stamp), alt: "", loading: "lazy"}) : h("span", {class: "dsm-run-blank"}, "∅"),
            h("span", {class: "dsm-run-name"}, run.name), h("small", {}, where));
        }

        listeners.push(() => { draw(); setTimeout(look, 400); });
        DSM.on("ended", () => setTimeout(look, 200));
        setInterval(look, LOOK);
        new IntersectionObserver(look).observe(place.parentElement);
        look();
    };
})();
