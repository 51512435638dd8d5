// The pictures of each preview: any number of requests, each a prompt with seed, steps, guidance, size and sampler.
"use strict";

(function () {
    const {h, toast} = DSM;
    const train = (DSM.train = DSM.train || {});
    const root = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const SHOWN_WIDE = ["prompt", "negative"];
    const AUTOMATIC = "Automatic"; // the WebUI's word for no schedule type of one's own
    let list = []; // the requests
    let specs = []; // PreviewRequest's options, from the page
    let draw = () => {};

    train.requests = {
        // The form begins with them, whether or not the editor is in view.
        begin: (fields, requests) => { specs = fields; train.requests.set(requests); },
        get: () => list.map((request) => ({...request})),
        set: (requests) => {
            list = requests.map((request) => Object.fromEntries(specs.map((spec) => [spec.name, request[spec.name] ?? spec.initial])));
            draw();
        },
    };

    const initial = () => Object.fromEntries(specs.map((spec) => [spec.name, spec.initial]));

    // What the WebUI's own tab txt2img is set to, or null where there is none.
    function fromTxt2img() {
        const value = (id) => {
            const element = root().querySelector(`#txt2img_${id} textarea, #txt2img_${id} input[type=number], #txt2img_${id} input`);
            return element ? element.value : undefined;
        };
        if (value("prompt") === undefined) return null;
        const taken = initial();
        const scheduler = value("scheduler");
        const texts = {prompt: value("prompt"), negative: value("neg_prompt"), sampler: value("sampling"), scheduler: scheduler === AUTOMATIC ? "" : scheduler};
        const numbers = {steps: value("steps"), cfg: value("cfg_scale"), width: value("width"), height: value("height"), seed: value("seed")};
        for (const spec of specs) {
            const text = texts[spec.name];
            if (text !== undefined && (!spec.choices || spec.choices.includes(text))) taken[spec.name] = text;
            const number = Number(numbers[spec.name]);
            if (numbers[spec.name] !== undefined && isFinite(number) && number >= spec.minimum) taken[spec.name] = Math.min(number, spec.maximum);
        }
        const missing = ["sampler", "scheduler"].filter((name) => texts[name] !== undefined && texts[name] !== taken[name])
            .map((name) => `previews have no “${texts[name]}”, so ${taken[name] || AUTOMATIC} is used`);
        if (Number(numbers.seed) < 0) missing.push(`the seed is ${taken.seed} instead of a random one, so that steps compare`);
        return {taken, missing};
    }

    // A sentence where the picture would not show what is trained, else "".
    function withoutName(request) {
        const name = String((train.values() || {}).name || "").trim();
        const text = `${request.prompt}\n${request.negative}`.toLowerCase();
        if (!request.prompt.trim() || text.includes("[name]") || (name && text.includes(name.toLowerCase()))) return "";
        return `This prompt ${name ? `names neither [name] nor ${name}` : "does not name [name]"}, so the picture does not show what is trained.`;
    }

    DSM.widgets.trainrequests = (place) => {
        const rows = h("div", {class: "dsm-requests", id: "dsm_train_requests"});
        const txt2img = h("button", {class: "dsm-button dsm-small", id: "dsm_requests_txt2img", title: "Add a request with the settings of the tab txt2img", onclick: take}, "Take from txt2img");
        const bar = h("div", {class: "dsm-toolbar"},
            h("button", {class: "dsm-button dsm-small", id: "dsm_requests_add", onclick: () => add(list.length ? {...list[list.length - 1], seed: list[list.length - 1].seed + 1} : initial())}, "Add a picture"),
            txt2img, h("span", {class: "dsm-subdued"}, "[name] stands for its name, [filewords] for a caption of the dataset; an empty prompt uses the template. No pictures: no previews."));
        place.replaceChildren(rows, bar);
        txt2img.hidden = !root().querySelector("#txt2img_prompt");

        function take() {
            const {taken, missing} = fromTxt2img();
            add(taken);
            if (missing.length) toast(`Taken from txt2img, but ${missing.join("; ")}.`);
        }

        function add(request) {
            list.push(request);
            draw();
            train.requestsChanged();
            const fields = rows.querySelectorAll("[name=prompt]");
            fields[fields.length - 1].focus();
        }

        function field(request, spec, number) {
            const id = `dsm_request_${number}_${spec.name}`;
            const attributes = {id, name: spec.name, class: "dsm-field", title: spec.help, "aria-label": `${spec.label} of picture ${number + 1}`};
            let element;
            if (spec.choices) {
                // What another program named stays as it is until a person changes it; training refuses it in a sentence.
                const unknown = spec.choices.includes(request[spec.name]) ? [] : [request[spec.name]];
                element = h("select", attributes, spec.choices.map((choice) => h("option", {value: choice}, choice || AUTOMATIC)),
                    unknown.map((choice) => h("option", {value: choice}, `${choice} (not here)`)));
                element.value = request[spec.name];
            } else if (spec.kind === "number") {
                element = h("input", {...attributes, type: "number", min: String(spec.minimum), max: String(spec.maximum), step: String(spec.step || 1)});
                element.value = request[spec.name];
            } else {
                element = h("textarea", {...attributes, rows: "2", placeholder: spec.name === "prompt" ? "solo, [name]" : ""});
                element.value = request[spec.name];
            }
            element.addEventListener(spec.choices || spec.kind === "number" ? "change" : "input", () => {
                if (spec.kind === "number") {
                    let value = Number(element.value);
                    if (element.value.trim() === "" || !isFinite(value)) value = spec.initial;
                    value = Math.min(spec.maximum, Math.max(spec.minimum, spec.whole ? Math.round(value) : value));
                    if (spec.name === "width" || spec.name === "height") value = Math.round(value / 8) * 8;
                    element.value = value;
                    request[spec.name] = value;
                } else request[spec.name] = element.value;
                warn();
                train.requestsChanged();
            });
            return h("label", {class: `dsm-request-field dsm-request-${spec.name}`}, h("span", {}, spec.label), element);
        }

        // Said while the prompts and the name are typed.
        const warnings = new Map();
        function warn() {
            for (const [request, place] of warnings) place.textContent = withoutName(request);
        }
        DSM.on("train-form", warn);

        // A choice of one is none; but what a file brought is shown.
        const hasChoice = (request, spec) => !spec.choices || spec.choices.length > 1 || !spec.choices.includes(request[spec.name]);

        draw = () => {
            warnings.clear();
            for (const request of list) warnings.set(request, h("div", {class: "dsm-request-warning dsm-warn-text", role: "status"}));
            rows.replaceChildren(...list.map((request, number) => h("div", {class: "dsm-request", role: "group", "aria-label": `Picture ${number + 1}`},
                h("div", {class: "dsm-request-head"}, h("b", {}, number + 1),
                    h("button", {class: "dsm-button dsm-small", title: "Copy", "aria-label": `Copy picture ${number + 1}`, onclick: () => { list.splice(number + 1, 0, {...request}); draw(); train.requestsChanged(); }}, "+"),
                    h("button", {class: "dsm-button dsm-small dsm-stop", title: "Remove", "aria-label": `Remove picture ${number + 1}`, onclick: () => { list.splice(number, 1); draw(); train.requestsChanged(); }}, "✕")),
                h("div", {class: "dsm-request-texts"}, specs.filter((spec) => SHOWN_WIDE.includes(spec.name)).map((spec) => field(request, spec, number))),
                warnings.get(request),
                h("div", {class: "dsm-request-numbers"}, specs.filter((spec) => !SHOWN_WIDE.includes(spec.name) && hasChoice(request, spec)).map((spec) => field(request, spec, number))))));
            warn();
            if (!list.length) rows.append(h("div", {class: "dsm-subdued"}, "No previews are made."));
        };
        draw();
    };
})();
