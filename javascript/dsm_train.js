// The Train tab's form: its values, what they come to, and starting. The fields are gradio's; the page presses hidden
// buttons of theirs to read (#dsm_train_gather) and to write (#dsm_train_restore) all of them at once.
"use strict";

(function () {
    const {h, get, post, press} = DSM;
    const train = (DSM.train = DSM.train || {});
    const root = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const DRAFT = "dsm.train.draft";
    const SETTLE = 300; // milliseconds after the last key before a change counts

    let fields = []; // [{name, label, kind, optional, initial, of}] in the order of gradio's values
    let kinds = {}; // for each kind of network, what begins otherwise than the fields do
    let values = null; // by name, as they were read last
    let waiting = null; // values to be written, by name
    let written = {at: 0, values: {}}; // those written last
    const readers = []; // who waits for the next reading

    // ---- reading and writing gradio's fields ------------------------------------------------------------------------

    const named = (list) => Object.fromEntries(fields.map((field, index) => [field.name, list[index]]));

    // Called by gradio with the values of all fields.
    train.gathered = (...list) => {
        const before = values && JSON.stringify(values);
        const kindBefore = values && kindNow(values);
        values = named(list);
        if (kindBefore && kindNow(values) !== kindBefore && train.ready && !waiting) return takeKind(kindBefore);
        readers.splice(0).forEach((done) => done(values));
        if (before !== JSON.stringify(values)) changed();
        else mark(); // a group may have been unfolded, which draws its fields anew
        return [];
    };

    // Another kind of network was chosen: what still is as the one before begins becomes as this one begins.
    function takeKind(before) {
        const now = kindNow(values);
        const other = fields.filter((field) => String(initialOf(field, before) ?? "") !== String(initialOf(field, now) ?? "")
            && String(values[field.name] ?? "") === String(initialOf(field, before) ?? ""));
        readers.splice(0).forEach((done) => done(values));
        changed();
        if (other.length) train.fill(Object.fromEntries(other.map((field) => [field.name, initialOf(field, now)])));
        return [];
    }

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

    const readNow = () => new Promise((done) => {
        readers.push(done);
        press("dsm_train_gather");
    });

    let restore;
    const restored = new Promise((done) => { restore = done; });

    // Whoever asks before what was written last is in the form again gets that, and not what the form begins with.
    const read = async () => {
        await restored;
        return readNow();
    };

    let timer = null;
    function look() {
        clearTimeout(timer);
        timer = setTimeout(() => press("dsm_train_gather"), SETTLE);
    }

    // Write values by option name: text for fields of several lines, as gradio has them. Gives a sentence for each that
    // could not be taken.
    train.fill = (wanted) => {
        const notes = write(wanted);
        press("dsm_train_restore");
        return notes;
    };

    function write(wanted) {
        if (wanted.previews) train.requests.set(wanted.previews);
        waiting = {...waiting};
        for (const field of fields) {
            if (!(field.name in wanted)) continue;
            waiting[field.name] = inForm(field, wanted[field.name]);
        }
        if (wanted.checkpoint) return takeCheckpoint(wanted.checkpoint);
        delete waiting.checkpoint; // none is named: the chosen one stays
        return [];
    }

    // A value as gradio's field holds it: several ones as text.
    const inForm = (field, value) => (Array.isArray(value) ? value.join(field.kind === "list" ? ", " : "\n") : value);

    // The checkpoint as the list names it; where the list has it not, the chosen one stays.
    function takeCheckpoint(name) {
        const file = (path) => path.split(/[\\/]/).pop();
        const known = train.checkpoints || [];
        if (!known.length || known.includes(name)) return [];
        const alike = known.find((item) => file(item) === file(name));
        if (alike) waiting.checkpoint = alike;
        else delete waiting.checkpoint;
        return [alike ? `Its checkpoint ${name} is taken to be ${alike} of the list.`
            : `Its checkpoint ${name} is not in the list, so ${(values || {}).checkpoint || "none"} stays chosen.`];
    }

    // What a field begins with for a kind of network, as the form has it.
    const initialOf = (field, kind) => inForm(field, field.name in (kinds[kind] || {}) ? kinds[kind][field.name] : field.initial);
    const kindNow = (from) => (from || {}).kind || fields.find((field) => field.name === "kind").initial;

    // A list of numbers as it was typed; what is none stays text, for the server to refuse.
    train.numbers = (text) => text.split(/[,;\s]+/).filter(Boolean).map((item) => (Number.isFinite(Number(item)) ? Number(item) : item));

    train.defaults = () => ({...Object.fromEntries(fields.map((field) => [field.name, initialOf(field, kindNow(values))])), previews: train.initialRequests});
    train.kind = () => kindNow(values);
    train.values = () => values;
    train.folderOf = folderOf;
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

    // The settings that the fields say. What is missing is a FormError; `lenient` gives a name where none is written,
    // `alone` does without pictures.
    train.settings = (from, lenient, alone) => {
        const settings = {};
        for (const field of fields) {
            if (field.kind === "place") continue;
            let value = from[field.name];
            if (field.kind === "lines") value = String(value || "").split("\n").map((item) => item.trim()).filter(Boolean);
            if (field.kind === "list") value = train.numbers(String(value || ""));
            if (field.kind === "number" && (value === null || value === "" || value === undefined)) {
                if (!field.optional) throw new FormError(`${field.label} is empty.`, "Fill it in.");
                value = null;
            }
            settings[field.name] = value;
        }
        if (!String(settings.name || "").trim()) {
            if (!lenient) throw new FormError(`The ${kindNow(from)} has no name.`, "Write one; it is the word you will use in prompts.");
            settings.name = "unnamed";
        }
        if (!from.checkpoint) throw new FormError("No checkpoint is chosen.", "Put one into the folder for checkpoints and press ↻.");
        if (!DSM.state.project && !alone) throw new FormError("No project is open.", "Write its folder at the top and press Open or New.");
        return {...settings, checkpoint: from.checkpoint, dataset: alone ? "" : folderOf(from.folder), previews: train.requests.get()};
    };

    // ---- what follows from a change -----------------------------------------------------------------------------------

    // In the head of each folded group, what in it is not as it begins; and pale what does nothing at present.
    function mark() {
        const groups = {};
        const kind = kindNow(values);
        root().querySelector("#dsm_train_form").dataset.kind = kind;
        for (const field of fields) {
            const elsewhere = Boolean(field.of) && field.of !== kind;
            if (field.of) show(`#dsm_train_${field.name}`, !elsewhere);
            if (root().querySelector(`#dsm_train_${field.name}_refresh`) && field.of) show(`#dsm_train_${field.name}_refresh`, !elsewhere);
            if (elsewhere) {
                if (field.group) groups[field.group] = groups[field.group] || [];
                continue;
            }
            if (field.group) (groups[field.group] = groups[field.group] || []).push(field);
            if (!field.only) continue;
            const [other, active] = field.only;
            const element = root().querySelector(`#dsm_train_${field.name}`);
            if (element) element.classList.toggle("dsm-idle", other in values && !active.includes(values[other]));
        }
        for (const [id, members] of Object.entries(groups)) {
            show(`#${id}`, members.length > 0);
            const head = root().querySelector(`#${id} .label-wrap`);
            if (!head) continue;
            const other = members.filter((field) => String(values[field.name] ?? "") !== String(initialOf(field, kind) ?? ""));
            let told = head.querySelector(".dsm-group-changes");
            if (!told) head.insertBefore(told = h("span", {class: "dsm-group-changes"}), head.children[1] || null);
            const text = other.map((field) => `${field.label.toLowerCase()} ${field.kind === "flag" ? (values[field.name] ? "on" : "off") : brief(values[field.name])}`).join(", ");
            if (told.textContent !== text) told.textContent = text;
        }
    }

    const show = (selector, on) => { const element = root().querySelector(selector); if (element) element.classList.toggle("dsm-elsewhere", !on); };

    const brief = (value) => { const text = String(value ?? "none").replace(/\s+/g, " "); return text.length > 28 ? `${text.slice(0, 28)}…` : text || "empty"; };

    function changed() {
        mark();
        if (!train.ready) return; // nothing that was kept is replaced before it was brought back
        const draft = JSON.stringify({...values, previews: train.requests.get()});
        for (const store of [sessionStorage, localStorage]) store.setItem(DRAFT, draft);
        DSM.tell("train-form", values);
    }

    function keptDraft() {
        try {
            return JSON.parse(sessionStorage.getItem(DRAFT) || localStorage.getItem(DRAFT) || "null");
        } catch (error) {
            return null; // what cannot be read is as good as nothing
        }
    }
    train.requestsChanged = () => values && changed();

    // ---- the places ------------------------------------------------------------------------------------------------------

    // Hidden: knows the fields, and brings back what was written before the page was loaded anew.
    DSM.widgets.trainform = async (place) => {
        fields = JSON.parse(place.dataset.fields);
        kinds = JSON.parse(place.dataset.kinds);
        train.notInAPreset = JSON.parse(place.dataset.kept);
        train.initialRequests = JSON.parse(place.dataset.previews);
        train.requests.begin(JSON.parse(place.dataset.requests), train.initialRequests);
        const form = root().querySelector("#dsm_train_form");
        for (const kind of ["input", "change", "focusout", "pointerup", "keyup"]) form.addEventListener(kind, look);
        DSM.on("project", look);
        const draft = keptDraft();
        // gradio attaches its listeners some time after it drew the buttons, and not to all at once.
        const until = async (button, done) => {
            for (let tries = 0; !done() && tries < 60; tries++) {
                press(button);
                for (let wait = 0; !done() && wait < 40; wait++) await new Promise((go) => setTimeout(go, 20));
            }
        };
        await until("dsm_train_gather", () => values);
        train.checkpoints = (await get("status").catch(() => ({checkpoints: []}))).checkpoints;
        if (draft) {
            for (const note of write(draft)) DSM.toast(`From before the page was loaded anew: ${note}`, "error");
            await until("dsm_train_restore", () => !waiting);
            await readNow();
        }
        train.ready = true;
        restore();
        changed();
        refreshLists();
    };

    // What there is to choose from may have changed since the program drew the page, and is more after a training.
    const refreshLists = () => press("dsm_train_checkpoint_refresh");
    DSM.on("ended", refreshLists);

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

    // A network that is not trained yet.
    train.create = async () => {
        if (starting) return;
        starting = true;
        try {
            const {job} = await post("train/create", {config: train.settings(await read(), false, true)});
            DSM.toast(`The model is loaded to write the ${train.kind()}…`);
            DSM.job.quietly(job, (ended) => {
                if (ended.state === "done") train.say("ok", ended.data.summary, `Write ${ended.data.usage} in a prompt to use it; the file is ${ended.data.published}.`);
                else train.say("error", ended.error);
                if (ended.state === "done") press("dsm_lora_refresh");
            });
        } catch (error) {
            train.say("error", error.problem || error.message, error.remedy);
        } finally {
            starting = false;
        }
    };
    train.read = read;
    DSM.onClick("dsm_train_create", train.create);
    DSM.onClick("dsm_train_check", train.check);
    DSM.onClick("dsm_train_start", train.start);
})();
