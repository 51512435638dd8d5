// A grid: several values of some settings, every combination trained, and what came of them side by side.
"use strict";

(function () {
    const {h, get, post, line, plural, attempt, duration, thumbnail, lightbox} = DSM;
    const train = (DSM.train = DSM.train || {});
    const USUAL = ["learning_rate", "layer_structure", "vectors"];
    // They name files and places, or belong to the comparison itself.
    const NOT_VARIED = ["name", "kind", "overwrite", "override", "tensorboard", "template_file", "init_embedding", "init_hypernetwork"];

    const label = (name) => (train.fields().find((field) => field.name === name) || {label: name}).label;
    const shown = (value) => (Array.isArray(value) ? value.join(", ") : typeof value === "boolean" ? (value ? "on" : "off") : String(value));

    // What was typed for a setting, as the settings have it.
    function valuesOf(field, text) {
        return text.split("|").map((part) => part.trim()).filter(Boolean).map((part) => {
            if (field.kind === "flag") return {on: true, off: false, yes: true, no: false, true: true, false: false}[part.toLowerCase()] ?? part;
            if (field.kind === "number") return part !== "" && Number.isFinite(Number(part)) ? Number(part) : part;
            if (field.kind === "list") return train.numbers(part);
            if (field.kind === "lines") return part.split(/\s*\n\s*/);
            return part;
        });
    }

    DSM.widgets.traintune = (place) => {
        const rows = h("div", {class: "dsm-tune-rows"});
        const count = h("span", {class: "dsm-subdued", role: "status"});
        const messages = h("div", {"aria-live": "polite"});
        const list = h("select", {class: "dsm-field", "aria-label": "Grid", onchange: () => open(list.value)});
        const resume = h("button", {class: "dsm-button dsm-small", hidden: true, onclick: goOn}, "Go on");
        const stop = h("button", {class: "dsm-button dsm-small dsm-stop", hidden: true, onclick: () => attempt(() => post(`jobs/${running}/cancel`))}, "Stop");
        const begin = h("button", {class: "dsm-button", id: "dsm_tune_start", onclick: start}, "Start the grid");
        const text = h("span", {class: "dsm-subdued", "aria-live": "polite"});
        const table = h("div", {class: "dsm-tune-table"});
        const past = h("div", {class: "dsm-tune-past", hidden: true}, h("div", {class: "dsm-caption"}, "Grids", list, resume, stop, text), table);
        const details = h("details", {class: "dsm-tune", ontoggle: () => details.open && look()},
            h("summary", {}, "Tune", h("span", {class: "dsm-subdued"}, "try several values, and compare the loss and the previews")),
            h("p", {class: "dsm-subdued"}, "Every combination of these values is trained with the form's other settings, from the same seed. Nothing reaches the WebUI's lists until you use one."),
            rows, h("div", {class: "dsm-tune-foot"}, h("button", {class: "dsm-button dsm-small", id: "dsm_tune_add", onclick: () => add()}, "+ Vary another setting"), h("span", {class: "dsm-spring"}), count, begin),
            messages, past);
        place.replaceChildren(details);
        let running = null;
        let current = "";
        let drawn = "";

        const choices = () => train.fields().filter((field) => field.kind !== "place" && !NOT_VARIED.includes(field.name) && (!field.of || field.of === train.kind()));

        function add(name) {
            const taken = [...rows.children].map((row) => row.choice.value);
            const first = name || [...USUAL, ...choices().map((field) => field.name)].find((each) => !taken.includes(each) && choices().some((field) => field.name === each));
            const choice = h("select", {class: "dsm-field", "aria-label": "Setting", onchange: () => { hint(); tell(); }},
                choices().map((field) => h("option", {value: field.name}, field.label)));
            choice.value = first;
            const input = h("input", {class: "dsm-field", type: "text", "aria-label": "Values", oninput: tell, onkeydown: (event) => { if (event.key === "Enter") { event.preventDefault(); start(); } }});
            const row = h("div", {class: "dsm-tune-row"}, choice, input, h("button", {class: "dsm-button dsm-small", "aria-label": "Do not vary it", onclick: () => { row.remove(); tell(); }}, "✕"));
            const hint = () => {
                const field = choices().find((each) => each.name === choice.value) || {};
                const now = (train.values() || {})[choice.value];
                input.placeholder = field.choices ? field.choices.join(" | ") : field.kind === "flag" ? "on | off" : `${now === undefined || now === null || now === "" ? "one" : String(now).replace(/\n/g, " ")} | another`;
            };
            Object.assign(row, {choice, input});
            hint();
            rows.append(row);
            tell();
            return row;
        }

        function varied() {
            const found = {};
            for (const row of rows.children) {
                const field = choices().find((each) => each.name === row.choice.value);
                const values = field ? valuesOf(field, row.input.value) : [];
                if (values.length) found[field.name] = [...(found[field.name] || []), ...values];
            }
            return found;
        }

        function tell() {
            const found = Object.values(varied());
            const trials = found.reduce((product, values) => product * values.length, found.length ? 1 : 0);
            const steps = Number((train.values() || {}).max_steps) || 0;
            count.textContent = trials > 1 ? `${trials} trainings${"max_steps" in varied() || !steps ? "" : ` of ${steps} steps, ${trials * steps} in all`}` : "Write two values or more, with | between them.";
            begin.disabled = trials < 2;
        }

        async function start() {
            messages.replaceChildren();
            try {
                const config = train.settings(await train.read());
                const {job} = await post("train/tune", {config, vary: varied()});
                current = config.name;
                follow(job);
            } catch (error) {
                messages.replaceChildren(line("error", error.problem || error.message, error.remedy));
            }
        }

        async function goOn() {
            messages.replaceChildren();
            try {
                follow((await post("train/grid/resume", {grid: current})).job);
            } catch (error) {
                messages.replaceChildren(line("error", error.problem || error.message, error.remedy));
            }
        }

        function follow(id) {
            if (running === id) return;
            running = id;
            past.hidden = false;
            const view = {
                update: (job) => {
                    text.textContent = job.state === "running" ? `${job.done} / ${job.total} steps${job.left ? `, ${duration(job.left)} left` : ""}; ${job.text}` : "";
                    stop.hidden = job.state !== "running";
                    stop.disabled = job.cancelling;
                    if (job.data.trials && job.data.name === current) draw(job.data.trials);
                },
                problem: (error) => messages.replaceChildren(line("error", error.problem || error.message, error.remedy)),
            };
            DSM.job.follow(id, () => running === id && place.isConnected, view, (job) => {
                running = null;
                if (job.state === "failed") messages.replaceChildren(line("error", job.error));
                DSM.tell("ended", job);
                look();
            });
            setTimeout(look, 1500);
        }

        async function look() {
            const {grids} = await get("train/grids").catch(() => ({grids: []}));
            past.hidden = !grids.length && !running;
            list.replaceChildren(...grids.map((grid) => h("option", {value: grid.name}, grid.problem ? `${grid.name} (damaged)` : `${grid.name}: ${grid.done} of ${grid.trials}`)));
            if (!grids.some((grid) => grid.name === current)) current = grids.length ? grids[0].name : "";
            list.value = current;
            const busy = grids.find((grid) => grid.job);
            if (busy && !running) { current = list.value = busy.name; follow(busy.job); }
            if (current) await open(current);
        }

        async function open(name) {
            current = name;
            try {
                const grid = await get("train/grid", {grid: name});
                if (current !== name) return;
                resume.hidden = Boolean(running) || grid.trials.every((row) => row.state === "done" || row.state === "failed");
                draw(grid.trials);
            } catch (error) {
                table.replaceChildren(line("error", error.problem || error.message, error.remedy));
            }
        }

        function draw(trials) {
            const seen = JSON.stringify([current, trials]);
            if (seen === drawn) return;
            drawn = seen;
            const names = Object.keys((trials[0] || {changes: {}}).changes);
            const keys = trials.map((row) => row.key).filter(Boolean);
            const usual = keys.sort((a, b) => keys.filter((key) => key === b).length - keys.filter((key) => key === a).length)[0];
            const compared = trials.filter((row) => row.loss !== null && row.key === usual);
            const [low, high] = [Math.min(...compared.map((row) => row.loss)), Math.max(...compared.map((row) => row.loss), ...compared.map((row) => row.first || 0))];
            const requests = Math.max(0, ...trials.map((row) => row.previews.length));
            const headings = ["", ...names.map(label), "Steps", "Validation loss", "Lowest, at", ...(requests ? ["Previews"] : []), ""];
            table.replaceChildren(h("table", {class: "dsm-table"}, h("thead", {}, h("tr", {}, headings.map((heading) => h("th", {}, heading)))),
                h("tbody", {}, trials.map((row) => trial(row, {names, usual, low, high, requests})))));
        }

        function trial(row, facts) {
            const best = row.loss !== null && row.loss === facts.low && row.key === facts.usual;
            const share = row.loss === null || row.key !== facts.usual ? 0 : 100 * row.loss / facts.high;
            const views = row.previews.map((preview) => ({address: thumbnail(preview.path, 2048, row.step), label: `trial ${row.number}, step ${preview.step}`}));
            const state = {done: "", waiting: "waiting", failed: "failed", stopped: running ? "training" : "stopped"}[row.state];
            return h("tr", {class: best ? "dsm-tune-best" : "", "data-trial": row.number},
                h("td", {class: "dsm-number"}, row.number),
                facts.names.map((name) => h("td", {}, shown(row.changes[name]))),
                h("td", {}, row.problem ? h("span", {class: "dsm-warn-text", title: row.problem}, row.problem) : [`${row.step} / ${row.last} `, h("span", {class: "dsm-subdued"}, state)]),
                h("td", {title: row.key && row.key !== facts.usual ? "Measured on other pictures, prompts or noise than most, so it does not compare." : ""},
                    row.loss === null ? "" : [h("i", {class: "dsm-share", style: `--share: ${share}%`}), ` ${row.loss.toFixed(5)}`, best ? " ★" : "", row.key !== facts.usual ? " ≠" : ""]),
                h("td", {class: "dsm-number"}, row.best === null ? "" : `${row.best.toFixed(5)}, ${row.best_step}`),
                facts.requests ? h("td", {class: "dsm-tune-previews"}, row.previews.map((preview, index) => h("button", {class: "dsm-tune-preview", title: preview.prompt, onclick: () => lightbox(views, index)},
                    h("img", {src: thumbnail(preview.path, 192, row.step), alt: `Trial ${row.number}: ${preview.prompt}`, loading: "lazy"})))) : null,
                h("td", {class: "dsm-tune-acts"},
                    h("button", {class: "dsm-button dsm-small", title: "Write these values into the form", onclick: () => take(row)}, "Take"),
                    row.step ? h("button", {class: "dsm-button dsm-small", title: "Put what it learned where the WebUI looks for it", onclick: () => use(row)}, "Use it") : null));
        }

        async function take(row) {
            const {config} = await attempt(() => get("train/grid", {grid: current})) || {};
            if (!config) return;
            const notes = train.take({...config, ...row.changes});
            train.say(train.taken(`Trial ${row.number} of ${current}`, notes, ""));
        }

        async function use(row) {
            const answer = await attempt(() => post("train/grid/use", {grid: current, trial: row.number}));
            if (!answer) return;
            DSM.job.quietly(answer.job, (job) => {
                DSM.toast(job.state === "failed" ? job.error : job.data.summary, job.state === "failed" ? "error" : "ok");
                DSM.tell("ended", job);
            }, () => place.isConnected);
        }

        DSM.on("train-form", () => { if (!rows.children.length) add(); tell(); });
        look();
    };
})();
