// The charts of an extraction, in SVG: size against error, the error of each layer, singular values.
"use strict";

(function () {
    const {h, svg} = DSM;
    const lora = (DSM.lora = DSM.lora || {});

    const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
    const megabytes = (bytes) => `${bytes / 1e6 < 10 ? (bytes / 1e6).toFixed(2) : bytes / 1e6 < 100 ? (bytes / 1e6).toFixed(1) : Math.round(bytes / 1e6)} MB`;
    Object.assign(lora, {percent, megabytes});

    // ---- names -------------------------------------------------------------------------------------------------------

    const GROUPS = [["te", "text encoder", "dsm-t3"], ["down", "way down", "dsm-t0"], ["mid", "middle", "dsm-t4"], ["up", "way up", "dsm-t1"], ["rest", "ends, time", "dsm-t2"]];

    function groupOf(name) {
        if (/^lora_te|^model_|^1_model_/.test(name)) return "te";
        if (/^lora_unet_(down_blocks|input_blocks)/.test(name)) return "down";
        if (/^lora_unet_mid/.test(name)) return "mid";
        if (/^lora_unet_(up_blocks|output_blocks)/.test(name)) return "up";
        return "rest";
    }

    // lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn2_to_k → down 0.1 attn2 to_k
    function shortName(name) {
        return name.replace(/^lora_unet_/, "").replace(/^lora_te(\d?)_text_model_/, (_, number) => `text${number} `)
            .replace(/^(down|up)_blocks_(\d+)_(attentions|resnets)_(\d+)_/, (_, way, block, kind, place) => `${way} ${block}.${place} ${kind === "resnets" ? "resnet " : ""}`)
            .replace(/^(down|up)_blocks_(\d+)_/, "$1 $2 ").replace(/^mid_block_(attentions|resnets)_(\d+)_/, (_, kind, place) => `mid ${kind === "resnets" ? `resnet ${place} ` : ""}`)
            .replace(/transformer_blocks_\d+_/, "").replace(/encoder_layers_(\d+)_/, "$1 ").replace(/samplers_0_/, "sampler ").replace("to_out_0", "to_out");
    }
    lora.shortName = shortName;

    // ---- drawing -----------------------------------------------------------------------------------------------------

    // A figure whose drawing is made anew for its width; `draw(width)` gives the parts.
    function figure(title, height, draw, legend) {
        const drawing = svg("svg", {class: "dsm-chart", role: "img", "aria-label": title, height});
        const reading = h("span", {class: "dsm-chart-reading"});
        const box = h("div", {class: "dsm-chart-box", style: `height: ${height}px`}, drawing);
        const element = h("figure", {class: "dsm-figure"}, h("figcaption", {class: "dsm-figure-head"}, h("b", {}, title), reading, legend || null), box);
        let drawn = 0;
        const again = () => {
            const width = box.clientWidth;
            if (!width || width === drawn) return;
            drawn = width;
            drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
            drawing.replaceChildren(...draw(width, height, (text) => { reading.textContent = text; }));
        };
        new ResizeObserver(again).observe(box);
        return element;
    }

    function text(x, y, content, attributes) {
        const element = svg("text", {x, y, class: "dsm-axis", ...attributes});
        element.textContent = content;
        return element;
    }

    const line = (x1, y1, x2, y2, kind) => svg("line", {x1, y1, x2, y2, class: kind});
    const path = (points, kind) => svg("path", {d: `M${points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L")}`, class: kind});

    function titled(element, said) {
        const title = svg("title", {});
        title.textContent = said;
        element.append(title);
        return element;
    }

    // Round shares from 0 up to `most`.
    function shares(most) {
        const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25].find((size) => most / size <= 5) || 0.25;
        return Array.from({length: Math.floor(most / step + 1e-9) + 1}, (_, index) => index * step);
    }

    // ---- size against error ------------------------------------------------------------------------------------------

    // `use(outlook)` is called when a point is chosen.
    lora.sizes = (outlooks, chosen, use) => figure("Size against error", 210, (width, height, read) => {
        const [left, right, top, bottom] = [48, 30, 14, 30];
        const all = [...outlooks, chosen];
        const most = Math.max(...all.map((item) => item.error), 0.02) * 1.08;
        const [low, high] = [Math.min(...all.map((item) => item.bytes)) / 1.15, Math.max(...all.map((item) => item.bytes)) * 1.15];
        const x = (bytes) => left + (width - left - right) * Math.log(bytes / low) / Math.log(high / low);
        const y = (error) => height - bottom - (height - top - bottom) * error / most;
        const parts = shares(most).flatMap((value) => [line(left, y(value), width - right, y(value), "dsm-grid"),
            text(left - 8, y(value) + 4, percent(value).replace(".0", ""), {"text-anchor": "end"})]);
        const points = outlooks.map((item) => [x(item.bytes), y(item.error)]);
        parts.push(path(points, "dsm-curve"));
        let last = -Infinity;
        for (const item of outlooks) {
            const place = x(item.bytes);
            if (place - last > 62) {
                parts.push(text(place, height - 10, megabytes(item.bytes), {"text-anchor": "middle"}));
                last = place;
            }
            parts.push(text(place + 8, y(item.error) - 7, `${item.rank}`, {class: "dsm-axis dsm-strong"}));
            const said = `${item.label}: ${megabytes(item.bytes)}, error ${percent(item.error)}`;
            const dot = titled(svg("circle", {cx: place, cy: y(item.error), r: 6, class: "dsm-point", tabindex: 0, role: "button", "aria-label": `Use ${said}`}), `${said}. Press to use it.`);
            dot.addEventListener("pointerenter", () => read(said));
            dot.addEventListener("click", () => use(item));
            dot.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); use(item); } });
            parts.push(dot);
        }
        const said = `as the form says, ${chosen.label}: ${megabytes(chosen.bytes)}, error ${percent(chosen.error)}`;
        parts.push(titled(svg("circle", {cx: x(chosen.bytes), cy: y(chosen.error), r: 9, class: "dsm-point-chosen"}), said));
        read(said);
        return parts;
    });

    // ---- the error of each layer -------------------------------------------------------------------------------------

    lora.layers = (title, layers, told) => {
        const there = GROUPS.filter(([key]) => layers.some((layer) => groupOf(layer.name) === key));
        const legend = h("span", {class: "dsm-legend"}, there.map(([, label, color]) => h("span", {class: `dsm-legend-item ${color}`}, h("i", {}), label)));
        const order = new Map(GROUPS.map(([key], place) => [key, place]));
        const sorted = layers.map((layer, place) => ({layer, place, group: groupOf(layer.name)}))
            .sort((a, b) => order.get(a.group) - order.get(b.group) || a.place - b.place);
        const colors = new Map(GROUPS.map(([key, , color]) => [key, color]));
        return figure(title, 190, (width, height, read) => {
            const [left, right, top, bottom] = [48, 6, 10, 12];
            const most = Math.max(...layers.map((layer) => layer.error), 0.02) * 1.05;
            const y = (error) => height - bottom - (height - top - bottom) * error / most;
            const parts = shares(most).flatMap((value) => [line(left, y(value), width - right, y(value), "dsm-grid"),
                text(left - 8, y(value) + 4, percent(value).replace(".0", ""), {"text-anchor": "end"})]);
            const wide = (width - left - right) / sorted.length;
            const worst = layers.reduce((one, other) => (other.error > one.error ? other : one));
            const say = (layer) => `${shortName(layer.name)}: ${told(layer)}`;
            sorted.forEach(({layer, group}, place) => {
                const x = left + place * wide;
                const bar = svg("g", {class: `dsm-layer ${colors.get(group)}`});
                bar.append(svg("rect", {x, y: top, width: wide, height: height - top - bottom, class: "dsm-layer-ground"}),
                    svg("rect", {x: x + 0.12 * wide, y: y(layer.error), width: 0.76 * wide, height: Math.max(1.5, height - bottom - y(layer.error)), rx: Math.min(2, wide / 4), class: "dsm-layer-bar"}));
                bar.addEventListener("pointerenter", () => read(say(layer)));
                parts.push(titled(bar, `${layer.name}\n${told(layer)}`));
            });
            read(`worst: ${say(worst)}`);
            return parts;
        }, legend);
    };

    // ---- spectra -----------------------------------------------------------------------------------------------------

    // Singular values of a layer, both axes by powers of ten, with a mark at the rank that is kept.
    function spectrum(item) {
        const [width, height, edge] = [190, 64, 4];
        const positive = item.places.map((place, index) => [place, item.values[index]]).filter(([, value]) => value > 0);
        const drawing = svg("svg", {class: "dsm-spectrum", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Singular values of ${item.name}`, preserveAspectRatio: "none"});
        if (positive.length > 1) {
            const values = positive.map(([, value]) => value);
            const [high, low] = [Math.max(...values), Math.max(Math.min(...values), Math.max(...values) * 1e-4)];
            const last = positive[positive.length - 1][0];
            const x = (place) => edge + (width - 2 * edge) * Math.log(place) / Math.log(Math.max(2, last));
            const y = (value) => edge + (height - 2 * edge) * (1 - Math.log(Math.max(value, low) / low) / Math.log(Math.max(high / low, 1.01)));
            const points = positive.map(([place, value]) => [x(place), y(value)]);
            const kept = item.rank ? x(Math.min(item.rank, last)) : edge;
            drawing.append(svg("rect", {x: 0, y: 0, width: kept, height, class: "dsm-spectrum-kept"}), path(points, "dsm-curve dsm-thin"));
            if (item.rank && item.rank <= last) drawing.append(line(kept, 0, kept, height, "dsm-spectrum-rank"));
        }
        return h("div", {class: "dsm-spectrum-box", title: `${item.name}\n‖Δ‖ ${item.norm.toPrecision(3)}; singular values from the 1st, ${item.values[0].toPrecision(3)}, on, both axes by powers`},
            h("b", {}, shortName(item.name)), drawing, h("small", {}, item.rank ? `rank ${item.rank} leaves ${percent(item.error)}` : "not carried"));
    }

    lora.spectra = (items) => h("figure", {class: "dsm-figure"},
        h("figcaption", {class: "dsm-figure-head"}, h("b", {}, "Spectra of the largest changes"), h("span", {class: "dsm-chart-reading"}, "what the rank keeps is shaded; both axes by powers")),
        h("div", {class: "dsm-spectra"}, items.map(spectrum)));
})();
