// Settings from elsewhere (an earlier run, a file) as the form has them, and in a sentence each what it cannot take.
"use strict";

(function () {
    const {h} = DSM;
    const train = (DSM.train = DSM.train || {});
    const clean = (path) => String(path || "").replace(/[\\/]+$/, "");

    // The choice of the folder that a dataset is in; null where the present one is right already.
    function folderChoice(dataset, notes) {
        const project = DSM.state.project;
        const now = (train.values() || {}).folder;
        if (!project) {
            notes.push(`Its pictures are in ${dataset}, and no project is open: open one that holds them.`);
            return null;
        }
        const same = (path) => clean(path) === clean(dataset);
        if (same(train.folderOf(now))) return null;
        const found = project.folders.find((folder) => same(folder.path) && folder.name !== "Folder itself");
        if (found) return found.name;
        if (same(project.path)) return "Project folder";
        if (same(project.train)) return train.fields().find((field) => field.name === "folder").initial;
        notes.push(`Its pictures are in ${dataset}, outside of the open project, so “${now}” of ${project.name} stays chosen: open that folder to train on them.`);
        return null;
    }

    // {wanted: values for train.fill, notes: what of the settings could not be taken}
    train.asFields = (config) => {
        const {dataset, output, ...wanted} = config;
        const notes = [];
        const folder = dataset ? folderChoice(dataset, notes) : null;
        if (folder) wanted.folder = folder;
        if (output) notes.push(`Its output folder ${output} is left out: what is trained from this page goes to the program's own.`);
        return {wanted, notes};
    };

    // Write the settings into the form; gives what could not be taken.
    train.take = (config) => {
        const {wanted, notes} = train.asFields(config);
        return [...notes, ...train.fill(wanted)];
    };

    // What is said where settings were taken over: all is well, or what is not.
    train.taken = (what, notes, remedy) => h("div", {class: `dsm-line dsm-${notes.length ? "warn" : "ok"}`, role: notes.length ? "alert" : "status"},
        h("b", {}, `The form has the settings of ${what}${notes.length ? ", but not all as they were." : "."}`),
        notes.map((note) => h("div", {class: "dsm-not-taken"}, note)), remedy ? [" ", remedy] : null);

    // ---- presets --------------------------------------------------------------------------------------------------------

    // What a person writes, and what belongs to it: a preset's only where it names it.
    const TEXTS = ["init_text", "init_mode", "init_embedding", "init_hypernetwork", "init_continue", "template", "template_file", "previews"];
    const TEMPLATES = ["template", "template_source", "template_file"];

    // The form's values after a preset, from those before. What is trained, and where to, is never a preset's.
    train.withPreset = (preset, before) => {
        const named = preset ? preset.settings : {};
        const wanted = {...train.defaults(), ...named};
        const kept = TEXTS.filter((key) => !(key in named));
        if (!TEMPLATES.some((key) => key in named)) kept.push("template_source");
        // The number of vectors is that of the embedding it starts from.
        if (before.init_embedding && kept.includes("init_embedding")) kept.push("vectors");
        for (const key of [...train.notInAPreset, ...kept]) delete wanted[key];
        return wanted;
    };
})();
