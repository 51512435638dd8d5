// Settings as a whole: presets, those of an earlier run, and RUN.json files.
"use strict";

(function () {
    const {h, get, post, call, line, attempt, toast} = DSM;
    const train = (DSM.train = DSM.train || {});

    DSM.widgets.trainpresets = (place) => {
        const select = h("select", {class: "dsm-field", id: "dsm_preset", "aria-label": "Preset", onchange: refresh});
        const button = (id, text, act, title) => h("button", {class: "dsm-button dsm-small", id, onclick: act, title: title || ""}, text);
        const use = button("dsm_preset_use", "Use", () => attempt(() => apply(select.value)), "Write the preset's settings into the form; name, checkpoint, pictures and the texts it does not name stay");
        const keep = button("dsm_preset_save", "Save as…", save, "Keep the form's settings under a name");
        const drop = button("dsm_preset_delete", "Delete", remove);
        const note = h("div", {class: "dsm-subdued dsm-preset-note"});
        const runs = h("select", {class: "dsm-field", id: "dsm_preset_run", "aria-label": "Earlier run", onfocus: listRuns, onmousedown: listRuns});
        const fromRun = button("dsm_preset_run_load", "Load", () => runs.value && attempt(() => loadRun(runs.value)), "Write that run's settings into the form");
        const file = h("input", {type: "file", accept: ".json,application/json", hidden: true, onchange: () => file.files[0] && attempt(() => loadFile(file.files[0]))});
        const said = h("div", {class: "dsm-preset-said", id: "dsm_preset_said", "aria-live": "polite"});
        const problems = h("div", {id: "dsm_preset_problems"});
        place.replaceChildren(h("div", {class: "dsm-toolbar dsm-presets"},
            h("label", {}, "Preset", select), use, keep, drop,
            h("label", {}, "Earlier run", runs), fromRun,
            button("dsm_preset_file_load", "Load file…", () => file.click(), "Settings from a RUN.json, a preset or a run's run.json"),
            button("dsm_preset_file_save", "Save file", () => attempt(saveFile), "The settings as a RUN.json for the command line"), file), note, problems, said);
        let everything = []; // of all kinds
        let presets = []; // of the kind that is chosen

        // ---- what was done, and taking it back ----

        const formNow = async () => ({...await train.read(), previews: train.requests.get()});

        // Tell of an act on the whole form; `before` is the form as it was.
        function say(told, before, what) {
            const undo = h("button", {class: "dsm-button dsm-small", id: "dsm_preset_undo", title: "Write the form again as it was before", onclick: () => {
                train.fill(before);
                said.replaceChildren(line("ok", "The form is as it was before."));
            }}, `Undo ${what}`);
            const close = h("button", {class: "dsm-button dsm-small", "aria-label": "Close the message", onclick: () => said.replaceChildren()}, "✕");
            told.prepend(h("span", {class: "dsm-line-buttons"}, undo, close));
            said.replaceChildren(told);
        }

        async function taking(config, what, remedy) {
            const before = await formNow();
            say(train.taken(what, train.take(config), remedy), before, "loading");
        }

        // ---- presets ----

        async function list(chosen) {
            const answer = await get("train/presets").catch((error) => ({presets: everything, problems: [error.message]}));
            show(answer);
            if (chosen) select.value = chosen;
            refresh();
        }

        let listedKind = "";
        function show(answer) {
            everything = answer.presets;
            listedKind = train.values() ? train.kind() : "embedding";
            presets = everything.filter((preset) => preset.kind === listedKind);
            const group = (label, items) => (items.length ? h("optgroup", {label}, items.map((preset) => h("option", {value: preset.name}, preset.name))) : null);
            const groups = [group("Your own", presets.filter((preset) => preset.own)), group("Given", presets.filter((preset) => !preset.own))].filter(Boolean);
            select.replaceChildren(h("option", {value: ""}, "Defaults"), ...groups);
            problems.replaceChildren(...answer.problems.map((problem) => line("warn", "A preset is left out of the list.", problem)));
        }

        function refresh() {
            const preset = presets.find((item) => item.name === select.value);
            drop.disabled = !preset || !preset.own;
            drop.title = preset && !preset.own ? DSM.translated("A given preset stays") : "";
            note.textContent = preset ? preset.help || "" : "";
        }

        async function apply(name) {
            const preset = presets.find((item) => item.name === name);
            const before = await formNow();
            const wanted = train.withPreset(preset, before);
            train.fill(wanted);
            const kept = "previews" in wanted ? "Name, checkpoint and pictures stay." : "Name, checkpoint, pictures and your own texts stay.";
            const vectors = preset && "vectors" in preset.settings && !("vectors" in wanted) ? ` So do the ${before.vectors} vectors, as ${before.init_embedding} has them.` : "";
            say(line("ok", `The form has the ${preset ? `settings of “${preset.name}”` : "defaults"}.`, kept + vectors), before, "preset");
        }

        async function save() {
            const input = h("input", {class: "dsm-field", id: "dsm_preset_name", "aria-label": "Name of the preset", value: select.value});
            const body = h("div", {class: "dsm-form"}, h("p", {class: "dsm-subdued"}, "All settings but name, checkpoint and pictures are kept. A preset of your own with this name is replaced."), h("label", {}, h("span", {}, "Name"), input));
            setTimeout(() => input.focus(), 0);
            if (!await DSM.confirm("Save as a preset", body, "Save")) return;
            await attempt(async () => {
                const settings = train.settings(await train.read(), true);
                for (const key of train.notInAPreset) delete settings[key];
                await post("train/presets", {name: input.value.trim(), settings, kind: train.kind()});
                await list(input.value.trim());
                toast(`The preset “${input.value.trim()}” is saved.`);
            });
        }

        async function remove() {
            const name = select.value;
            if (!await DSM.confirm(`Delete the preset “${name}”?`, "The form stays as it is.", "Delete")) return;
            await attempt(async () => {
                show(await call("DELETE", "train/presets", {name}));
                refresh();
            });
        }

        // ---- runs and files ----

        let listed = 0;
        async function listRuns() {
            if (Date.now() - listed < 3000) return;
            listed = Date.now();
            const answer = await get("train/runs", {aside: true}).catch(() => ({runs: [], aside: []}));
            const now = runs.value;
            const entry = (run) => h("option", {value: run.name}, `${run.name}, ${run.step} steps`);
            const [current, aside] = [answer.runs, answer.aside].map((found) => found.filter((run) => !run.problem).map(entry));
            runs.replaceChildren(...current);
            if (aside.length) runs.append(h("optgroup", {label: "Moved aside"}, aside));
            if (!runs.options.length) runs.append(h("option", {value: ""}, "none yet"));
            if (now) runs.value = now;
        }

        async function loadRun(name) {
            const {config} = await get("train/run", {run: name});
            await taking(config, name, "Give it another name, or allow overwriting, to start anew.");
        }

        async function saveFile() {
            const settings = train.settings(await train.read());
            const address = URL.createObjectURL(new Blob([JSON.stringify(settings, null, 2) + "\n"], {type: "application/json"}));
            h("a", {href: address, download: `${settings.name}.json`}).click();
            setTimeout(() => URL.revokeObjectURL(address), 1000);
        }

        async function loadFile(chosen) {
            const text = await chosen.text();
            file.value = "";
            const {settings} = await post("train/settings", {text});
            await taking(settings, chosen.name);
        }

        list();
        listRuns();
        DSM.on("train-form", () => { if (train.kind() !== listedKind) list(); });
        DSM.on("ended", () => { listed = 0; listRuns(); });
    };
})();
