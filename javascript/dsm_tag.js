// The Tag tab below its form: what the settings would write, live from the kept scores, and one picture's own tags.
"use strict";

(function () {
    const {h, svg, post, empty, plural, thumbnail, line} = DSM;
    const root = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const tag = (DSM.tag = DSM.tag || {});
    const SETTLE = 60; // milliseconds after the last movement of a slider
    const LISTED = 400;
    const number = (value) => value.toLocaleString("en");
    let waiting = [];

    // Called by gradio with the values of all fields.
    tag.gathered = (...values) => {
        waiting.splice(0).forEach((done) => done(values));
        return [];
    };

    // Inside the WebUI its own bar shows the job, and its title; a generation takes both over, and then ours is back.
    DSM.on("running", ({job, place}) => {
        if (job.data.tab !== "tag" || typeof requestProgress !== "function") return;
        place.parentNode.querySelectorAll(".progressDiv").forEach((bar) => bar.remove());
        requestProgress(`task(dsm-${job.id})`, place, null, () => {}, null);
    });

    DSM.widgets.tag = (place) => {
        const fields = JSON.parse(place.dataset.fields);
        const folders = JSON.parse(place.dataset.folders);
        let chosen = null; // the tag whose histogram is shown
        let page = 0;
        let settings = null; // {folder, options} as they were read last
        let taggers = []; // what is known of each
        let running = false;
        let again = null; // what to ask next, while one is asked

        // ---- reading the form ----------------------------------------------------------------------------------------

        const read = () => new Promise((done) => {
            waiting.push(done);
            if (!DSM.press("dsm_tag_gather")) waiting = [];
        });

        function folderOf(choice) {
            const project = DSM.state.project;
            const found = project.folders.find((folder) => folder.name === choice);
            if (found) return found.path;
            return folders.includes(choice) ? project.path : project.tag;
        }

        async function look() {
            const [where, ...values] = await read();
            const options = {};
            fields.forEach((field, index) => {
                const value = values[index];
                options[field.name] = field.list ? String(value || "").split(",").map((text) => text.trim()).filter(Boolean)
                    : value === null || value === undefined ? field.default : value;
            });
            settings = {folder: folderOf(where), options};
            describe();
        }

        // What the chosen tagger is, in a line.
        const about = h("div", {class: "dsm-subdued dsm-tagger", id: "dsm_tag_about"});
        function describe() {
            const found = taggers.find((row) => settings && row.name === settings.options.model);
            about.hidden = !found;
            if (!found) return;
            const size = found.megabytes ? `about ${number(found.megabytes)} MB, ` : "";
            about.textContent = `${found.name}${found.note ? ` (${found.note})` : ""}: ${found.here ? "is on this machine" : `${size}is fetched from ${found.repository} when first used`}`
                + `${found.threshold ? `; balanced at ${found.threshold}` : ""}; licence ${found.licence}.`;
        }
        async function learn() {
            taggers = (await DSM.get("taggers").catch(() => ({taggers: []}))).taggers;
            describe();
        }

        // ---- asking ----------------------------------------------------------------------------------------------------

        async function refresh(fresh) {
            if (!DSM.state.project) return;
            if (running) { again = again || fresh; return; }
            running = true;
            try {
                await look();
                const found = await post("tag/try", {...settings, fresh: Boolean(fresh)});
                draw(found);
                if (found.pictures) await Promise.all([drawPictures(), drawHistogram()]);
            } catch (error) {
                nothing(error);
            }
            running = false;
            if (again !== null) {
                const next = again;
                again = null;
                refresh(next);
            }
        }

        // ---- what would be written ---------------------------------------------------------------------------------------

        const summary = h("div", {class: "dsm-try-summary", "aria-live": "polite"});
        const filter = h("input", {class: "dsm-field", placeholder: "Find a tag", "aria-label": "Find a tag", oninput: () => drawTags()});
        const list = h("div", {class: "dsm-tags", id: "dsm_tag_list", role: "listbox", "aria-label": "Tags that would be written"});
        const chart = h("div", {class: "dsm-try-chart", id: "dsm_tag_histogram"});
        const changes = h("div", {class: "dsm-try-changes", id: "dsm_tag_changes"});
        const pager = h("div", {});
        const board = h("div", {class: "dsm-try"}, h("div", {class: "dsm-column"}, filter, list), h("div", {class: "dsm-column"}, chart, changes, pager));
        const stage = h("div", {});
        let tags = [];
        let pictures = 0;

        function nothing(error, reason) {
            stage.replaceChildren(!error
                ? empty(reason && !reason.includes(" yet.") ? reason : "Nothing has been tried out yet", "“Try out first” lets the tagger look at every picture and writes nothing. Then every setting shows at once here what it would write.")
                : line("error", error.problem, error.remedy));
        }

        function draw(found) {
            if (!found.pictures) return nothing(null, found.reason);
            [tags, pictures] = [found.tags, found.pictures];
            const each = (found.total / found.pictures).toFixed(1);
            const limits = found.thresholds ? `from ${found.thresholds[0].toFixed(2)}, characters from ${found.thresholds[1].toFixed(2)}` : "each picture's own threshold";
            summary.replaceChildren(h("b", {}, `${each} tags a picture`),
                ` · ${plural(found.distinct, "different tag")} in ${plural(found.pictures, "picture")} · ${limits}`,
                found.missing ? h("span", {class: "dsm-warn-text"}, ` · ${plural(found.missing, "picture")} not looked at yet`) : "");
            if (!board.isConnected) stage.replaceChildren(summary, board);
            if (!chosen && tags.length) chosen = tags[0].tag;
            drawTags();
        }

        function drawTags() {
            const wanted = filter.value.trim().toLowerCase();
            const shown = tags.filter((item) => item.tag.toLowerCase().includes(wanted)).slice(0, LISTED);
            list.replaceChildren(...shown.map((item) => h("div", {
                class: `dsm-tag dsm-try-tag${item.tag === chosen ? " dsm-current" : ""}`, style: `--share:${100 * item.count / pictures}%`,
                role: "option", tabindex: "0", "aria-selected": String(item.tag === chosen), title: item.kind,
                onclick: () => choose(item.tag),
                onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(item.tag); } },
            }, h("span", {class: "dsm-tag-name"}, item.tag), h("span", {class: "dsm-tag-count"}, number(item.count)))));
        }

        function choose(name) {
            chosen = name;
            drawTags();
            drawHistogram();
        }

        async function drawHistogram() {
            if (!chosen) return;
            let found;
            try {
                found = await post("tag/histogram", {...settings, tag: chosen});
            } catch (error) {
                chosen = null;
                chart.replaceChildren();
                return;
            }
            const [width, height, foot] = [Math.max(300, chart.parentElement.clientWidth - 30), 100, 18];
            // Nearly all pictures have next to nothing of most tags: the first bar would dwarf the others.
            const most = Math.max(1, ...found.bins.slice(1));
            const step = width / found.bins.length;
            const drawing = svg("svg", {viewBox: `0 0 ${width} ${height + foot}`, class: "dsm-try-drawing", role: "img", "aria-label": `Scores of ${found.name}`});
            found.bins.forEach((count, index) => {
                const tall = Math.min(1, count / most) * (height - 6);
                const over = found.threshold !== null && (index + 0.5) / found.bins.length >= found.threshold;
                drawing.append(svg("rect", {x: index * step + 0.5, y: height - tall, width: step - 1, height: tall, class: over ? "dsm-over-limit" : "dsm-under-limit"},
                    svg("title", {}, `${(index / found.bins.length).toFixed(2)} to ${((index + 1) / found.bins.length).toFixed(2)}: ${plural(count, "picture")}`)));
            });
            for (const mark of [0, 0.25, 0.5, 0.75, 1]) {
                const anchor = mark === 0 ? "start" : mark === 1 ? "end" : "middle";
                drawing.append(svg("text", {x: mark * width, y: height + 14, class: "dsm-tick", "text-anchor": anchor}, String(mark)));
            }
            if (found.threshold !== null) drawing.append(svg("line", {x1: found.threshold * width, x2: found.threshold * width, y1: 0, y2: height, class: "dsm-limit"}));
            const least = found.bins[0];
            chart.replaceChildren(h("div", {class: "dsm-figure-head"}, h("b", {}, chosen),
                h("span", {class: "dsm-subdued"}, `how the tagger scores it; ${plural(least, "picture")} below ${(1 / found.bins.length).toFixed(2)}`)), drawing);
        }

        // With commas that are text, so that they are copied as well.
        const listed = (elements) => elements.flatMap((element, index) => (index ? [", ", element] : [element]));

        async function drawPictures() {
            const found = await post("tag/changes", {...settings, page, size: 12});
            if (page >= found.pages) { page = 0; return drawPictures(); }
            changes.replaceChildren(...found.changes.map((change) => h("div", {class: "dsm-try-change"},
                h("button", {class: "dsm-thumb", title: `${change.name}: all scores`, onclick: () => one({path: change.path}, thumbnail(change.path, 256, change.stamp))},
                    h("img", {src: thumbnail(change.path, 128, change.stamp), alt: change.name, loading: "lazy"})),
                h("div", {}, h("div", {class: "dsm-subdued dsm-try-name"}, change.name, change.added.length || change.removed.length ? "" : change.exists && settings.options.on_existing === "skip" ? " · has a caption, which is kept" : " · stays as it is"),
                    h("div", {class: "dsm-try-tags"},
                        listed([...change.after.map((text) => h("span", {class: change.added.includes(text) ? "dsm-try-new" : ""}, text)),
                            ...change.removed.map((text) => h("s", {}, text))]))))));
            pager.replaceChildren(DSM.pager(found.page, found.pages, (next) => { page = next; drawPictures(); }) || "");
        }

        // ---- one picture ---------------------------------------------------------------------------------------------------

        const result = h("div", {class: "dsm-one", id: "dsm_tag_one", hidden: true});
        const input = h("input", {type: "file", accept: "image/*", hidden: true, onchange: () => take(input.files[0])});
        const drop = h("button", {
            class: "dsm-drop", id: "dsm_tag_drop", onclick: () => input.click(),
            ondragover: (event) => { event.preventDefault(); drop.classList.add("dsm-on"); },
            ondragleave: () => drop.classList.remove("dsm-on"),
            ondrop: (event) => { event.preventDefault(); drop.classList.remove("dsm-on"); take(event.dataTransfer.files[0]); },
        }, h("b", {}, "One picture"), h("span", {}, "Drop it here, or click, to see its tags and scores; nothing is written."));

        function take(file) {
            if (!file) return;
            if (file.size > 5.5e6) {
                DSM.toast("The picture is over 5 MB; put it into the project's folder and choose it there.", "error");
                return;
            }
            const reader = new FileReader();
            reader.onload = () => one({picture: reader.result}, reader.result);
            reader.readAsDataURL(file);
        }

        const bars = (title, scores, written) => Object.keys(scores).length === 0 ? null : h("div", {class: "dsm-bars"}, h("div", {class: "dsm-caption"}, title),
            Object.entries(scores).map(([name, score]) => h("div", {class: `dsm-score${written.has(name) ? " dsm-on" : ""}`},
                h("span", {}, name.replace(/_/g, " ")), h("i", {style: `--share:${100 * score}%`}), h("span", {class: "dsm-number"}, score.toFixed(2)))));

        async function one(what, address) {
            result.hidden = false;
            result.replaceChildren(h("div", {class: "dsm-checking"}, h("div", {class: "dsm-spinner"}), "The tagger looks at it …"));
            try {
                await look();
                const found = await post("tag/picture", {options: settings.options, ...what});
                const written = new Set(Object.keys(found.scores));
                const text = found.tags.join(", ");
                result.replaceChildren(h("div", {class: "dsm-one-left"}, h("img", {src: address, alt: ""}),
                    bars("Rating", found.ratings, new Set([found.rating])), bars("Characters", found.character, written)),
                h("div", {class: "dsm-one-right"}, h("div", {class: "dsm-one-caption"}, h("textarea", {class: "dsm-field", readOnly: true, rows: 3, "aria-label": "Caption"}, text),
                    h("div", {}, h("button", {class: "dsm-button dsm-small", onclick: () => navigator.clipboard.writeText(text).then(() => DSM.toast("Copied."))}, "Copy"),
                        h("button", {class: "dsm-button dsm-small", onclick: () => { result.hidden = true; }}, "Close"))),
                bars("General", found.general, written)));
            } catch (error) {
                result.replaceChildren(line("error", error.problem || String(error), error.remedy));
            }
        }

        // ---- beginning ---------------------------------------------------------------------------------------------------------

        place.replaceChildren(about, drop, input, result, stage);
        nothing();
        learn();
        let timer = null;
        const moved = () => {
            clearTimeout(timer);
            timer = setTimeout(() => { if (DSM.state.project) refresh(false); }, SETTLE);
        };
        for (const id of ["dsm_tag_form", "dsm_tag_more", "dsm_tag_run"]) {
            const part = root().querySelector(`#${id}`);
            if (part) for (const name of ["input", "change", "click", "keyup"]) part.addEventListener(name, moved);
        }
        DSM.on("project", () => { page = 0; chosen = null; refresh(true); });
        DSM.on("ended", (job) => { if (job.data.tab === "tag" && place.isConnected) { learn(); refresh(true); } });
        refresh(true);
    };
})();
