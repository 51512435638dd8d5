// The large picture with its frames: it fits, zooms to the pointer, and is moved by dragging its ground.
"use strict";

(function () {
    const {h} = DSM;
    const SIDE = 1400; // of the picture as it is first shown; a JPEG of 24 megapixels is decoded at half its size for it
    const SHARPER = 1.25; // screen pixels for one of what is shown, from which on the file itself is
    const [MARGIN, MOST] = [18, 40];
    const SHOWN_BY_BROWSERS = /\.(jpe?g|png|webp|gif|bmp)$/i;

    const PATIENCE = 1500; // milliseconds that other pictures wait for the one that is looked at
    const LATE = 200; // milliseconds after which the browser tries to read the file itself, whichever is first

    const address = (picture) => DSM.thumbnail(picture.path, SIDE, picture.stamp);
    const small = (picture) => DSM.thumbnail(picture.path, 192, picture.stamp); // as the strip shows it
    const readable = (picture) => SHOWN_BY_BROWSERS.test(picture.name);

    // What lies around the picture in a frame, as a CSS background: what will be written, once the frame rests.
    function ground(picture, item, moving) {
        const [left, top, right, bottom] = item.box;
        const plain = {auto: "#fff", transparent: "transparent", blur: "color-mix(in srgb, var(--dsm-text) 25%, transparent)"}[item.color] || item.color;
        if (moving || !["auto", "blur"].includes(item.color) || (left >= 0 && top >= 0 && right <= picture.width && bottom <= picture.height)) return plain;
        return `url("${DSM.address("crop/preview", {path: picture.path, box: item.box.join(","), color: item.color, v: picture.stamp})}") 0 0 / 100% 100%, ${plain}`;
    }

    // `acts` are {drag(event, index, corner), redraw(), focus(), facts(picture, item) → {text, warn}}.
    DSM.cropStage = (acts) => {
        const stage = h("div", {class: "dsm-stage", id: "dsm_crop_stage"});
        const shown = new Map(); // pictures fetched ahead
        let [zoom, pan, view, scale] = [1, [0, 0], null, 1];
        let current = null;

        const stageSize = () => [Math.max(1, stage.clientWidth - 2 * MARGIN), Math.max(1, stage.clientHeight - 2 * MARGIN)];

        function draw(picture, frame, options, steady) {
            if (!picture) { current = null; return stage.replaceChildren(); }
            if (!current || current.path !== picture.path) { [zoom, pan, view] = [1, [0, 0], null]; }
            current = picture;
            if (!steady || !view) {
                const boxes = [[0, 0, picture.width, picture.height], ...picture.items.map((item) => item.box)];
                const bound = (side, pick) => pick(...boxes.map((box) => box[side]));
                view = [bound(0, Math.min), bound(1, Math.min), bound(2, Math.max), bound(3, Math.max)];
            }
            const [wide, high] = stageSize();
            const fit = Math.max(0.001, Math.min(wide / (view[2] - view[0]), high / (view[3] - view[1])));
            scale = fit * zoom;
            const origin = [0, 1].map((axis) => MARGIN + ((axis ? high : wide) - (view[axis + 2] - view[axis]) * scale) / 2 - view[axis] * scale + pan[axis]);
            const put = (box) => `left:${origin[0] + box[0] * scale}px;top:${origin[1] + box[1] * scale}px;width:${(box[2] - box[0]) * scale}px;height:${(box[3] - box[1]) * scale}px;`;
            const whole = put([0, 0, picture.width, picture.height]);
            const image = picked(picture);
            image.style.cssText = whole + (image.complete ? "" : `background:url("${small(picture)}") 0 0 / 100% 100%`);
            const paper = picture.items.map((item) => h("div", {class: "dsm-paper", style: put(item.box) + `background:${ground(picture, item, steady)}`}));
            // Darkens what of the picture is left out, and only of the picture.
            const item = picture.items[frame];
            const shade = h("div", {class: "dsm-shade", style: whole}, item
                ? h("div", {style: `position:absolute;left:${item.box[0] * scale}px;top:${item.box[1] * scale}px;width:${(item.box[2] - item.box[0]) * scale}px;height:${(item.box[3] - item.box[1]) * scale}px`}) : null);
            const kept = options.kept ? h("div", {class: "dsm-kept", style: put(options.kept.box), title: options.kept.text}, h("span", {}, options.kept.text)) : null;
            const frames = picture.items.map((each, index) => {
                const facts = acts.facts(picture, each);
                return h("div", {
                    class: "dsm-frame" + (index === frame ? " dsm-current" : "") + (facts.warn ? " dsm-enlarged" : ""), style: put(each.box),
                    onpointerdown: (event) => event.button === 0 && !event.altKey && acts.drag(event, index, ""),
                },
                h("span", {class: "dsm-frame-label"}, facts.text),
                index === frame ? ["nw", "n", "ne", "e", "se", "s", "sw", "w"].map((corner) => {
                    const handle = h("div", {class: "dsm-handle", onpointerdown: (event) => event.button === 0 && acts.drag(event, index, corner)});
                    handle.dataset.corner = corner;
                    return handle;
                }) : null);
            });
            // The chosen frame lies on top, so that its handles can be reached.
            if (frames[frame]) frames.push(...frames.splice(frame, 1));
            stage.replaceChildren(...paper, image, shade, ...(kept ? [kept] : []), ...frames,
                h("span", {class: "dsm-zoom"}, `${Math.round(scale * 100)} %`));
        }

        // The picture's element stays, so that nothing flickers; the file itself takes its place when one looks closely.
        function picked(picture) {
            const wanted = address(picture);
            let image = stage.querySelector("img");
            if (!image || image.dataset.address !== wanted) {
                image = shown.get(wanted) || h("img", {fetchpriority: "high", src: wanted, draggable: false});
                image.alt = picture.name;
                image.draggable = false;
                image.dataset.address = wanted;
                if (image.dataset.sharp) { image.src = wanted; delete image.dataset.sharp; }
                image.addEventListener("load", () => { image.classList.add("dsm-there"); image.style.backgroundImage = ""; }, {once: true});
                setTimeout(() => hurry(image, picture), LATE);
            }
            const have = Math.min(1, SIDE / Math.max(picture.width, picture.height));
            if (!image.dataset.sharp && have < 1 && scale * window.devicePixelRatio > SHARPER * have) {
                image.dataset.sharp = "1";
                const sharp = readable(picture) ? DSM.fileAddress(picture.path, picture.stamp) : DSM.thumbnail(picture.path, 2048, picture.stamp);
                const loader = new Image();
                loader.src = sharp;
                loader.decode().then(() => { if (image.isConnected && current === picture) image.src = sharp; }, () => {});
            }
            return image;
        }

        // A picture that takes the server long, such as a large PNG, may be faster read by the browser.
        function hurry(image, picture) {
            if (image.complete || current !== picture || !image.isConnected || !readable(picture)) return;
            const file = new Image();
            file.src = DSM.fileAddress(picture.path, picture.stamp);
            file.decode().then(() => { if (!image.complete && image.isConnected && current === picture) { image.dataset.sharp = "1"; image.src = file.src; } }, () => {});
        }

        // Until the picture is there, or for as long as others can be kept waiting.
        const ready = () => new Promise((resolve) => {
            const image = stage.querySelector("img");
            if (!image || image.complete) return resolve();
            image.addEventListener("load", resolve, {once: true});
            setTimeout(resolve, PATIENCE);
        });

        // What lies next is fetched and decoded before it is asked for.
        function prefetch(pictures) {
            const wanted = new Set(pictures.map(address));
            for (const key of shown.keys()) if (!wanted.has(key)) shown.delete(key);
            for (const key of wanted) {
                if (shown.has(key)) continue;
                const image = new Image();
                image.src = key;
                image.decode().catch(() => {});
                shown.set(key, image);
            }
        }

        function zoomTo(next, at) {
            const [wide, high] = stageSize();
            const middle = at || [MARGIN + wide / 2, MARGIN + high / 2];
            next = Math.min(MOST, Math.max(1, next));
            const factor = next / zoom;
            const half = [MARGIN + wide / 2, MARGIN + high / 2];
            pan = pan.map((value, axis) => (middle[axis] - half[axis]) * (1 - factor) + value * factor);
            zoom = next;
            if (zoom === 1) pan = [0, 0];
            acts.redraw();
        }

        stage.addEventListener("wheel", (event) => {
            event.preventDefault();
            const edge = stage.getBoundingClientRect();
            zoomTo(zoom * Math.exp(-event.deltaY / 400), [event.clientX - edge.left, event.clientY - edge.top]);
        }, {passive: false});
        stage.addEventListener("pointerdown", (event) => {
            if (event.button > 1) return;
            event.preventDefault();
            acts.focus();
            const [start, before] = [[event.clientX, event.clientY], [...pan]];
            const follow = (now) => {
                pan = [before[0] + now.clientX - start[0], before[1] + now.clientY - start[1]];
                acts.redraw();
            };
            const end = () => { window.removeEventListener("pointermove", follow); window.removeEventListener("pointerup", end); };
            window.addEventListener("pointermove", follow);
            window.addEventListener("pointerup", end);
        });
        stage.addEventListener("dblclick", () => zoomTo(1));

        return {
            element: stage, draw, prefetch,
            get scale() { return scale; },
            ready,
            fit: () => zoomTo(1),
            pixels: () => zoomTo(zoom / scale / window.devicePixelRatio),
        };
    };
    Object.assign(DSM.cropStage, {address, ground});
})();
