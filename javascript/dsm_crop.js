// Cropping: a strip of pictures, the frames over the large one, and what comes out beside it.
"use strict";

(function () {
    const {h, post, attempt, empty, thumbnail, plural, toast} = DSM;
    const MODES = [
        ["center", "Centre", "cut the middle out"], ["pad", "Pad", "keep the whole picture, add colour at the sides"],
        ["split", "Split", "long pictures become two"], ["keep", "As they are", "copy without cropping"],
    ];
    const KEYS = [
        ["Enter", "take the frames of this picture and go on"],
        ["← ↑ → ↓", "move the frame by 8 pixels; with Shift by 1"],
        ["+ −", "make the frame larger or smaller"],
        ["PgUp PgDn", "the picture before, the picture after"],
        ["1 2 3 4", "this picture: centre, pad, split, as it is"],
        ["n", "one more frame on this picture"],
        ["f", "the next frame of this picture"],
        ["Delete", "take the frame away"],
        ["s", "leave the picture out, or take it in again"],
        ["?", "this list"],
    ];
    const SMALLEST = 16; // pixels of a frame's side

    DSM.widgets.crop = (place) => {
        let pictures = [];
        let problems = [];
        let [at, frame] = [0, 0];
        let scale = 1; // pixels of the screen for one of the picture
        const options = {mode: "center", width: 512, height: 512, shrink: true, enlarge: false, color: "auto", format: "png"};
        let locked = true;

        // ---- elements ----------------------------------------------------------------------------------------------
        const modes = h("span", {class: "dsm-segments", role: "group", "aria-label": "For all pictures"}, MODES.map(([mode, label, title]) =>
            h("button", {id: `dsm_crop_mode_${mode}`, title: `All pictures not taken yet: ${title}`, onclick: () => { options.mode = mode; propose(); }}, label)));
        const number = (key) => h("input", {class: "dsm-field", id: `dsm_crop_${key}`, type: "number", min: "64", max: "8192", step: "64", value: String(options[key]), "aria-label": `Finished ${key}`, onchange: reshape});
        const [width, height] = [number("width"), number("height")];
        const ratio = h("input", {type: "checkbox", id: "dsm_crop_ratio", onchange: () => { locked = ratio.checked; draw(); }});
        ratio.checked = true;
        const auto = h("select", {class: "dsm-field", id: "dsm_crop_color_kind", "aria-label": "Padding", onchange: recolor},
            h("option", {value: "auto"}, "edge colour"), h("option", {value: "pick"}, "colour"));
        const color = h("input", {class: "dsm-field", id: "dsm_crop_color", type: "color", value: "#ffffff", "aria-label": "Padding colour", onchange: recolor, hidden: true});
        const writeButton = h("button", {class: "dsm-button dsm-primary", id: "dsm_crop_write", onclick: write});
        const help = h("button", {class: "dsm-button", id: "dsm_crop_keys", title: "Keys", "aria-label": "Keys", onclick: () => DSM.showKeys("Keys of this page", KEYS)}, "?");
        const strip = h("div", {class: "dsm-strip", id: "dsm_crop_strip"});
        const stage = h("div", {class: "dsm-stage", id: "dsm_crop_stage"});
        const facts = h("div", {class: "dsm-side", id: "dsm_crop_side"});
        const notes = h("div", {});
        const page = h("div", {class: "dsm-page dsm-page-crop", tabindex: "-1"},
            h("div", {class: "dsm-toolbar"}, modes, h("label", {}, "Size", width, "×", height), h("label", {}, ratio, "keep the shape"),
                h("label", {}, "Padding", auto, color), h("span", {class: "dsm-spring"}), writeButton, help),
            notes, h("div", {class: "dsm-crop"}, strip, stage, facts));

        const current = () => pictures[at];
        const stored = () => `dsm.crop:${DSM.state.project.path}`;

        // ---- proposals -----------------------------------------------------------------------------------------------
        let serial = 0;
        let settled = Promise.resolve(); // what is decided waits for the newest proposal

        function propose(names) {
            settled = ask(names);
            return settled;
        }

        async function ask(names) {
            if (!DSM.state.project) return;
            const mine = names ? serial : ++serial;
            const answer = await attempt(() => post("crop/propose", {project: DSM.state.project.path, options: {...options}, names: names || []}));
            if (!answer || mine !== serial) return; // a later proposal is on its way
            const earlier = new Map(pictures.map((picture) => [picture.path + picture.stamp, picture]));
            if (names) {
                for (const picture of answer.pictures) {
                    const old = earlier.get(picture.path + picture.stamp);
                    if (old) Object.assign(old, {items: picture.items, state: ""});
                }
            } else {
                const saved = load();
                pictures = answer.pictures.map((picture) => {
                    const kept = earlier.get(picture.path + picture.stamp) || saved[picture.path + picture.stamp];
                    return {...picture, state: "", ...(kept && kept.state ? {items: kept.items, state: kept.state} : {})};
                });
                problems = answer.problems;
                at = Math.min(at, Math.max(0, pictures.length - 1));
            }
            frame = 0;
            save();
            if (!page.isConnected) place.replaceChildren(page);
            drawStrip();
            draw();
        }

        function load() {
            try {
                return JSON.parse(localStorage.getItem(stored())) || {};
            } catch (error) {
                return {};
            }
        }

        // What was decided survives a reload.
        function save() {
            const decided = pictures.filter((picture) => picture.state);
            localStorage.setItem(stored(), JSON.stringify(Object.fromEntries(
                decided.map((picture) => [picture.path + picture.stamp, {items: picture.items, state: picture.state}]))));
        }

        function reshape() {
            const read = (field, old) => Math.max(16, Math.min(8192, Math.round(Number(field.value)))) || old;
            [options.width, options.height] = [read(width, options.width), read(height, options.height)];
            [width.value, height.value] = [options.width, options.height];
            // Frames that were taken keep their middle and get the new shape.
            for (const picture of pictures.filter((item) => item.state === "done")) {
                for (const item of picture.items) if (item.mode !== "keep") setBox(picture, item, fitted(item.box, picture), "free");
            }
            propose();
        }

        function recolor() {
            color.hidden = auto.value === "auto";
            options.color = auto.value === "auto" ? "auto" : color.value;
            for (const picture of pictures) for (const item of picture.items) item.color = options.color;
            save();
            draw();
        }

        // ---- boxes -----------------------------------------------------------------------------------------------------
        const shape = () => options.width / options.height;

        function fitted(box, picture) {
            const [left, top, right, bottom] = box;
            const area = Math.sqrt((right - left) * (bottom - top) * shape());
            const wide = Math.min(area, picture.width, picture.height * shape());
            const [x, y] = [(left + right) / 2, (top + bottom) / 2];
            return [x - wide / 2, y - wide / shape() / 2, x + wide / 2, y + wide / shape() / 2];
        }

        // Whole pixels; inside the picture where it fits, else around it.
        function setBox(picture, item, box, mode) {
            let [w, hgt] = [Math.max(SMALLEST, Math.round(box[2] - box[0])), Math.max(SMALLEST, Math.round(box[3] - box[1]))];
            const within = (start, length, limit) => length <= limit ? Math.max(0, Math.min(limit - length, start)) : Math.max(limit - length, Math.min(0, start));
            const [left, top] = [within(Math.round(box[0]), w, picture.width), within(Math.round(box[1]), hgt, picture.height)];
            item.box = [left, top, left + w, top + hgt];
            if (mode) item.mode = mode;
            Object.assign(item, finished(item));
        }

        // The finished size: the one asked for, and never more pixels than the frame has.
        function finished(item) {
            const [w, hgt] = [item.box[2] - item.box[0], item.box[3] - item.box[1]];
            if (item.mode === "keep") return {width: w, height: hgt};
            if (Math.abs(w / hgt / shape() - 1) < 0.02) {
                return w >= options.width && hgt >= options.height ? {width: options.width, height: options.height} : {width: w, height: hgt};
            }
            const factor = Math.min(1, Math.sqrt((options.width * options.height) / (w * hgt)));
            return {width: Math.max(1, Math.round(w * factor)), height: Math.max(1, Math.round(hgt * factor))};
        }

        function move(dx, dy) {
            const [picture, item] = [current(), current() && current().items[frame]];
            if (!item) return;
            const [left, top, right, bottom] = item.box;
            setBox(picture, item, [left + dx, top + dy, right + dx, bottom + dy], item.mode === "pad" ? "pad" : "free");
            touched(picture);
        }

        function grow(factor) {
            const [picture, item] = [current(), current() && current().items[frame]];
            if (!item) return;
            const [left, top, right, bottom] = item.box;
            const largest = item.mode === "pad" ? 8 : Math.min(picture.width / (right - left), picture.height / (bottom - top));
            const [w, hgt] = [(right - left) * Math.min(factor, largest), (bottom - top) * Math.min(factor, largest)];
            const [x, y] = [(left + right) / 2, (top + bottom) / 2];
            setBox(picture, item, [x - w / 2, y - hgt / 2, x + w / 2, y + hgt / 2], item.mode === "pad" ? "pad" : "free");
            touched(picture);
        }

        function touched(picture) {
            save();
            draw();
            const item = strip.children[pictures.indexOf(picture)];
            if (item) badge(item, picture);
        }

        // ---- dragging ----------------------------------------------------------------------------------------------------
        function drag(event, index, corner) {
            event.preventDefault();
            event.stopPropagation();
            page.focus({preventScroll: true});
            frame = index;
            const [picture, item] = [current(), current().items[index]];
            const [box, start, unit] = [[...item.box], [event.clientX, event.clientY], scale];
            const follow = (now) => {
                const [dx, dy] = [(now.clientX - start[0]) / unit, (now.clientY - start[1]) / unit];
                const next = corner ? resized(box, corner, dx, dy, picture, item) : [box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy];
                setBox(picture, item, next, item.mode === "pad" ? "pad" : "free");
                draw(true);
            };
            const end = () => {
                window.removeEventListener("pointermove", follow);
                window.removeEventListener("pointerup", end);
                touched(picture);
            };
            window.addEventListener("pointermove", follow);
            window.addEventListener("pointerup", end);
            draw(true);
        }

        function resized(box, corner, dx, dy, picture, item) {
            const [west, north] = [corner.includes("w"), corner.includes("n")];
            const [fixedX, fixedY] = [west ? box[2] : box[0], north ? box[3] : box[1]];
            const padding = item.mode === "pad";
            const roomX = padding ? 8 * picture.width : west ? fixedX : picture.width - fixedX;
            const roomY = padding ? 8 * picture.height : north ? fixedY : picture.height - fixedY;
            let w = Math.max(SMALLEST, box[2] - box[0] + (west ? -dx : dx));
            let hgt = Math.max(SMALLEST, box[3] - box[1] + (north ? -dy : dy));
            if (locked) {
                const wanted = Math.max(w, hgt * shape());
                w = Math.min(wanted, roomX, roomY * shape());
                hgt = w / shape();
            } else {
                [w, hgt] = [Math.min(w, roomX), Math.min(hgt, roomY)];
            }
            return [west ? fixedX - w : fixedX, north ? fixedY - hgt : fixedY, west ? fixedX : fixedX + w, north ? fixedY : fixedY + hgt];
        }

        // ---- drawing -------------------------------------------------------------------------------------------------------
        function drawStrip() {
            strip.replaceChildren(...pictures.map((picture, index) => {
                const item = h("button", {class: "dsm-thumb", tabindex: "-1", title: picture.name, onclick: () => go(index)},
                    h("img", {src: thumbnail(picture.path, 192, picture.stamp), alt: picture.name, loading: "lazy"}),
                    h("span", {class: "dsm-badge"}), h("span", {class: "dsm-thumb-name"}, picture.name));
                badge(item, picture);
                return item;
            }));
            notes.replaceChildren(...problems.slice(0, 4).map((problem) => DSM.line("warn", problem)));
            if (!pictures.length) strip.append(empty("No pictures", "Add some on the tab Dataset."));
        }

        function badge(item, picture) {
            const mark = item.querySelector(".dsm-badge");
            mark.textContent = {done: "✓", skip: "left out"}[picture.state] || (picture.items.length > 1 ? picture.items.length : "");
            mark.className = "dsm-badge" + ({done: " dsm-good", skip: " dsm-bad"}[picture.state] || "");
            mark.hidden = !mark.textContent;
            item.style.opacity = picture.state === "skip" ? 0.45 : 1;
        }

        let view = null; // what of the plane the stage shows; steady while dragging
        function draw(steady) {
            for (const [index, button] of [...modes.children].entries()) button.setAttribute("aria-pressed", String(MODES[index][0] === options.mode));
            const chosen = pictures.filter((picture) => picture.state !== "skip").reduce((sum, picture) => sum + picture.items.length, 0);
            writeButton.textContent = `Write ${plural(chosen, "crop")}`;
            writeButton.disabled = !chosen;
            [...strip.children].forEach((item, index) => item.classList.toggle("dsm-current", index === at));
            const picture = current();
            if (!picture) {
                stage.replaceChildren();
                facts.replaceChildren(empty("Nothing to crop", "Add pictures on the tab Dataset."));
                return;
            }
            if (!steady || !view) {
                const boxes = [[0, 0, picture.width, picture.height], ...picture.items.map((item) => item.box)];
                const bound = (side, pick) => pick(...boxes.map((box) => box[side]));
                view = [bound(0, Math.min), bound(1, Math.min), bound(2, Math.max), bound(3, Math.max)];
            }
            const margin = 18;
            const [wide, high] = [stage.clientWidth - 2 * margin, stage.clientHeight - 2 * margin];
            scale = Math.max(0.001, Math.min(wide / (view[2] - view[0]), high / (view[3] - view[1])));
            const origin = [margin + (wide - (view[2] - view[0]) * scale) / 2 - view[0] * scale, margin + (high - (view[3] - view[1]) * scale) / 2 - view[1] * scale];
            const put = (box) => `left:${origin[0] + box[0] * scale}px;top:${origin[1] + box[1] * scale}px;width:${(box[2] - box[0]) * scale}px;height:${(box[3] - box[1]) * scale}px;`;
            const address = thumbnail(picture.path, 1600, picture.stamp);
            let image = stage.querySelector("img");
            if (!image || image.dataset.address !== address) {
                image = h("img", {src: address, alt: picture.name, draggable: false});
                image.dataset.address = address;
            }
            image.style.cssText = put([0, 0, picture.width, picture.height]);
            const paper = picture.items.map((item) => h("div", {style: put(item.box) + `position:absolute;background:${item.color === "auto" ? "#fff" : item.color}`}));
            // Darkens what of the picture is left out, and only of the picture.
            const shade = h("div", {class: "dsm-shade", style: put([0, 0, picture.width, picture.height])}, picture.items.length === 1
                ? h("div", {style: `position:absolute;left:${picture.items[0].box[0] * scale}px;top:${picture.items[0].box[1] * scale}px;` +
                    `width:${(picture.items[0].box[2] - picture.items[0].box[0]) * scale}px;height:${(picture.items[0].box[3] - picture.items[0].box[1]) * scale}px`}) : null);
            const frames = picture.items.map((item, index) => h("div", {
                class: "dsm-frame" + (index === frame ? " dsm-current" : ""), style: put(item.box), onpointerdown: (event) => drag(event, index, ""),
            },
            h("span", {class: "dsm-frame-label"}, `${item.part ? item.part + "  " : ""}${item.width}×${item.height}`),
            index === frame ? ["nw", "ne", "sw", "se"].map((corner) => {
                const handle = h("div", {class: "dsm-handle", onpointerdown: (event) => drag(event, index, corner)});
                handle.dataset.corner = corner;
                return handle;
            }) : null));
            // The picture itself stays where it is, so that it does not flicker.
            stage.replaceChildren(...paper, image, shade, ...frames);
            drawFacts(picture);
        }

        function drawFacts(picture) {
            const item = picture.items[frame];
            const rows = [["Picture", `${at + 1} of ${pictures.length}`], ["Size", `${picture.width}×${picture.height}`]];
            if (item) {
                rows.push(["Frame", `${item.box[2] - item.box[0]}×${item.box[3] - item.box[1]}`], ["Becomes", `${item.width}×${item.height}`]);
                const small = item.width < options.width && item.height < options.height && item.mode !== "keep";
                if (small) rows.push(["", "smaller than asked for; it is not enlarged"]);
            }
            const button = (label, key, act, kind) => h("button", {class: `dsm-button ${kind || ""}`, title: key, onclick: act}, label);
            const taken = pictures.filter((other) => other.state === "done").length;
            facts.replaceChildren(
                item ? preview(picture, item) : empty("No frame", "Press n for one."),
                h("b", {style: "overflow-wrap: anywhere"}, picture.name),
                h("dl", {class: "dsm-facts", style: "margin: 0"}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
                Object.assign(button("Take it  ↵", "Enter", take, "dsm-primary"), {id: "dsm_crop_take"}),
                h("div", {class: "dsm-toolbar"},
                    button("+ Frame", "n", addFrame, "dsm-small"), button("− Frame", "Delete", removeFrame, "dsm-small"),
                    button(picture.state === "skip" ? "Take in" : "Leave out", "s", skip, "dsm-small")),
                h("span", {class: "dsm-subdued"}, `${taken} of ${pictures.length} taken. What is not taken is written as proposed.`));
        }

        function preview(picture, item) {
            const [w, hgt] = [item.box[2] - item.box[0], item.box[3] - item.box[1]];
            const unit = Math.min(222 / w, 240 / hgt);
            const image = h("img", {src: thumbnail(picture.path, 1600, picture.stamp), alt: "The finished picture", draggable: false});
            image.style.cssText = `position:absolute;max-width:none;max-height:none;margin:0;border-radius:0;width:${picture.width * unit}px;height:${picture.height * unit}px;left:${-item.box[0] * unit}px;top:${-item.box[1] * unit}px`;
            return h("div", {style: `position:relative;overflow:hidden;flex:0 0 auto;margin:0 auto;border-radius:6px;width:${w * unit}px;height:${hgt * unit}px;background:${item.color === "auto" ? "#fff" : item.color}`}, image);
        }

        // ---- acts --------------------------------------------------------------------------------------------------------------
        function go(index) {
            if (index < 0 || index >= pictures.length) return;
            [at, frame] = [index, 0];
            draw();
            strip.children[at].scrollIntoView({block: "nearest"});
            if (!page.contains(document.activeElement)) page.focus({preventScroll: true});
        }

        async function take() {
            await settled;
            if (!current()) return;
            current().state = "done";
            touched(current());
            const next = pictures.findIndex((picture, index) => index > at && !picture.state);
            if (next >= 0) go(next);
            else if (pictures.every((picture) => picture.state)) toast("That was the last one. Write the crops now.");
            else go(pictures.findIndex((picture) => !picture.state));
        }

        function skip() {
            if (!current()) return;
            current().state = current().state === "skip" ? "" : "skip";
            touched(current());
        }

        function addFrame() {
            const picture = current();
            if (!picture) return;
            const parts = new Set(picture.items.map((item) => item.part));
            let count = picture.items.length + 1;
            while (parts.has(String(count))) count += 1;
            const wide = Math.min(picture.width, picture.height * shape()) * 0.6;
            const item = {source: picture.name, mode: "free", box: [0, 0, 1, 1], color: options.color, part: picture.items.length ? String(count) : "", sha256: ""};
            const [x, y] = [picture.width / 2, picture.height / 2];
            setBox(picture, item, [x - wide / 2, y - wide / shape() / 2, x + wide / 2, y + wide / shape() / 2], "free");
            picture.items.push(item);
            frame = picture.items.length - 1;
            touched(picture);
        }

        function removeFrame() {
            const picture = current();
            if (!picture || picture.items.length < 2) return picture && skip();
            picture.items.splice(frame, 1);
            frame = 0;
            touched(picture);
        }

        function single(mode) {
            const before = options.mode;
            options.mode = mode;
            const picture = current();
            if (picture) propose([picture.name]); // it takes the options as they are now
            options.mode = before;
        }

        async function write() {
            await settled;
            const items = pictures.filter((picture) => picture.state !== "skip").flatMap((picture) => picture.items);
            const answer = await attempt(() => post("crop/write", {project: DSM.state.project.path, plan: {items}, options}));
            if (!answer) return;
            const slot = document.querySelector("#dsm_crop_panel [data-dsm=job]");
            slot.dataset.job = answer.job; // its widget follows
            slot.scrollIntoView({block: "nearest"});
        }

        const step = (event) => (event.shiftKey ? 1 : 8);
        const actions = {
            Enter: take, PageDown: () => go(at + 1), PageUp: () => go(at - 1), Delete: removeFrame, Backspace: removeFrame, n: addFrame, s: skip,
            f: () => { if (current()) { frame = (frame + 1) % Math.max(1, current().items.length); draw(); } },
            "+": () => grow(1.04), "=": () => grow(1.04), "-": () => grow(1 / 1.04),
            ArrowLeft: (event) => move(-step(event), 0), ArrowRight: (event) => move(step(event), 0),
            ArrowUp: (event) => move(0, -step(event)), ArrowDown: (event) => move(0, step(event)),
            1: () => single("center"), 2: () => single("pad"), 3: () => single("split"), 4: () => single("keep"),
            "?": () => DSM.showKeys("Keys of this page", KEYS), Escape: () => page.focus(),
        };
        DSM.keys(page, (event) => {
            const onButton = event.key === "Enter" && event.target.matches("button");
            if (event.ctrlKey || event.metaKey || event.altKey || onButton || !actions[event.key]) return false;
            actions[event.key](event);
        });
        new ResizeObserver(() => page.isConnected && stage.clientWidth && draw()).observe(stage);

        // ---- beginning ---------------------------------------------------------------------------------------------------------
        const begin = () => { [pictures, at, frame] = [[], 0, 0]; propose(); };
        place.append(empty("No project is open", "Open one at the top of the page."));
        DSM.on("project", begin);
        DSM.on("changed", () => propose());
        begin();
    };
})();
