// Settings as a whole: presets, those of an earlier run, and RUN.json files.
"use strict";

(function () {
    const {h, get, post, call, attempt, toast} = DSM;
    const train = (DSM.train = DSM.train || {});

    // A run's settings as the fields of the form have them.
    train.asFields = (config) => {
        const project = DSM.state.project;
        const same = (path) => path && config.dataset && path === config.dataset;
        const folder = project && (project.folders.find((item) => same(item.path)) || {}).name;
        const wanted = {...config};
        if (folder && folder !== "Folder itself") wanted.folder = folder;
        else if (project && same(project.path)) wanted.folder = "Project folder";
        if (project && same(project.train)) delete wanted.folder;
        return wanted;
    };

    DSM.widgets.trainpresets = (place) => {
        const select = h("select", {class: "dsm-field", id: "dsm_preset", "aria-label": "Preset", onchange: refresh});
        const button = (id, text, act, title) => h("button", {class: "dsm-button dsm-small", id, onclick: act, title: title || ""}, text);
        const use = button("dsm_preset_use", "Use", () => apply(select.value), "Write the preset's settings into the form; name, checkpoint and pictures stay");
        const keep = button("dsm_preset_save", "Save as…", save, "Keep the form's settings under a name");
        const drop = button("dsm_preset_delete", "Delete", remove);
        const note = h("span", {class: "dsm-subdued dsm-preset-note"});
        const runs = h("select", {class: "dsm-field", id: "dsm_preset_run", "aria-label": "Earlier run", onfocus: listRuns, onmousedown: listRuns});
        const fromRun = button("dsm_preset_run_load", "Load", () => runs.value && train.loadRun(runs.value), "Write that run's settings into the form");
        const file = h("input", {type: "file", accept: ".json,application/json", hidden: true, onchange: () => file.files[0] && attempt(() => loadFile(file.files[0]))});
        place.replaceChildren(h("div", {class: "dsm-toolbar dsm-presets"},
            h("label", {}, "Preset", select), use, keep, drop,
            h("label", {}, "Earlier run", runs), fromRun,
            button("dsm_preset_file_load", "Load file…", () => file.click(), "Settings from a RUN.json"),
            button("dsm_preset_file_save", "Save file", () => attempt(saveFile), "The settings as a RUN.json for the command line"), file, note));
        let presets = [];

        async function list(chosen) {
            try {
                presets = (await get("train/presets")).presets;
            } catch (error) {
                presets = [];
            }
            const group = (label, items) => (items.length ? h("optgroup", {label}, items.map((preset) => h("option", {value: preset.name}, preset.name))) : null);
            const groups = [group("Your own", presets.filter((preset) => preset.own)), group("Given", presets.filter((preset) => !preset.own))].filter(Boolean);
            select.replaceChildren(h("option", {value: ""}, "Defaults"), ...groups);
            if (chosen) select.value = chosen;
            refresh();
        }

        function refresh() {
            const preset = presets.find((item) => item.name === select.value);
            drop.disabled = !preset || !preset.own;
            drop.title = preset && !preset.own ? "A given preset stays" : "";
            note.textContent = preset ? preset.help || "" : "";
        }

        let listed = 0;
        async function listRuns() {
            if (Date.now() - listed < 3000) return;
            listed = Date.now();
            const answer = await get("train/runs").catch(() => ({runs: []}));
            const now = runs.value;
            runs.replaceChildren(...answer.runs.filter((run) => !run.problem).map((run) => h("option", {value: run.name}, `${run.name}, ${run.step} steps`)));
            if (!answer.runs.length) runs.append(h("option", {value: ""}, "none yet"));
            if (now) runs.value = now;
        }

        // What a preset is about; the rest says what is trained and stays as it is.
        const OWN = ["name", "folder", "checkpoint", "overwrite", "override"];

        function apply(name) {
            const preset = presets.find((item) => item.name === name);
            const wanted = {...train.defaults(), ...(preset ? preset.settings : {})};
            for (const key of OWN) delete wanted[key];
            train.fill(wanted);
            toast(`The form has the ${preset ? `settings of “${preset.name}”` : "defaults"}.`);
        }

        async function save() {
            const input = h("input", {class: "dsm-field", id: "dsm_preset_name", "aria-label": "Name of the preset", value: select.value});
            const body = h("div", {class: "dsm-form"}, h("p", {class: "dsm-subdued"}, "All settings but name, checkpoint and pictures are kept. A preset of your own with this name is replaced."), h("label", {}, h("span", {}, "Name"), input));
            setTimeout(() => input.focus(), 0);
            if (!await DSM.confirm("Save as a preset", body, "Save")) return;
            await attempt(async () => {
                const settings = train.settings(await train.read(), true);
                for (const key of [...OWN, "dataset"]) delete settings[key];
                await post("train/presets", {name: input.value.trim(), settings});
                await list(input.value.trim());
                toast(`The preset “${input.value.trim()}” is saved.`);
            });
        }

        async function remove() {
            const name = select.value;
            if (!await DSM.confirm(`Delete the preset “${name}”?`, "The form stays as it is.", "Delete")) return;
            await attempt(async () => {
                await call("DELETE", "train/presets", {name});
                await list();
            });
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
            train.fill(train.asFields(settings));
            toast(`The form has the settings of ${chosen.name}.`);
        }

        list();
        listRuns();
    };
})();
