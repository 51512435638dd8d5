// Cropping: a strip of pictures, the frames over the large one, and what comes out beside it.
"use strict";

(function () {
    const {h, post, attempt, empty, thumbnail, plural, toast} = DSM;
    const MODES = [
        ["auto", "Automatic", "pad where the ground blends, both sides of what is long, else what the picture shows"],
        ["subject", "Subject", "what the picture shows"], ["portrait", "Portrait + body", "head and shoulders, and all of one figure"],
        ["people", "People", "one frame for each person"], ["center", "Centre", "keep the middle, cut the rest away"],
        ["pad", "Pad", "keep the whole picture, add ground at the sides"], ["split", "Split", "long pictures become two"],
        ["bucket", "Bucket", "the middle, in the nearest training size"], ["keep", "As they are", "copy without cropping"],
    ];
    const LOOKING = ["auto", "subject", "portrait", "people"];
    const KEYS = [
        ["Enter", "confirm the frames of this picture and go on"],
        ["A", "confirm all that is proposed (Shift and a)"],
        ["← ↑ → ↓", "move the frame by 8 pixels; with Shift by 1"],
        ["+ −", "make the frame larger or smaller"],
        ["PgUp PgDn", "the picture before, the picture after"],
        ["1 … 9", "this picture anew: automatic, subject, portrait, people, centre, pad, split, bucket, as it is"],
        ["n", "one more frame on this picture"],
        ["f", "the next frame of this picture"],
        ["Delete", "take the frame away"],
        ["m", "a mirrored copy of this picture's crops, or none"],
        ["s", "leave the picture out, or take it in again"],
        ["u", "take back what was decided or moved last"],
        ["r g", "keep the shape; snap to the training sizes"],
        ["wheel", "zoom to the pointer; drag the ground to move"],
        ["z 0", "one pixel for one; the whole picture"],
        ["b", "what variable-aspect training would keep of the picture"],
        ["?", "this list"],
    ];
    const STATES = {untouched: "", proposed: "proposed", confirmed: "✓", skipped: "left out"};
    const REMEMBERED = 100; // acts that can be taken back
    const [FEW, MANY] = [6, 200]; // pictures that are proposed at a time: those that must be read, those that need not

    DSM.widgets.crop = (place) => {
        const frames = DSM.frames; // of scripts that are read after this one
        const {folded, unfolded} = DSM.cropPlan;
        let pictures = [];
        let problems = [];
        let [at, frame] = [0, 0];
        let [locked, snap, showKept] = [true, false, false];
        const options = {mode: "auto", width: 512, height: 512, shrink: true, enlarge: false, color: "auto", format: "png", quality: 95, flip: false, detector: "", bucket_step: 64};

        // ---- elements ----------------------------------------------------------------------------------------------
        const modes = h("span", {class: "dsm-segments", role: "group", "aria-label": "Propose for all pictures"}, MODES.map(([mode, label, title]) =>
            h("button", {id: `dsm_crop_mode_${mode}`, title: `All pictures without a decision: ${title}`, onclick: () => { options.mode = mode; propose(); }}, label)));
        const number = (key, step) => h("input", {class: "dsm-field", id: `dsm_crop_${key}`, type: "number", min: "16", max: "8192", step, value: String(options[key]), "aria-label": `Finished ${key}`, onchange: reshape});
        const [width, height] = [number("width", "64"), number("height", "64")];
        const box = (id, label, title, change) => {
            const input = h("input", {type: "checkbox", id: `dsm_crop_${id}`, onchange: () => change(input.checked)});
            return [input, h("label", {title}, input, label)];
        };
        const [ratio, ratioLabel] = box("ratio", "keep the shape", "Key r", (on) => { locked = on; draw(); });
        const [snapping, snapLabel] = box("snap", "snap to training sizes", "A pulled frame takes the shape of the nearest size of variable-aspect training (key g)", (on) => { snap = on; if (on) { locked = ratio.checked = false; } draw(); });
        const [enlarge, enlargeLabel] = box("enlarge", "enlarge", "Enlarge what has fewer pixels than asked for", (on) => { options.enlarge = on; refinish(); });
        const [flip, flipLabel] = box("flip", "mirrored copies", "Of each crop, unless its caption names something one-sided", (on) => { options.flip = on; propose(); });
        ratio.checked = true;
        const choice = (id, label, entries, change) => h("select", {class: "dsm-field", id: `dsm_crop_${id}`, "aria-label": label, onchange: change}, entries.map(([value, text]) => h("option", {value}, text)));
        const ground = choice("color_kind", "Padding", [["auto", "edge colour"], ["white", "white"], ["pick", "colour"], ["blur", "blur"], ["transparent", "transparent"]], recolor);
        const color = h("input", {class: "dsm-field", id: "dsm_crop_color", type: "color", value: "#ffffff", "aria-label": "Padding colour", onchange: recolor, hidden: true});
        const format = choice("format", "Format", [["png", "PNG"], ["jpeg", "JPEG"], ["webp", "WebP"]], reformat);
        const quality = h("input", {class: "dsm-field", id: "dsm_crop_quality", type: "number", min: "1", max: "100", value: "95", title: "Quality", "aria-label": "Quality", hidden: true, onchange: reformat});
        const detector = DSM.cropDetector((path) => { options.detector = path; remember(); if (LOOKING.includes(options.mode)) propose(); });
        const acceptButton = h("button", {class: "dsm-button", id: "dsm_crop_accept", title: "Confirm all that is proposed (Shift and a)", onclick: acceptAll});
        const writeButton = h("button", {class: "dsm-button dsm-primary", id: "dsm_crop_write", onclick: write});
        const backButton = h("button", {class: "dsm-button", id: "dsm_crop_back", title: "Take back what was written last; nothing is deleted", onclick: takeBack}, "Take back");
        const cleanButton = h("button", {class: "dsm-button", id: "dsm_crop_clean", title: "Duplicates, blurred, too small: look before cropping", onclick: () => DSM.cropClean(begin)}, "Clean the set …");
        const help = h("button", {class: "dsm-button", id: "dsm_crop_keys", title: "Keys", "aria-label": "Keys", onclick: () => DSM.showKeys("Keys of this page", KEYS)}, "?");
        const counts = h("div", {class: "dsm-crop-counts", id: "dsm_crop_counts"});
        const strip = h("div", {class: "dsm-strip", id: "dsm_crop_strip"});
        const facts = h("div", {class: "dsm-side", id: "dsm_crop_side"});
        const notes = h("div", {});
        const aspect = h("div", {class: "dsm-crop-aspect"}, "For variable-aspect training nothing need be cropped. ",
            h("button", {class: "dsm-link", id: "dsm_crop_buckets", onclick: () => DSM.cropBuckets(options)}, "What each size would cut away"));
        const stage = DSM.cropStage({drag, redraw: () => draw(true), focus: () => page.focus({preventScroll: true}), facts: label});
        const page = h("div", {class: "dsm-page dsm-page-crop", tabindex: "-1"},
            h("div", {class: "dsm-toolbar"}, h("span", {class: "dsm-subdued"}, "Propose"), modes,
                h("label", {}, "Detector", detector.element),
                h("span", {class: "dsm-spring"}), cleanButton, help),
            h("div", {class: "dsm-toolbar"}, h("label", {}, "Size", width, "×", height), ratioLabel, snapLabel, enlargeLabel,
                h("label", {}, "Padding", ground, color), flipLabel, h("label", {}, "Write as", format, quality)),
            h("div", {class: "dsm-toolbar"}, aspect, h("span", {class: "dsm-spring"}), h("span", {class: "dsm-together"}, acceptButton, backButton, writeButton)),
            notes, h("div", {class: "dsm-crop"}, h("div", {class: "dsm-column"}, counts, strip), stage.element, facts));
        const grid = DSM.virtual(strip, {height: (each) => each * 0.75 + 24, gap: 6, item: thumb});

        const current = () => pictures[at];
        const open = (picture) => picture.state === "untouched" || picture.state === "proposed";
        const stored = () => `dsm.crop.options:${DSM.state.project.path}`;

        // ---- what was before -------------------------------------------------------------------------------------
        const past = []; // acts, each the pictures as they were

        const copied = (picture) => ({picture, state: picture.state, own: picture.own, note: picture.note, items: picture.items.map((item) => ({...item, box: [...item.box]}))});

        function before(...chosen) {
            past.push(chosen.map(copied));
            if (past.length > REMEMBERED) past.shift();
        }

        function undo() {
            const act = past.pop();
            if (!act) return toast("There is nothing to take back.");
            for (const {picture, ...was} of act) {
                Object.assign(picture, was, {judged: null});
                waiting.delete(picture);
                changed(picture);
            }
            go(pictures.indexOf(act[0].picture));
        }

        // ---- the plan: read, proposed, saved -------------------------------------------------------------------------
        async function load() {
            if (!DSM.state.project) return;
            const project = DSM.state.project.path;
            if (saver) await saver.end();
            const rest = await DSM.cropSaving.resume(project);
            const answer = await attempt(() => post("crop/open", {project}));
            if (!answer || DSM.state.project.path !== project) return;
            const last = current() && current().name;
            past.length = 0;
            saver = DSM.cropSaving(project, other);
            pictures = answer.pictures.map((picture) => ({...picture, ...unfolded(picture.items)}));
            saver.takeUp(pictures, rest);
            problems = answer.problems;
            recall();
            options.detector = detector.list(answer.detectors, answer.detector_folder, options.detector);
            at = Math.max(0, pictures.findIndex((picture) => picture.name === last));
            frame = 0;
            if (!page.isConnected) place.replaceChildren(page);
            notes.replaceChildren(...problems.slice(0, 4).map((problem) => DSM.line("warn", problem)));
            draw();
            // The picture one looks at is read before those that are to be listed and proposed.
            const mine = pictures;
            await stage.ready();
            if (pictures !== mine) return;
            grid.show(pictures.length);
            if (!pictures.length) strip.replaceChildren(empty("No pictures", "Add some on the tab Dataset."));
            draw();
            look();
            propose(pictures.filter((picture) => picture.state === "untouched" && !picture.items.length));
        }

        function recall() {
            try {
                Object.assign(options, JSON.parse(localStorage.getItem(stored())) || {});
            } catch (error) { /* the usual ones, then */ }
            [width.value, height.value, enlarge.checked, flip.checked, format.value, quality.value] = [options.width, options.height, options.enlarge, options.flip, options.format, options.quality];
            const named = ["auto", "white", "blur", "transparent"].includes(options.color);
            ground.value = named ? options.color : "pick";
            if (!named) color.value = options.color;
            color.hidden = named;
            quality.hidden = options.format === "png";
        }

        const remember = () => localStorage.setItem(stored(), JSON.stringify(options));

        // Another window has decided on a picture.
        function other(picture, saved) {
            Object.assign(picture, unfolded(saved.items), {state: saved.state, mark: saved.mark, judged: null});
            waiting.delete(picture);
            if (pictures.includes(picture)) grid.replace(pictures.indexOf(picture));
            if (picture === current()) frame = 0;
            draw();
        }

        const waiting = new Map(); // pictures that are to be proposed, each with a ticket that says how
        let [saver, asking] = [null, null];

        const isOwn = (picture) => picture.own || picture.items.some((item) => item.mode === "free"); // made by the person

        // Proposals for all pictures without a decision and without a frame of the person's own, or for some anew.
        function propose(chosen, mode) {
            remember();
            const wanted = chosen || pictures.filter((one) => open(one) && !isOwn(one));
            const seen = wanted.filter((picture) => picture.items.length);
            if (seen.length) before(...seen);
            for (const picture of wanted) waiting.set(picture, {mode: mode || options.mode});
            draw();
            asking = asking || ask().finally(() => { asking = null; });
            return asking;
        }

        async function ask() {
            while (waiting.size) {
                // The picture that is looked at and those behind it, then those before it, the nearest first.
                const order = [...pictures.slice(at), ...pictures.slice(0, at).reverse()].filter((picture) => waiting.has(picture));
                if (!order.length) { waiting.clear(); break; } // of a list that was read anew meanwhile
                const {mode} = waiting.get(order[0]);
                const batch = order.filter((picture) => waiting.get(picture).mode === mode).slice(0, LOOKING.includes(mode) ? FEW : MANY);
                const tickets = batch.map((picture) => waiting.get(picture));
                const answer = await attempt(() => post("crop/propose", {project: DSM.state.project.path, options: {...options, mode}, names: batch.map((picture) => picture.name)}));
                if (!answer) { waiting.clear(); break; }
                const found = new Map(answer.pictures.map((picture) => [picture.name, picture]));
                for (const [index, picture] of batch.entries()) {
                    // Decided by the person, or asked for in another way, meanwhile.
                    if (waiting.get(picture) !== tickets[index]) continue;
                    waiting.delete(picture);
                    const proposal = found.get(picture.name);
                    if (!proposal || picture.stamp !== proposal.stamp) continue;
                    Object.assign(picture, unfolded(proposal.items), {state: "proposed", own: false, judged: null, note: proposal.notes[0] || ""});
                    if (picture === current()) { frame = 0; look(); }
                    changed(picture);
                }
                draw();
            }
            draw();
        }

        function changed(picture, now) {
            grid.replace(pictures.indexOf(picture));
            saver.changed(picture, now);
        }

        const flush = () => (saver ? saver.flush() : true);

        // ---- options -------------------------------------------------------------------------------------------------
        function reshape() {
            const read = (field, old) => Math.max(16, Math.min(8192, Math.round(Number(field.value)))) || old;
            [options.width, options.height] = [read(width, options.width), read(height, options.height)];
            [width.value, height.value] = [options.width, options.height];
            // Frames that a person made keep their middle and get the new shape, to be looked at again.
            const ratio = options.width / options.height;
            const own = pictures.filter((picture) => picture.state === "confirmed" || isOwn(picture));
            if (own.length) before(...own);
            for (const picture of own) {
                for (const item of picture.items) {
                    if (item.mode === "keep") continue;
                    if (Math.abs(frames.width(item.box) / frames.height(item.box) / ratio - 1) < 0.02) { setSize(item); continue; }
                    setBox(picture, item, frames.shaped(item.box, ratio, picture, isPadded(picture, item)), isPadded(picture, item) ? "pad" : "free");
                    if (picture.state === "confirmed") picture.state = "proposed";
                }
                picture.own = true;
                changed(picture);
            }
            propose();
        }

        const isPadded = (picture, item) => item.mode === "pad" || item.box[0] < 0 || item.box[1] < 0 || item.box[2] > picture.width || item.box[3] > picture.height;

        function refinish() {
            remember();
            for (const picture of pictures) {
                if (!picture.items.length) continue;
                for (const item of picture.items) setSize(item);
                changed(picture);
            }
            draw();
        }

        function recolor() {
            color.hidden = ground.value !== "pick";
            options.color = ground.value === "pick" ? color.value : ground.value;
            remember();
            for (const picture of pictures) {
                if (!picture.items.some((item) => item.color !== options.color)) continue;
                for (const item of picture.items) item.color = options.color;
                changed(picture);
            }
            draw();
        }

        function reformat() {
            options.format = format.value;
            options.quality = Math.max(1, Math.min(100, Math.round(Number(quality.value)))) || 95;
            quality.hidden = options.format === "png";
            remember();
        }

        // ---- frames --------------------------------------------------------------------------------------------------
        function setSize(item) {
            const {width: w, height: hgt} = frames.finished(item, options, snap || frames.isSnapped(item, options));
            [item.width, item.height] = [w, hgt];
        }

        function setBox(picture, item, next, mode) {
            item.box = frames.placed(next, picture);
            if (mode) item.mode = mode;
            item.why = "";
            setSize(item);
        }

        const moved = (item) => (item.mode === "pad" ? "pad" : "free");

        function move(dx, dy) {
            const [picture, item] = [current(), current() && current().items[frame]];
            if (!item) return;
            before(picture);
            setBox(picture, item, [item.box[0] + dx, item.box[1] + dy, item.box[2] + dx, item.box[3] + dy], moved(item));
            touched(picture);
        }

        function grow(factor) {
            const [picture, item] = [current(), current() && current().items[frame]];
            if (!item) return;
            const [w, hgt] = [frames.width(item.box), frames.height(item.box)];
            factor = Math.min(factor, item.mode === "pad" ? 8 : Math.min(picture.width / w, picture.height / hgt));
            const [x, y] = [(item.box[0] + item.box[2]) / 2, (item.box[1] + item.box[3]) / 2];
            before(picture);
            setBox(picture, item, [x - w * factor / 2, y - hgt * factor / 2, x + w * factor / 2, y + hgt * factor / 2], moved(item));
            touched(picture);
        }

        function touched(picture) {
            if (picture.state === "untouched" || picture.state === "skipped") picture.state = "proposed";
            picture.own = true;
            waiting.delete(picture);
            changed(picture);
            draw();
            judgeSoon();
        }

        function drag(event, index, corner) {
            event.preventDefault();
            event.stopPropagation();
            page.focus({preventScroll: true});
            frame = index;
            const [picture, item] = [current(), current().items[index]];
            const [start, from, unit] = [[...item.box], [event.clientX, event.clientY], stage.scale];
            let isMoved = false;
            waiting.delete(picture); // it is the person's now
            const was = copied(picture);
            const follow = (now) => {
                const [dx, dy] = [(now.clientX - from[0]) / unit, (now.clientY - from[1]) / unit];
                if (!isMoved && Math.hypot(now.clientX - from[0], now.clientY - from[1]) < 3) return; // a click only chooses
                isMoved = true;
                setBox(picture, item, corner ? pulled(start, corner, dx, dy, picture, item) : [start[0] + dx, start[1] + dy, start[2] + dx, start[3] + dy], moved(item));
                draw(true);
            };
            const end = () => {
                window.removeEventListener("pointermove", follow);
                window.removeEventListener("pointerup", end);
                if (!isMoved) return draw();
                past.push([was]);
                touched(picture);
            };
            window.addEventListener("pointermove", follow);
            window.addEventListener("pointerup", end);
            draw(true);
        }

        function pulled(start, corner, dx, dy, picture, item) {
            const padding = item.mode === "pad";
            if (locked) return frames.resized(start, corner, dx, dy, picture, padding, options.width / options.height);
            const free = frames.resized(start, corner, dx, dy, picture, padding, 0);
            if (!snap) return free;
            const size = frames.nearest(frames.width(free) / frames.height(free), [options.width, options.height], options.bucket_step);
            return frames.resized(start, corner, dx, dy, picture, padding, size[0] / size[1]);
        }

        function mirror(picture, on) {
            const against = picture.judged ? picture.judged.mirrored : [];
            if (on && against.length) {
                toast(`${picture.name} is not mirrored: its caption has ${against.join(", ")}.`, "error");
                return;
            }
            for (const item of picture.items) item.mirrored = on;
            changed(picture);
        }

        // ---- captions ------------------------------------------------------------------------------------------------
        let judging = 0;
        const judgeSoon = () => { clearTimeout(judging); judging = setTimeout(() => look(true), 250); };

        // What the caption says to the frames: tags that can no longer be in them are proposed for removal.
        async function look(again) {
            const picture = current();
            if (!picture || (!again && picture.judged && picture.judged.drop.length === picture.items.length)) return;
            const items = picture.items.map(({mirrored, kept, ...item}) => item);
            let answer;
            try {
                answer = await post("crop/judge", {project: DSM.state.project.path, name: picture.name, items});
            } catch (error) {
                return; // said when the caption is to be carried along
            }
            picture.judged = answer;
            if (again && answer.drop.length === picture.items.length) {
                picture.items.forEach((item, index) => { item.drop = answer.drop[index].filter((tag) => !(item.kept || []).includes(tag)); });
                changed(picture);
            }
            if (answer.mirrored.length && picture.items.some((item) => item.mirrored)) { mirror(picture, false); mirror(picture, true); }
            if (picture === current()) drawFacts(picture);
        }

        function tags(picture, item) {
            const proposed = (picture.judged && picture.judged.drop[frame]) || [];
            const all = [...new Set([...proposed, ...(item.drop || [])])];
            if (!all.length) return null;
            return h("div", {class: "dsm-crop-tags"}, h("span", {class: "dsm-subdued"}, "Not in this crop; removed from its caption:"),
                all.map((tag) => {
                    const input = h("input", {type: "checkbox", onchange: () => {
                        item.kept = input.checked ? (item.kept || []).filter((other) => other !== tag) : [...(item.kept || []), tag];
                        item.drop = input.checked ? [...(item.drop || []), tag] : (item.drop || []).filter((other) => other !== tag);
                        changed(picture);
                    }});
                    input.checked = (item.drop || []).includes(tag);
                    return h("label", {}, input, tag);
                }));
        }

        // ---- drawing -------------------------------------------------------------------------------------------------
        function thumb(index) {
            const picture = pictures[index];
            const many = picture.items.length > 1 ? ` ${picture.items.length}` : "";
            const mark = waiting.has(picture) && open(picture) ? "…" : STATES[picture.state] + (picture.state === "skipped" ? "" : many);
            const item = h("button", {class: "dsm-thumb" + (index === at ? " dsm-current" : ""), tabindex: "-1", title: `${picture.name}: ${picture.state}`, onclick: () => go(index)},
                h("img", {src: thumbnail(picture.path, 192, picture.stamp), alt: picture.name, loading: "lazy", fetchpriority: "low"}),
                h("span", {class: "dsm-badge" + ({confirmed: " dsm-good", skipped: " dsm-bad"}[picture.state] || ""), hidden: !mark}, mark),
                h("span", {class: "dsm-thumb-name"}, picture.name));
            item.dataset.state = picture.state;
            return item;
        }

        // The text on a frame, and whether it is or would be enlarged.
        function label(picture, item) {
            const {wanted} = frames.finished(item, options, snap);
            const small = item.mode !== "keep" && (frames.width(item.box) < wanted[0] || frames.height(item.box) < wanted[1]);
            const how = small ? (options.enlarge ? `  ▲ enlarged ×${Math.max(wanted[0] / frames.width(item.box), wanted[1] / frames.height(item.box)).toFixed(1)}` : "  ▲ small") : "";
            return {text: `${item.part ? item.part + "  " : ""}${item.width}×${item.height}${item.mirrored ? "  ⇋" : ""}${how}`, warn: small};
        }

        const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
        const asked = () => [options.width, options.height];

        function trained(size) {
            const target = frames.trainingSize(size, asked(), options.bucket_step);
            return target ? {target, lost: frames.lostShare(size, target)} : null;
        }

        function drawCounts() {
            for (const [index, button] of [...modes.children].entries()) button.setAttribute("aria-pressed", String(MODES[index][0] === options.mode));
            const inState = (state) => pictures.filter((picture) => picture.state === state);
            const crops = inState("confirmed").reduce((sum, picture) => sum + folded(picture).length, 0);
            const proposed = inState("proposed").length;
            writeButton.textContent = `Write ${plural(crops, "crop")}`;
            writeButton.disabled = !crops;
            acceptButton.textContent = `Accept all ${proposed || ""}`.trim();
            acceptButton.disabled = !proposed && !waiting.size;
            counts.textContent = waiting.size ? `Looking at ${plural(waiting.size, "picture")} …` : `${inState("confirmed").length} of ${pictures.length} confirmed`;
        }

        function draw(steady) {
            if (!steady) drawCounts(); // pulling, moving and zooming change none of them
            const picture = current();
            if (!picture) {
                stage.draw(null);
                facts.replaceChildren(empty("Nothing to crop", "Add pictures on the tab Dataset.", h("button", {class: "dsm-button dsm-small", onclick: () => DSM.openTab("Dataset")}, "Go to Dataset")));
                return;
            }
            let kept = null;
            const fate = showKept ? trained([picture.width, picture.height]) : null;
            if (fate) {
                const factor = Math.max(fate.target[0] / picture.width, fate.target[1] / picture.height);
                const [w, hgt] = [fate.target[0] / factor, fate.target[1] / factor];
                kept = {box: [(picture.width - w) / 2, (picture.height - hgt) / 2, (picture.width + w) / 2, (picture.height + hgt) / 2], text: `uncropped: trained at ${fate.target.join("×")}, ${percent(fate.lost)} cut away`};
            }
            stage.draw(picture, frame, {kept}, steady);
            drawFacts(picture);
        }

        function drawFacts(picture) {
            const told = (fate) => (fate ? `${fate.target.join("×")}, ${fate.lost < 0.0005 ? "all of it" : percent(fate.lost) + " cut"}` : "too small to train");
            const item = picture.items[frame];
            const rows = [["Picture", `${at + 1} of ${pictures.length}`], ["Size", `${picture.width}×${picture.height}`]];
            if (item) {
                const size = [item.width, item.height];
                rows.push(["Frame", `${frames.width(item.box)}×${frames.height(item.box)}`], ["Becomes", size.join("×")]);
                const fixed = options.width === item.width && options.height === item.height;
                rows.push(["Trained at", fixed ? `${size.join("×")}, all of it` : told(trained(size))]);
                if (label(picture, item).warn) rows.push(["", options.enlarge ? "enlarged: it will be soft" : "smaller than asked for; it is not enlarged"]);
            }
            rows.push(["Uncropped", told(trained([picture.width, picture.height]))]);
            const button = (text, key, act, kind) => h("button", {class: `dsm-button ${kind || ""}`, title: key, onclick: act}, text);
            facts.replaceChildren(
                item ? preview(picture, item) : empty("No frame", waiting.has(picture) ? "One is being looked for …" : "Press n for one."),
                h("b", {style: "overflow-wrap: anywhere"}, picture.name),
                Object.assign(button("Confirm  ↵", "Enter", take, "dsm-primary"), {id: "dsm_crop_take", disabled: !item}),
                h("div", {class: "dsm-toolbar"},
                    button("+ Frame", "n", addFrame, "dsm-small"), button("− Frame", "Delete", removeFrame, "dsm-small"),
                    button(picture.items.some((one) => one.mirrored) ? "No mirror" : "Mirror", "m", turnMirror, "dsm-small"),
                    button(picture.state === "skipped" ? "Take in" : "Leave out", "s", skip, "dsm-small")),
                h("dl", {class: "dsm-facts", style: "margin: 0"}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
                ...[item && item.why ? h("span", {class: "dsm-subdued"}, `Proposed: ${item.why}.`) : null, picture.note ? h("span", {class: "dsm-subdued"}, picture.note) : null, item ? tags(picture, item) : null].filter(Boolean),
                h("span", {class: "dsm-subdued"}, "Only what is confirmed is written."));
        }

        function preview(picture, item) {
            const [w, hgt] = [frames.width(item.box), frames.height(item.box)];
            const unit = Math.min(222 / w, 176 / hgt);
            const image = h("img", {src: DSM.cropStage.address(picture), alt: "The finished picture", draggable: false});
            image.style.cssText = `position:absolute;max-width:none;max-height:none;margin:0;border-radius:0;width:${picture.width * unit}px;height:${picture.height * unit}px;left:${-item.box[0] * unit}px;top:${-item.box[1] * unit}px`;
            return h("div", {class: "dsm-crop-preview", style: `width:${w * unit}px;height:${hgt * unit}px;background:${DSM.cropStage.ground(picture, item)}`}, image);
        }

        // ---- acts ----------------------------------------------------------------------------------------------------
        function go(index) {
            if (index < 0 || index >= pictures.length) return;
            const before = at;
            [at, frame] = [index, 0];
            grid.replace(before);
            grid.replace(at);
            grid.reveal(at);
            draw();
            stage.prefetch([1, 2, 3, -1].map((offset) => pictures[at + offset]).filter(Boolean));
            look();
            if (!page.contains(document.activeElement)) page.focus({preventScroll: true});
        }

        function take() {
            const picture = current();
            if (!picture || !picture.items.length) return;
            before(picture);
            picture.state = "confirmed";
            waiting.delete(picture);
            changed(picture, true);
            const next = pictures.findIndex((one, index) => index > at && open(one));
            const first = next >= 0 ? next : pictures.findIndex(open);
            if (first >= 0) return go(first);
            draw();
            toast("That was the last one. Write the crops now.");
        }

        async function acceptAll() {
            while (waiting.size && asking) await asking;
            const found = pictures.filter((picture) => picture.state === "proposed" && picture.items.length);
            if (found.length) before(...found);
            for (const picture of found) { picture.state = "confirmed"; saver.changed(picture); }
            grid.refresh();
            draw();
            if (await flush()) toast(`${plural(found.length, "picture")} confirmed. Key u takes it back.`);
        }

        function skip() {
            const picture = current();
            if (!picture) return;
            before(picture);
            picture.state = picture.state === "skipped" ? "proposed" : "skipped";
            waiting.delete(picture);
            changed(picture, true);
            draw();
        }

        async function turnMirror() {
            const picture = current();
            if (!picture) return;
            if (!picture.judged) await look();
            before(picture);
            mirror(picture, !picture.items.some((item) => item.mirrored));
            draw();
        }

        function addFrame() {
            const picture = current();
            if (!picture) return;
            const parts = new Set(picture.items.map((item) => item.part));
            let count = picture.items.length + 1;
            while (parts.has(String(count))) count += 1;
            const shape = options.width / options.height;
            const wide = Math.min(picture.width, picture.height * shape) * 0.6;
            const item = {source: picture.name, mode: "free", box: [0, 0, 1, 1], color: options.color, part: picture.items.length ? String(count) : "", sha256: "", drop: [], why: "", mirrored: options.flip};
            const [x, y] = [picture.width / 2, picture.height / 2];
            setBox(picture, item, [x - wide / 2, y - wide / shape / 2, x + wide / 2, y + wide / shape / 2], "free");
            before(picture);
            picture.items.push(item);
            frame = picture.items.length - 1;
            touched(picture);
        }

        function removeFrame() {
            const picture = current();
            if (!picture) return;
            if (picture.items.length < 2) return picture.state === "skipped" ? undefined : skip();
            before(picture);
            picture.items.splice(frame, 1);
            if (picture.judged) picture.judged.drop.splice(frame, 1);
            frame = 0;
            touched(picture);
        }

        function single(mode) {
            const picture = current();
            if (!picture) return;
            propose([picture], mode);
            if (picture.state !== "proposed") picture.state = "untouched"; // so that the page shows that one is looked for
            draw();
        }

        async function write() {
            if (!await flush()) return; // said why already
            const answer = await attempt(() => post("crop/write", {project: DSM.state.project.path, options}));
            if (!answer) return;
            const slot = document.querySelector("#dsm_crop_panel [data-dsm=job]");
            slot.dataset.job = answer.job; // its widget follows
            slot.scrollIntoView({block: "nearest"});
        }

        async function takeBack() {
            const sure = await DSM.confirm("Take back", "What was written last is moved aside, and what it had replaced comes back. Nothing is deleted; the history of DATASET_IMGS knows it.", "Take back");
            if (!sure) return;
            const answer = await attempt(() => post("crop/undo", {project: DSM.state.project.path}));
            if (!answer) return;
            toast(`${answer.title}.`);
            DSM.project.refresh();
        }

        const step = (event) => (event.shiftKey ? 1 : 8);
        const actions = {
            Enter: take, A: acceptAll, PageDown: () => go(at + 1), PageUp: () => go(at - 1), Delete: removeFrame, Backspace: removeFrame, n: addFrame, s: skip, m: turnMirror, u: undo,
            f: () => { if (current()) { frame = (frame + 1) % Math.max(1, current().items.length); draw(); } },
            "+": () => grow(1.04), "=": () => grow(1.04), "-": () => grow(1 / 1.04),
            ArrowLeft: (event) => move(-step(event), 0), ArrowRight: (event) => move(step(event), 0),
            ArrowUp: (event) => move(0, -step(event)), ArrowDown: (event) => move(0, step(event)),
            r: () => ratio.click(), g: () => snapping.click(), z: () => stage.pixels(), 0: () => stage.fit(), b: () => { showKept = !showKept; draw(); },
            "?": () => DSM.showKeys("Keys of this page", KEYS), Escape: () => page.focus(),
        };
        MODES.forEach(([mode], index) => { actions[index + 1] = () => single(mode); });
        DSM.keys(page, (event) => {
            const onButton = event.key === "Enter" && event.target.matches("button");
            if (event.ctrlKey || event.metaKey || event.altKey || onButton || !actions[event.key]) return false;
            actions[event.key](event);
        });
        // The frames fill the window below the options.
        const fill = () => page.style.setProperty("--dsm-crop-top", `${Math.round(strip.parentElement.getBoundingClientRect().top + window.scrollY + 14)}px`);
        new ResizeObserver(() => page.isConnected && page.clientWidth && fill()).observe(page.children[1]);
        new ResizeObserver(() => page.isConnected && stage.element.clientWidth && draw()).observe(stage.element);

        // ---- beginning -----------------------------------------------------------------------------------------------
        function begin() {
            waiting.clear();
            return load();
        }
        place.append(DSM.tour.noProject());
        DSM.on("project", () => { [pictures, at, frame] = [[], 0, 0]; begin(); });
        DSM.on("changed", begin);
        begin();
    };
})();
