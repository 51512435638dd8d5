// For newcomers: the way on one screen, what to do where a tab has nothing to work on yet, and a small demo project.
"use strict";

(function () {
    const {h, get, post, attempt, toast} = DSM;
    const SEEN = "dsm.tour.seen";
    const WAY = [
        ["Dataset", "Collect", "Put 20 to 200 pictures of one character, thing or style into a project. Your own files stay as they are."],
        ["Crop", "Crop", "Cut long pictures in two and others to the part that matters. Training takes all shapes, so you may skip this."],
        ["Tag", "Tag", "A tagger writes beside each picture what is on it. Press “Tag pictures”; the settings are fine as they are."],
        ["Prune", "Prune", "Take out the tags of what the character always has, such as hair and eyes: the new word learns what is not named."],
        ["Train", "Train", "Give it a name, look at “Check settings”, start, and watch the previews. Stop when they are good; any saved step can be used."],
        ["LoRA", "Use", "Write the name in a prompt. If you rather share one file, turn what was trained into a LoRA here."],
    ];

    async function makeDemo() {
        const project = await attempt(() => post("project/demo"));
        if (!project) return;
        DSM.project.use(project);
        toast(`${project.name} is open: ${project.path}`);
    }

    const demoButton = () => h("button", {class: "dsm-button", onclick: makeDemo, title: "Draws 26 small pictures of a cartoon character, to try every tab with"}, "Make a small demo project");
    const tourButton = () => h("button", {class: "dsm-button", onclick: showTour}, "Show the way");
    const GO_TO = {Dataset: "Go to Dataset", Crop: "Go to Crop", Tag: "Go to Tag", Prune: "Go to Prune", Train: "Go to Train", LoRA: "Go to LoRA"};
    const goButton = (label) => h("button", {class: "dsm-button dsm-small", onclick: () => DSM.openTab(label)}, GO_TO[label]);

    const steps = (leave) => h("ol", {class: "dsm-tour-steps"}, WAY.filter(([tab]) => !DSM.state.hidden.includes(tab)).map(([tab, name, text]) => h("li", {},
        h("button", {class: "dsm-tour-step", onclick: () => { leave(); DSM.openTab(tab); }}, h("b", {}, name), h("span", {}, text)))));

    function showTour() {
        const back = document.activeElement;
        const close = () => { overlay.remove(); if (back && back.focus) back.focus(); };
        const got = h("button", {class: "dsm-button dsm-primary", id: "dsm_tour_close", onclick: close}, "Close");
        const overlay = h("div", {class: "dsm-overlay", role: "dialog", "aria-modal": "true", "aria-label": "From pictures to a word of your own"},
            h("div", {class: "dsm-dialog dsm-tour"}, h("h3", {}, "From pictures to a word of your own"), steps(close),
                h("div", {class: "dsm-dialog-buttons"}, demoButton(), got)));
        overlay.querySelector(".dsm-dialog-buttons button").addEventListener("click", close);
        overlay.addEventListener("click", (event) => { if (event.target === overlay) close(); });
        overlay.addEventListener("keydown", (event) => {
            event.stopPropagation();
            if (event.key === "Escape") close();
        });
        DSM.over(overlay);
        got.focus();
    }

    // Where a tab needs a project and there is none.
    const noProject = () => DSM.empty("No project is open",
        "Write a folder at the top: Open takes one with pictures, New makes one. Or try everything on a small demo.", demoButton(), tourButton());

    const seen = () => { try { return Boolean(localStorage.getItem(SEEN)); } catch (error) { return true; } };

    // ---- what a tab lacks, told above it ------------------------------------------------------------------------------

    const folderAt = (project, path) => project.folders.find((folder) => folder.path === path) || {pictures: 0, captions: 0};
    const nothing = (text, ...buttons) => h("div", {class: "dsm-line dsm-hint", role: "status"}, h("span", {class: "dsm-line-buttons"}, buttons), text);
    const noPictures = () => nothing("The project holds no pictures yet. Add some on Dataset.", goButton("Dataset"));

    const LACKS = {
        dataset: () => (seen() ? null : h("section", {class: "dsm-tour dsm-tour-card", id: "dsm_tour_card", "aria-label": "The way"},
            h("div", {class: "dsm-toolbar"}, h("b", {}, "From pictures to a word of your own"), h("span", {class: "dsm-spring"}),
                h("button", {class: "dsm-button dsm-small", id: "dsm_tour_seen", title: "The ? at the top shows it again", onclick: (event) => {
                    localStorage.setItem(SEEN, "yes");
                    event.target.closest("[data-dsm=hint]").replaceChildren();
                }}, "Got it")), steps(() => {}))),
        crop: () => null, // its page says so itself
        tag: (project) => (!project ? noProject() : folderAt(project, project.tag).pictures ? null : noPictures()),
        prune: (project) => {
            if (!project) return null; // its page says so itself
            const folder = folderAt(project, project.tag);
            return !folder.pictures ? noPictures() : folder.captions ? null : nothing("There are no captions to prune yet. Tag writes them.", goButton("Tag"));
        },
        train: (project) => {
            if (!project) return noProject();
            const folder = folderAt(project, project.train);
            return !folder.pictures ? noPictures() : folder.captions ? null
                : nothing(`No picture in ${folder.name} has a caption yet, so every prompt would be the name alone. Tag them first.`, goButton("Tag"));
        },
        lora: async () => {
            const found = await get("train/runs").catch(() => ({runs: [0]}));
            return found.runs.length ? null : nothing("Nothing has been trained here yet. Train makes what this tab turns into LoRA files; two checkpoints make one without it.", goButton("Train"));
        },
    };

    DSM.widgets.hint = (place) => {
        const draw = async () => {
            const lack = await LACKS[place.dataset.tab](DSM.state.project);
            if (place.dataset.tab === "dataset" && lack && place.firstChild) return; // it stays as the person sees it
            place.replaceChildren(...[lack].filter(Boolean));
        };
        for (const event of ["project", "changed", "ended"]) DSM.on(event, draw);
        draw();
    };

    DSM.onClick("dsm_tour_open", showTour);
    DSM.tour = {show: showTour, makeDemo, noProject};
})();
