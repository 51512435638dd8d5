// The right side of the tab LoRA: what became of the newest act, charts of it, and pictures side by side.
"use strict";

(function () {
    const {h, svg, get, post, attempt, toast, line, fileAddress} = DSM;
    const lora = (DSM.lora = DSM.lora || {});
    const percent = (value) => lora.percent(value);
    const megabytes = (bytes) => lora.megabytes(bytes);
    const MOST_LEFT_OUT = 6;
    let place = null; // where all of it is shown
    let shown = ""; // the job whose result is
    let pictures = null; // where its pictures go
    const ends = new Set(); // jobs whose end was told

    const name = (path) => path.replace(/^.*[\\/]/, "");

    // ---- what became of it --------------------------------------------------------------------------------------------

    function tile(value, label, title) {
        return h("div", {class: "dsm-tile", title: title || null}, h("b", {}, value), h("span", {}, label));
    }

    function head(facts) {
        const tiles = [facts.bytes ? tile(megabytes(facts.bytes), "the file") : null];
        if (facts.what === "hypernetwork") tiles.push(tile(facts.exact && facts.fit > 1 - 1e-6 ? "exact" : percent(facts.fit), "of the effect", "R² of what the attention layers get added, on captions kept apart"));
        else if (facts.what === "embedding") tiles.push(tile(facts.vectors, "vectors, as they are"));
        else tiles.push(tile(percent(facts.error), "relative error", "‖Δ − Δ'‖ / ‖Δ‖ over all layers in the file"));
        if (facts.total_error !== undefined) tiles.push(tile(percent(facts.total_error), "with what was left out"));
        if (facts.layers.length) tiles.push(tile(facts.layers.length, "layers"));
        return h("div", {class: "dsm-tiles"}, tiles);
    }

    function copied(text) {
        return h("button", {class: "dsm-button dsm-small", title: "Copy", onclick: () => attempt(async () => {
            await navigator.clipboard.writeText(text);
            toast("Copied.");
        })}, "Copy");
    }

    function written(facts) {
        return h("div", {class: "dsm-lora-file"},
            h("div", {}, h("b", {}, name(facts.file)), h("span", {class: "dsm-subdued"}, ` ${facts.file.slice(0, -name(facts.file).length)}`)),
            h("div", {class: "dsm-lora-prompt"}, h("code", {}, facts.prompt), copied(facts.prompt)));
    }

    function notes(facts) {
        const found = (facts.notes || []).map((note) => line("info", note));
        if (facts.what !== "embedding" && (facts.words || []).length) found.push(line("info", "Bundled as embeddings:", `${facts.words.join(", ")}.`));
        const out = facts.left_out || [];
        if (out.length) {
            found.push(h("details", {class: "dsm-left-out"},
                h("summary", {}, `Left out: ${out.slice(0, MOST_LEFT_OUT).map((item) => `${item.reason} (${item.count})`).join("; ")}`),
                out.map((item) => h("p", {}, h("b", {}, `${item.reason}: `), item.keys.join(", "), item.count > item.keys.length ? ` and ${item.count - item.keys.length} more` : ""))));
        }
        return found;
    }

    const TOLD = {
        fit: (layer) => `${percent(layer.fit)} of the effect`,
        "low rank": (layer) => `error ${percent(layer.error)}${layer.rank ? `, rank ${layer.rank}` : ""}${layer.norm ? `, ‖Δ‖ ${layer.norm.toPrecision(3)}` : ""}`,
    };
    const told = (layer) => (TOLD[layer.kind] || ((item) => `${item.kind}, as it is`))(layer);

    // A point of the first chart goes into the form.
    function use(outlook) {
        const way = DSM.root().querySelector("#dsm_lora_way input[type=radio]");
        if (way && !way.checked) way.click();
        setTimeout(() => {
            DSM.fill("dsm_lora_rank", outlook.rank);
            DSM.fill("dsm_lora_conv_rank", outlook.conv_rank);
            toast(`${outlook.label} is in the form.`);
        }, way ? 250 : 0);
    }

    function table(layers) {
        const sorted = [...layers].sort((one, other) => other.error - one.error).slice(0, 40);
        const rows = sorted.map((layer) => h("tr", {}, h("td", {title: layer.name}, lora.shortName(layer.name)), h("td", {}, layer.rank || "–"),
            h("td", {}, percent(layer.error)), h("td", {}, layer.norm ? layer.norm.toPrecision(3) : "–")));
        return h("details", {class: "dsm-lora-table"}, h("summary", {}, "The worst layers as a table"),
            h("table", {class: "dsm-table"}, h("thead", {}, h("tr", {}, ["layer", "rank", "error", "‖Δ‖"].map((title) => h("th", {}, title)))), h("tbody", {}, rows)));
    }

    function show(job) {
        const facts = job.data.lora;
        if (!place || !facts) return;
        shown = job.id;
        pictures = null;
        const parts = [];
        if (facts.what === "survey") {
            parts.push(h("h3", {}, "Before anything is written"),
                h("p", {class: "dsm-subdued"}, "Every point is a rank that you can take: press it, and the form has it. The ring is what the form says now."),
                lora.sizes(facts.outlooks, facts.chosen, use));
        } else {
            parts.push(h("h3", {}, "Ready to use"), written(facts), head(facts));
        }
        const drawn = facts.layers.filter((layer) => layer.kind in TOLD);
        const exact = drawn.every((layer) => layer.error < 1e-4);
        if (drawn.length && exact) parts.push(line("ok", "Every layer is there exactly, rounding aside."));
        else if (drawn.length) parts.push(lora.layers(facts.what === "hypernetwork" ? "What each layer misses" : facts.what === "survey" ? "Error by layer, as the form says" : "Error by layer", drawn, told));
        if ((facts.spectra || []).length) parts.push(lora.spectra(facts.spectra));
        if (drawn.length && !exact) parts.push(table(drawn));
        parts.push(...notes(facts));
        if (facts.file && facts.source) parts.push(comparing(job));
        place.replaceChildren(h("section", {class: "dsm-lora-shown", "aria-label": "Result"}, parts));
    }

    // ---- pictures side by side ------------------------------------------------------------------------------------------

    function field(label, id, attributes, title) {
        const input = h("input", {class: "dsm-field", id, type: "number", title: title || null, ...attributes});
        return [h("label", {}, h("span", {}, label), input), () => Number(input.value)];
    }

    function comparing(job) {
        const title = h("h3", {}, "Side by side, from the same noise");
        const source = job.data.lora.source;
        const prompts = h("textarea", {class: "dsm-field", id: "dsm_lora_prompts", rows: 3, "aria-label": "Prompts, one a line", placeholder: "Prompts, one a line"});
        get("lora/prompts", {job: job.id, count: 3}).then((answer) => { if (!prompts.value) prompts.value = answer.prompts.join("\n"); }).catch(() => {});
        const [countRow, count] = field("pictures", "dsm_lora_count", {min: 1, max: 32, value: "3"});
        const [seedRow, seed] = field("seed", "dsm_lora_seed", {min: 0, value: "1"});
        const [stepsRow, steps] = field("steps", "dsm_lora_steps", {min: 1, max: 150, value: "20"});
        const [cfgRow, cfg] = field("CFG", "dsm_lora_cfg", {min: 1, max: 30, step: 0.5, value: "7"});
        const [sideRow, side] = field("side", "dsm_lora_side", {min: 0, max: 2048, step: 8, value: "0"}, "Pixels; 0: what the checkpoint was made for");
        const [skipRow, skip] = field("CLIP skip", "dsm_lora_skip", {min: 1, max: 12, value: String(source.clip_skip || 1)});
        const draw = h("button", {class: "dsm-button dsm-primary", id: "dsm_lora_draw", onclick: () => attempt(async () => {
            const settings = {previews: count(), preview_seed: seed(), preview_steps: steps(), preview_cfg: cfg(), preview_side: side(), preview_clip_skip: skip()};
            const {job: started} = await post("lora/compare", {job: job.id, prompts: prompts.value.split("\n").filter((text) => text.trim()), settings});
            follow(started);
            draws(started);
        })}, "Draw");
        // Not twice at once; also after a reload.
        const draws = (id) => {
            draw.disabled = true;
            const again = () => { draw.disabled = false; };
            DSM.job.follow(id, () => draw.isConnected, {update: () => {}, problem: (error) => { if (error.status) again(); }}, again);
        };
        pictures = h("div", {class: "dsm-pictures", id: "dsm_lora_pictures"});
        return h("div", {class: "dsm-comparing"}, title, prompts, h("div", {class: "dsm-comparing-numbers"}, countRow, seedRow, stepsRow, cfgRow, sideRow, skipRow, draw), pictures);
    }

    // The panel of jobs takes the one that was started here.
    function follow(id) {
        const panel = DSM.root().querySelector("#dsm_lora_panel [data-dsm=job]");
        if (panel) panel.dataset.job = id;
    }

    function picture(sheet, [left, top, width, height], label, open) {
        const image = svg("image", {href: sheet, x: 0, y: 0});
        const view = svg("svg", {viewBox: `${left} ${top} ${width} ${height}`, role: "img", "aria-label": label});
        view.append(image);
        return h("button", {class: "dsm-picture", title: label, onclick: open}, view);
    }

    function showPictures(job, look = true) {
        const drawn = job.data.compared;
        if (!pictures || job.data.of !== shown) return;
        const sheet = fileAddress(drawn.sheet, job.id);
        const open = () => DSM.lightbox([{address: sheet, label: drawn.columns.join(", ")}], 0);
        const rows = drawn.rows.flatMap((row, place) => [
            ...drawn.boxes[place].map((box, column) => picture(sheet, box, `${drawn.columns[column]}: ${row.prompt}, seed ${row.seed}`, open)),
            h("p", {class: "dsm-subdued"}, `${row.prompt || "(no prompt)"} · seed ${row.seed}`),
        ]);
        const apart = drawn.apart ? h("p", {class: "dsm-subdued"}, "From the original's pictures, those of the base are ", h("b", {}, drawn.apart.toFixed(1)), " grey levels away, those with the LoRA ", h("b", {}, drawn.left.toFixed(1)), ".") : null;
        pictures.replaceChildren(
            h("div", {class: "dsm-pictures-grid", style: `grid-template-columns: repeat(${drawn.columns.length}, minmax(0, 1fr))`},
                drawn.columns.map((column) => h("b", {}, column)), rows),
            apart || "", h("p", {class: "dsm-subdued"}, `The sheet is ${drawn.sheet}`));
        if (look) pictures.scrollIntoView({block: "nearest", behavior: "smooth"});
    }

    // ---- the place ------------------------------------------------------------------------------------------------------

    function ended(job) {
        if (ends.has(job.id)) return;
        ends.add(job.id);
        if (job.data.compared) showPictures(job);
        else if (job.state === "done" && job.data.lora) {
            show(job);
            DSM.press("dsm_lora_refresh");
        }
    }
    DSM.on("ended", ended);

    // The panel tells the end of the job it shows; one that another job took the panel from is told of here.
    DSM.on("running", ({job}) => {
        if (job.data.tab !== "lora") return;
        const panel = () => DSM.root().querySelector("#dsm_lora_panel [data-dsm=job]");
        DSM.job.follow(job.id, () => !ends.has(job.id), {update: () => {}, problem: () => {}}, (now) => {
            if (ends.has(now.id)) return;
            const here = panel() && panel().dsmJob === now.id;
            if (!here && now.state === "failed") toast(`${now.title}: ${now.error}`, "error");
            ended(now);
        });
    });

    // Which of the forms is shown.
    lora.choose = (kind) => { DSM.root().querySelector("#dsm_lora_forms").dataset.kind = kind; };

    DSM.widgets.lora = async (element) => {
        place = element;
        shown = "";
        place.replaceChildren(DSM.empty("Nothing made yet", "Choose on the left what you have. Sizes, errors and pictures appear here; for two checkpoints you can look at them before anything is written."));
        // The lists came with the page as it was built; after a reload the newest result is there again.
        setTimeout(() => DSM.press("dsm_lora_refresh"), 300);
        const {jobs} = await get("jobs", {tab: "lora"}).catch(() => ({jobs: []}));
        const compared = [];
        for (const brief of jobs.filter((job) => job.state === "done").reverse()) {
            const job = await get(`jobs/${brief.id}`).catch(() => null);
            if (shown) return; // something newer ended meanwhile
            if (job && job.data.compared) compared.push(job);
            if (job && job.data.lora) {
                show(job);
                const newest = compared.find((drawn) => drawn.data.of === job.id);
                if (newest) showPictures(newest, false);
                return;
            }
        }
    };
})();
