// The Train tab's form: its values, what they come to, and starting. The fields are gradio's; the page presses hidden
// buttons of theirs to read (#dsm_train_gather) and to write (#dsm_train_restore) all of them at once.
"use strict";

(function () {
    const {h, get, post, line, press, plural} = DSM;
    const train = (DSM.train = DSM.train || {});
    const root = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const DRAFT = "dsm.train.draft";
    const SETTLE = 300; // milliseconds after the last key before a change counts

    let fields = []; // [{name, label, kind, optional, initial}] in the order of gradio's values
    let values = null; // by name, as they were read last
    let waiting = null; // values to be written, by name
    let written = {at: 0, values: {}}; // those written last
    const readers = []; // who waits for the next reading

    // ---- reading and writing gradio's fields ------------------------------------------------------------------------

    const named = (list) => Object.fromEntries(fields.map((field, index) => [field.name, list[index]]));

    // Called by gradio with the values of all fields.
    train.gathered = (...list) => {
        const before = values && JSON.stringify(values);
        values = named(list);
        readers.splice(0).forEach((done) => done(values));
        if (before !== JSON.stringify(values)) changed();
        else mark(); // a group may have been unfolded, which draws its fields anew
        return [];
    };

    // Called by gradio; what it returns becomes the values of all fields. What it was given may be from before the last
    // writing, when two come in a row.
    train.filled = (...list) => {
        const recent = Date.now() - written.at < 1000 ? written.values : {};
        const wanted = {...recent, ...waiting};
        written = {at: Date.now(), values: wanted};
        waiting = null;
        setTimeout(look, SETTLE);
        return fields.map((field, index) => (field.name in wanted ? wanted[field.name] : list[index]));
    };

    const read = () => new Promise((done) => {
        readers.push(done);
        press("dsm_train_gather");
    });

    let timer = null;
    function look() {
        clearTimeout(timer);
        timer = setTimeout(() => press("dsm_train_gather"), SETTLE);
    }

    // Write values by option name: text for fields of several lines, as gradio has them.
    train.fill = (wanted) => {
        write(wanted);
        press("dsm_train_restore");
    };

    function write(wanted) {
        if (wanted.previews) train.requests.set(wanted.previews);
        waiting = {...waiting};
        for (const field of fields) {
            if (!(field.name in wanted)) continue;
            const value = wanted[field.name];
            waiting[field.name] = field.kind === "lines" && Array.isArray(value) ? value.join("\n") : value;
        }
        if (waiting.checkpoint !== undefined) waiting.checkpoint = knownCheckpoint(waiting.checkpoint);
    }

    // A checkpoint as the list names it; others stay away from the list.
    function knownCheckpoint(name) {
        const short = String(name || "").split(/[\\/]/).pop();
        const known = train.checkpoints || [];
        return known.find((item) => item === name) || known.find((item) => item.split(/[\\/]/).pop() === short) || (known.length ? values.checkpoint : name);
    }

    train.defaults = () => ({...Object.fromEntries(fields.map((field) => [field.name, field.initial])), previews: train.initialRequests});
    train.values = () => values;
    train.fields = () => fields;

    // ---- settings as RUN.json has them -------------------------------------------------------------------------------

    class FormError extends Error {
        constructor(problem, remedy) {
            super(`${problem} ${remedy}`);
            Object.assign(this, {problem, remedy});
        }
    }

    function folderOf(choice) {
        const project = DSM.state.project;
        const found = project.folders.find((folder) => folder.name === choice);
        if (found) return found.path;
        return choice === "Project folder" ? project.path : project.train;
    }

    // The settings that the fields say. What is missing is a FormError; `lenient` gives a name where none is written.
    train.settings = (from, lenient) => {
        const settings = {};
        for (const field of fields) {
            if (field.kind === "place") continue;
            let value = from[field.name];
            if (field.kind === "lines") value = String(value || "").split("\n").map((item) => item.trim()).filter(Boolean);
            if (field.kind === "number" && (value === null || value === "" || value === undefined)) {
                if (!field.optional) throw new FormError(`${field.label} is empty.`, "Fill it in.");
                value = null;
            }
            settings[field.name] = value;
        }
        if (!String(settings.name || "").trim()) {
            if (!lenient) throw new FormError("The embedding has no name.", "Write one; it is the word you will use in prompts.");
            settings.name = "unnamed";
        }
        if (!from.checkpoint) throw new FormError("No checkpoint is chosen.", "Put one into the folder for checkpoints and press ↻.");
        if (!DSM.state.project) throw new FormError("No project is open.", "Write its folder at the top and press Open or New.");
        return {...settings, checkpoint: from.checkpoint, dataset: folderOf(from.folder), previews: train.requests.get()};
    };

    // ---- what follows from a change -----------------------------------------------------------------------------------

    // In the head of each folded group, what in it is not as it begins; and pale what does nothing at present.
    function mark() {
        const groups = {};
        for (const field of fields) {
            if (field.group) (groups[field.group] = groups[field.group] || []).push(field);
            if (!field.only) continue;
            const [other, active] = field.only;
            const element = root().querySelector(`#dsm_train_${field.name}`);
            if (element) element.classList.toggle("dsm-idle", other in values && !active.includes(values[other]));
        }
        for (const [id, members] of Object.entries(groups)) {
            const head = root().querySelector(`#${id} .label-wrap`);
            if (!head) continue;
            const other = members.filter((field) => String(values[field.name] ?? "") !== String(field.initial ?? ""));
            let told = head.querySelector(".dsm-group-changes");
            if (!told) head.insertBefore(told = h("span", {class: "dsm-group-changes"}), head.children[1] || null);
            const text = other.map((field) => `${field.label.toLowerCase()} ${field.kind === "flag" ? (values[field.name] ? "on" : "off") : brief(values[field.name])}`).join(", ");
            if (told.textContent !== text) told.textContent = text;
        }
    }

    const brief = (value) => { const text = String(value ?? "none").replace(/\s+/g, " "); return text.length > 28 ? `${text.slice(0, 28)}…` : text || "empty"; };

    function changed() {
        mark();
        if (!train.ready) return; // nothing that was kept is replaced before it was brought back
        const draft = JSON.stringify({...values, previews: train.requests.get()});
        for (const store of [sessionStorage, localStorage]) store.setItem(DRAFT, draft);
        DSM.tell("train-form", values);
    }
    train.requestsChanged = () => values && changed();

    // ---- the places ------------------------------------------------------------------------------------------------------

    // Hidden: knows the fields, and brings back what was written before the page was loaded anew.
    DSM.widgets.trainform = async (place) => {
        fields = JSON.parse(place.dataset.fields);
        train.initialRequests = JSON.parse(place.dataset.previews);
        train.requests.begin(JSON.parse(place.dataset.requests), train.initialRequests);
        const form = root().querySelector("#dsm_train_form");
        for (const kind of ["input", "change", "focusout", "pointerup", "keyup"]) form.addEventListener(kind, look);
        DSM.on("project", look);
        const draft = JSON.parse(sessionStorage.getItem(DRAFT) || localStorage.getItem(DRAFT) || "null");
        // gradio attaches its listeners some time after it drew the buttons, and not to all at once.
        const until = async (act, done) => {
            for (let tries = 0; !done() && tries < 100; tries++) {
                act();
                for (let wait = 0; !done() && wait < 10; wait++) await new Promise((go) => setTimeout(go, 20));
            }
        };
        await until(() => press("dsm_train_gather"), () => values);
        train.checkpoints = (await get("status").catch(() => ({checkpoints: []}))).checkpoints;
        if (draft) {
            write(draft);
            await until(() => press("dsm_train_restore"), () => !waiting);
            await read();
        }
        train.ready = true;
        changed();
    };

    // What the settings come to: pictures, sizes, epochs, the learning rate over the steps.
    DSM.widgets.trainplan = (place) => {
        const sentence = h("div", {class: "dsm-plan-text"});
        const chart = train.chart({
            title: "Learning rate", height: 92, log: false, zero: true, waiting: "",
            series: [{key: "rate", label: "rate", kind: "line", color: "dsm-c1"}],
        });
        place.replaceChildren(h("div", {class: "dsm-plan"}, sentence, chart.element));
        let asked = "";
        let timer = null;

        async function update() {
            if (!DSM.visible(place) || !values) return;
            let settings;
            try {
                settings = train.settings(values, true);
            } catch (error) {
                asked = "";
                sentence.replaceChildren(h("span", {class: "dsm-subdued"}, error.message));
                return;
            }
            const {previews, ...rest} = settings;
            const question = JSON.stringify(rest);
            if (question === asked) return;
            asked = question;
            try {
                const facts = await post("train/plan", {config: rest});
                if (asked !== question) return;
                train.plan = facts;
                DSM.tell("train-plan", facts);
                sentence.replaceChildren(...describe(facts, settings));
                chart.update({steps: facts.rate.map(([step]) => step), series: {rate: facts.rate.map(([, rate]) => rate)}});
            } catch (error) {
                sentence.replaceChildren(line("warn", error.problem, error.remedy));
            }
        }

        function describe(facts, settings) {
            const round = (number) => Number(number.toPrecision(number < 10 ? 2 : 3));
            const sizes = facts.buckets.map((bucket) => `${bucket.width}×${bucket.height}`);
            const parts = [h("div", {}, h("b", {}, plural(facts.count, "picture")), ` in ${plural(facts.buckets.length, "size")}: `,
                h("span", {class: "dsm-subdued"}, sizes.slice(0, 3).join(", ") + (sizes.length > 3 ? ", …" : ""))),
            h("div", {}, h("b", {}, plural(facts.pictures_per_step, "picture")), " a step, ", h("b", {}, plural(round(facts.steps_per_epoch), "step")), " an epoch"),
            h("div", {}, `${plural(settings.max_steps, "step")} show each picture `, h("b", {}, plural(round(facts.epochs * settings.repeats), "time")))];
            if (facts.held_out) parts.push(h("div", {class: "dsm-subdued"}, `${plural(facts.held_out, "picture is", "pictures are")} held out, to validate on`));
            if (facts.skipped.length) parts.push(h("div", {class: "dsm-warn-text"}, `${plural(facts.skipped.length, "picture is", "pictures are")} left out; Check says why.`));
            if (facts.rate_problem) parts.push(h("div", {class: "dsm-bad-text"}, facts.rate_problem));
            return parts;
        }

        const soon = () => { clearTimeout(timer); timer = setTimeout(update, 250); };
        DSM.on("train-form", soon);
        DSM.on("project", () => { asked = ""; soon(); });
        DSM.on("changed", () => { asked = ""; soon(); });
        new IntersectionObserver(soon).observe(place);
    };

    // The first prompts as training reads them.
    DSM.widgets.trainprompts = (place) => {
        const list = h("ol", {class: "dsm-prompts"});
        const draw = (facts) => {
            if (!facts) return;
            list.replaceChildren(...facts.prompts.map((prompt) => h("li", {}, prompt)));
            if (facts.prompts_problem) list.append(h("li", {class: "dsm-bad-text"}, facts.prompts_problem));
        };
        place.replaceChildren(h("div", {class: "dsm-caption"}, "What the first steps read"), list);
        DSM.on("train-plan", draw);
        draw(train.plan);
    };

    // The model as it is and as training will use it.
    DSM.widgets.modelstatus = (place) => {
        const element = h("div", {class: "dsm-status", role: "status"});
        place.replaceChildren(element);
        let shown = "";
        let status = null;

        function draw() {
            if (!status) return;
            const model = status.model;
            const chosen = (values && values.checkpoint) || "";
            const skip = Number(values && values.clip_skip) || model.clip_skip;
            const named = (label, now, then, note) => h("div", {class: "dsm-status-item"}, h("span", {}, label),
                h("div", {}, now === then || !now ? h("b", {}, then) : [h("s", {}, now), " → ", h("b", {}, then)]), note ? h("small", {}, note) : null);
            const alone = status.host === "studio";
            const strange = !alone && skip !== model.clip_skip;
            const items = [
                named("Model", alone || model.checkpoint === chosen ? "" : model.checkpoint || "none", chosen || "none chosen",
                    alone ? "loaded when training starts" : model.checkpoint === chosen ? "loaded" : "loaded for the training, put back afterwards"),
                named("VAE", alone || model.vae === model.vae_in_training ? "" : model.vae, model.vae_in_training,
                    alone || model.vae === model.vae_in_training ? "as the guides advise" : "set aside while training, put back afterwards"),
                named("CLIP skip", alone || !strange ? "" : String(model.clip_skip), String(skip),
                    strange ? "pictures are generated with another one now" : "pinned for the whole run"),
            ];
            const parts = [h("div", {class: "dsm-status-items"}, items)];
            if (model.note) parts.push(line("warn", model.note));
            const text = JSON.stringify([model, chosen, skip]);
            if (text === shown) return;
            shown = text;
            element.replaceChildren(...parts);
        }

        async function update() {
            if (DSM.visible(place) && !document.hidden) {
                try {
                    status = await get("status");
                    train.checkpoints = status.checkpoints;
                    draw();
                } catch (error) {
                    shown = "";
                    element.replaceChildren(line("warn", error.problem, error.remedy));
                }
            }
        }
        setInterval(update, 5000);
        new IntersectionObserver(update).observe(place);
        DSM.on("train-form", draw);
        update();
    };

    // ---- acts -------------------------------------------------------------------------------------------------------------

    async function settingsNow() {
        return train.settings(await read());
    }

    train.check = async () => {
        try {
            await train.showCheck(await settingsNow());
        } catch (error) {
            train.say("error", error.problem || error.message, error.remedy);
        }
    };

    let starting = false;
    train.start = async () => {
        if (starting) return; // a double click is one wish
        starting = true;
        try {
            const answer = await post("train/start", {config: await settingsNow()});
            train.closeCheck();
            train.follow(answer.job);
        } catch (error) {
            train.say("error", error.problem || error.message, error.remedy);
        } finally {
            starting = false;
        }
    };
    train.read = read;
})();
