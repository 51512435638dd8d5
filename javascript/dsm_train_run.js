// A run, while it trains and afterwards: where it stands, its curves, what the guards and validations say, its previews.
"use strict";

(function () {
    const {h, get, post, attempt, toast, line, duration, plural} = DSM;
    const train = (DSM.train = DSM.train || {});
    const STATES = {done: "done", failed: "failed", cancelled: "stopped", running: "training"};
    const VERDICTS = {improving: "ok", flat: "warn", overtrained: "warn", broken: "error"};

    // ---- where it stands -------------------------------------------------------------------------------------------------

    function tiles(names) {
        const values = {};
        const element = h("div", {class: "dsm-tiles"}, names.map(([key, label]) => {
            values[key] = h("b", {}, "–");
            return h("div", {class: `dsm-tile dsm-tile-${key}`}, values[key], h("span", {}, label));
        }));
        return {element, set: (key, text) => { if (values[key].textContent !== text) values[key].textContent = text; }};
    }

    const perSecond = (value) => (value === null || value === undefined || !(value > 0) ? "–" : value >= 10 ? value.toFixed(0) : value.toFixed(value >= 1 ? 1 : 2));

    // ---- curves ------------------------------------------------------------------------------------------------------------

    // What the page draws, also from runs that know nothing but their losses.
    function curvesOf(data) {
        if (data.curves && data.curves.step) return data.curves;
        const losses = data.losses || [];
        return {step: losses.map(([step]) => step), loss: losses.map(([, loss]) => loss)};
    }

    // An exponential mean without the bias of its start, where the run does not bring its own.
    function smooth(values) {
        const weight = 1 - 1 / Math.max(1, Math.min(25, values.length / 8));
        let [sum, norm] = [0, 0];
        return values.map((value) => {
            if (value === null) return norm ? sum / norm : null;
            sum = weight * sum + (1 - weight) * value;
            norm = weight * norm + (1 - weight);
            return sum / norm;
        });
    }

    function charts() {
        const group = train.crosshair();
        const loss = train.chart({title: "Loss", height: 230, group, share: 0.95, series: [
            {key: "loss", label: "each point", kind: "faint", color: "dsm-c1", quiet: true}, {key: "smoothed", label: "smoothed", kind: "line", color: "dsm-c1"}]});
        const bands = train.chart({title: "Loss by noise, smoothed", height: 150, group, log: true, bridge: true, series: [0, 1, 2, 3].map((index) => (
            {key: `band${index}`, label: ["little", "some", "much", "most"][index], kind: "thin", color: `dsm-c${index + 2}`, quiet: true}))});
        const vectors = train.chart({title: "Lengths", height: 150, group, range: {label: "words", help: "Lengths of the model's own words: from 5 to 95 % of them"}, series: [
            {key: "mean_norm", label: "length", kind: "line", color: "dsm-c1"}, {key: "movement", label: "moved", kind: "line", color: "dsm-c3"}]});
        const rate = train.chart({title: "Learning rate", height: 150, group, zero: true, series: [{key: "learning_rate", label: "rate", kind: "line", color: "dsm-c1"}]});
        const gradient = train.chart({title: "Gradient", height: 150, group, log: true, share: 0.97, series: [
            {key: "gradient_norm", label: "each point", kind: "faint", color: "dsm-c5", quiet: true}, {key: "smoothed", label: "smoothed", kind: "thin", color: "dsm-c5"}]});
        const validation = train.chart({title: "Validation", height: 150, group, bridge: true, least: 0, waiting: "The first validation comes at its step.", series: [
            {key: "loss", label: "loss on noise never trained on", kind: "dots", color: "dsm-c3"}]});
        const verdict = h("div", {class: "dsm-verdict", "aria-live": "polite"});
        const side = h("div", {class: "dsm-validation"}, verdict, validation.element);
        const element = h("div", {class: "dsm-charts"}, h("div", {class: "dsm-charts-main"}, loss.element, side),
            h("div", {class: "dsm-charts-row"}, bands.element, vectors.element, rate.element, gradient.element));
        let key = "";

        function update(data, running) {
            const found = JSON.stringify([data.curves || data.losses, data.validation, data.verdict, running]);
            if (found === key) return;
            key = found;
            const curves = curvesOf(data);
            const steps = curves.step;
            const words = data.vocabulary;
            const any = (list) => (list || []).some((value) => value !== null);
            loss.update({steps, series: {loss: curves.loss, smoothed: any(curves.smoothed) ? curves.smoothed : smooth(curves.loss)}});
            const four = curves.bands || [];
            bands.element.hidden = !running && !four.some(any);
            bands.update({steps, series: Object.fromEntries(four.map((list, index) => [`band${index}`, smooth(list)]))});
            vectors.element.hidden = !running && !any(curves.mean_norm);
            vectors.update({steps, series: {mean_norm: curves.mean_norm, movement: curves.movement},
                ranges: words ? [words] : []});
            rate.element.hidden = !running && !any(curves.learning_rate);
            rate.update({steps, series: {learning_rate: curves.learning_rate}});
            gradient.element.hidden = !running && !any(curves.gradient_norm);
            gradient.update({steps, series: {gradient_norm: curves.gradient_norm, smoothed: smooth(curves.gradient_norm || [])}});
            const checks = data.validation ? data.validation.series : [];
            side.hidden = !running && !checks.length && !data.verdict;
            element.firstChild.classList.toggle("dsm-alone", side.hidden);
            validation.update({steps: checks.map((check) => check.step), series: {loss: checks.map((check) => check.loss)},
                best: data.validation ? data.validation.best : null});
            verdict.replaceChildren(...judge(data));
        }
        return {element, update};
    }

    function judge(data) {
        const verdict = data.verdict;
        const parts = [];
        if (verdict) {
            const told = line(VERDICTS[verdict.state] || "info", verdict.reason, [verdict.advice, best(verdict)].filter(Boolean).join(" "));
            told.prepend(h("span", {class: "dsm-state-word"}, verdict.state), " ");
            parts.push(h("div", {class: "dsm-caption"}, "Is it cooked?"), told);
        }
        else if (data.validation) parts.push(h("div", {class: "dsm-subdued"}, "The verdict comes with the next validations."));
        else parts.push(h("div", {class: "dsm-subdued"}, "No validations are made; the option is under Watching."));
        if (data.validation && data.validation.note) parts.push(h("small", {class: "dsm-subdued"}, data.validation.note));
        return parts;
    }

    function best(verdict) {
        if (verdict.best === null || verdict.best === undefined || verdict.best === verdict.step) return "";
        const near = verdict.best_saved === null || verdict.best_saved === undefined ? "" : `; the nearest saved step is ${verdict.best_saved}`;
        return `Best at step ${verdict.best}${near}.`;
    }

    // ---- the panel -------------------------------------------------------------------------------------------------------

    // job: as the routes give it; run: {name, stamp, begun} of a run that is over, null for a job of this time.
    train.panel = (job, run) => {
        let now = job;
        const name = () => (run ? run.name : now.data.name);
        const title = h("b", {class: "dsm-job-title"}, job.title);
        const state = h("span", {class: "dsm-state"});
        const fill = h("div", {class: "dsm-bar-fill"});
        const bar = h("div", {class: "dsm-bar", role: "progressbar", "aria-label": job.title}, fill);
        const text = h("span", {class: "dsm-job-text"});
        const numbers = h("span", {class: "dsm-job-numbers"});
        const facts = tiles([["loss", "loss, smoothed"], ["steps", "steps / s"], ["pictures", "pictures / s"], ["left", "left"], ["elapsed", "so far"]].slice(0, run ? 3 : 5));
        const notes = h("div", {class: "dsm-job-notes"});
        const log = DSM.log();
        const drawn = charts();
        const button = (id, label, act, attributes) => h("button", {class: "dsm-button", id, onclick: act, ...attributes}, label);
        const ask = (wish) => attempt(async () => {
            await post(`jobs/${now.id}/ask`, {wish});
            toast(wish === "save" ? "A copy will be saved at the next step." : "A preview will be made at the next step.");
        });
        const preview = button("dsm_preview_now", "Preview now", () => ask("preview"));
        const save = button("dsm_save_now", "Save now", () => ask("save"));
        const stop = button("dsm_cancel_train", "Stop and save", () => attempt(() => post(`jobs/${now.id}/cancel`)), {class: "dsm-button dsm-stop"});
        const until = h("input", {class: "dsm-field", id: "dsm_train_until", type: "number", min: "1", max: "1000000", "aria-label": "Train up to step", title: "Train up to this step"});
        const rate = h("input", {class: "dsm-field dsm-resume-rate", id: "dsm_train_rate", type: "text", title: "The learning rate from here on, as in the form: one rate, or rate:step pairs"});
        const again = button("dsm_train_resume_start", "Resume", () => train.resume(name(), Number(until.value) || 0, rate.value, overridden(now, own)));
        // A run is resumed with its own settings but for these two fields, so what its remarks offer goes into them, and
        // what is taken on is its own: the form is that of another run.
        const taken = new Set();
        const places = {max_steps: until, learning_rate: rate};
        const own = {
            has: (id) => taken.has(id),
            set: (id, on) => { if (on) taken.add(id); else taken.delete(id); },
            takes: (setting) => setting in places,
            fill: (settings) => Object.entries(settings).forEach(([setting, value]) => {
                places[setting].value = value;
                places[setting].dispatchEvent(new Event("input"));
            }),
        };
        const goOn = h("div", {class: "dsm-resume"}, h("label", {}, "up to step", until), h("label", {}, "rate", rate), again);
        const load = button("dsm_run_settings", "Load its settings", () => train.loadRun(name()), {title: "Write this run's settings into the form above"});
        const made = h("div", {class: "dsm-made", id: "dsm_run_lora_made"});
        const lora = button("dsm_run_lora", "Make LoRA", () => train.lora(name(), (said) => made.replaceChildren(said)), {title: "One LoRA file of this run's last saved step, in the LoRA folder"});
        const timeline = train.timeline({use: (step) => train.use(name(), step), go: (step) => train.goOn(name(), step), busy: () => now.state === "running"});
        const element = h("section", {class: "dsm-job-panel dsm-run", "aria-label": job.title},
            h("div", {class: "dsm-job-head"}, title, state, h("div", {class: "dsm-job-buttons"}, preview, save, stop, goOn, lora, load)),
            bar, h("div", {class: "dsm-run-line"}, numbers, text), made, facts.element, notes, drawn.element, timeline.element, log.element);
        let noted = "";
        let told = null; // how many remarks there were when training began; later ones are those of the guards on watch

        function update(given) {
            now = given;
            const data = now.data;
            const running = now.state === "running";
            const speed = data.speed || {};
            element.dataset.state = now.state;
            state.textContent = now.cancelling ? "stopping, saves first…" : run && now.state === "done" && data.stopped ? "stopped" : STATES[now.state];
            DSM.job.showBar(bar, fill, run && data.stopped ? {...now, state: "cancelled"} : now);
            numbers.textContent = (now.total ? `${now.done} / ${now.total} steps` : "") + (run && run.begun ? `  ·  begun ${run.begun.replace("T", " ")}` : "");
            text.textContent = running && !/^loss/.test(now.text) ? now.text : data.ended || "";
            const curves = curvesOf(data);
            const means = curves.smoothed && curves.smoothed.length ? curves.smoothed : smooth(curves.loss || []);
            facts.set("loss", train.short(means.length ? means[means.length - 1] : null));
            facts.set("steps", perSecond(speed.steps ?? (run ? null : now.rate)));
            facts.set("pictures", perSecond(speed.pictures));
            const left = speed.left ?? now.left;
            if (!run) facts.set("left", running && left !== null && left !== undefined ? duration(left) : running ? "–" : "0:00");
            if (!run) facts.set("elapsed", duration(now.elapsed));
            for (const item of [preview, save, stop]) item.hidden = !running;
            const none = now.state === "failed" && neverBegan(now, run); // there is nothing to resume
            for (const item of [goOn, lora, load]) item.hidden = running || none || !name() || !data.run_folder;
            stop.disabled = now.cancelling;
            if (!until.value || document.activeElement !== until && !until.dataset.touched) until.value = now.total || "";
            if (!rate.value && document.activeElement !== rate) rate.value = data.learning_rate || "";
            again.title = DSM.translated(now.done >= (Number(until.value) || 0) ? "Raise the step to go on" : "Go on after the last saved step");
            log.update(now.lines);
            const found = JSON.stringify([data.findings, now.state, now.error, data.published, data.problems]);
            const fresh = running && told !== null ? (data.findings || []).slice(told) : [];
            if (running && now.done) told = (data.findings || []).length;
            for (const finding of fresh) toast(`${finding.problem} ${finding.remedy}`, "error");
            if (found !== noted) {
                noted = found;
                notes.replaceChildren(...remarks(now, none ? null : own, fresh.length > 0 || Boolean(notes.querySelector("details[open]"))));
            }
            drawn.update(data, running);
            timeline.update({...data, previews: (data.previews || []).map((item) => ({...item, stamp: run ? run.stamp : now.id}))}, running);
        }

        until.addEventListener("input", () => { until.dataset.touched = "yes"; });
        return {element, update, problem: (error) => { text.textContent = error.message; }};
    };

    // A start that was refused leaves no run.
    const neverBegan = (job, run) => !run && !job.data.resumed && !curvesOf(job.data).step.length;

    // `own`: what its remarks can change, null where there is no run.
    function remarks(job, own, unfold) {
        const found = job.data.findings || [];
        const parts = [];
        if (job.state === "failed") parts.push(line("error", job.error));
        if (job.state !== "running" && job.data.published) {
            parts.push(line("ok", `${job.data.name} is ready.`, `Write ${job.data.usage || job.data.name} in a prompt to use it; the file is ${job.data.published}.`));
        }
        if (found.length) {
            const grave = found.filter((finding) => ["block", "warn"].includes(finding.severity)).length;
            parts.push(h("details", {class: "dsm-findings", open: job.state === "failed" || unfold},
                h("summary", {}, `${plural(found.length, "remark")} of the guards${grave ? `, ${grave} to look at` : ""}`),
                train.checklist(found, job.state === "failed" ? own : null)));
            if (job.state === "failed" && !own && found.some((finding) => finding.severity === "block")) {
                parts.push(h("div", {}, h("button", {class: "dsm-button dsm-small", onclick: () => train.check()}, "Check settings"), " puts them right, or lets you take them on yourself."));
            }
        }
        return parts;
    }

    // ---- acts on runs --------------------------------------------------------------------------------------------------------

    // What blocked the run that is shown, and was taken on by its box.
    const overridden = (job, own) => [...new Set((job.data.findings || []).filter((finding) => finding.severity === "block").map((finding) => finding.id))]
        .filter(own.has);

    train.resume = (name, steps, rate, override) => attempt(async () => {
        const answer = await post("train/resume", {run: name, max_steps: steps, learning_rate: rate, override});
        train.follow(answer.job);
    });

    train.use = (name, step) => attempt(async () => {
        const {job} = await post("train/use", {run: name, step});
        DSM.job.quietly(job, (ended) => {
            toast(ended.state === "done" ? ended.data.summary : ended.error, ended.state === "done" ? "ok" : "error");
            DSM.tell("ended", ended);
            train.showRun(name);
        });
    });

    // `tell` shows how far it is and what came of it, as elements.
    train.lora = (name, tell, force) => attempt(async () => {
        const {job} = await post("train/lora", {run: name, force: Boolean(force)});
        tell(line("info", "The LoRA is being made…"));
        const update = (now) => { if (now.state === "running" && now.total) tell(line("info", `The LoRA is being made: ${now.done} / ${now.total}`, now.text)); };
        DSM.job.follow(job, () => true, {update, problem: (error) => tell(line("error", error.problem, error.remedy))}, (ended) => {
            const open = (label) => h("button", {class: "dsm-button dsm-small", onclick: () => DSM.openTab("LoRA")}, label);
            if (ended.state === "done") {
                const made = ended.data.lora;
                const fit = made.fit === undefined ? "" : made.exact && made.fit > 1 - 1e-6 ? " It is the hypernetwork itself." : ` It holds ${(100 * made.fit).toFixed(0)} % of the hypernetwork's effect.`;
                tell(line("ok", `${made.file} is ready.`, [`Write ${made.prompt} in a prompt to use it.${fit} `, open("Look at it")]));
            } else {
                const anyway = ended.data.forceable ? h("button", {class: "dsm-button dsm-small", onclick: () => train.lora(name, tell, true)}, "Make it all the same") : null;
                tell(line("error", ended.error, anyway));
            }
            DSM.tell("ended", ended);
        });
    });

    train.goOn = (name, step) => attempt(async () => {
        const {config} = await get("train/run", {run: name});
        const field = (label, value, attributes) => {
            const input = h("input", {class: "dsm-field", "aria-label": label, ...attributes});
            input.value = value;
            return [h("label", {}, h("span", {}, label), input), input];
        };
        const [nameRow, newName] = field("Name of the new run", `${name}-from-${step}`, {id: "dsm_continue_name"});
        const [stepRow, steps] = field("Up to step", Math.max(config.max_steps, step + 1), {type: "number", min: String(step + 1), id: "dsm_continue_steps"});
        const [rateRow, rate] = field("Learning rate", config.learning_rate, {id: "dsm_continue_rate"});
        const body = h("div", {class: "dsm-form"}, h("p", {class: "dsm-subdued"}, `A new run begins with what ${name} had learned at step ${step}. The old one stays as it is.`), nameRow, stepRow, rateRow);
        if (!await DSM.confirm(`Continue from step ${step}`, body, "Start")) return;
        const changes = {name: newName.value.trim(), max_steps: Number(steps.value), learning_rate: rate.value};
        train.follow((await post("train/continue", {run: name, step, changes})).job);
    });

    // What a training leaves behind can be chosen at once.
    DSM.on("ended", (job) => { if (job.data.kind === "training") DSM.press("dsm_lora_refresh"); });
})();
