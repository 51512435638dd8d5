// How the hypernetwork is built: its layers drawn to scale, and the number of parameters for each width.
"use strict";

(function () {
    const {h, svg, post, plural} = DSM;
    const train = (DSM.train = DSM.train || {});
    const [WIDE, HIGH, FOOT] = [430, 104, 16];

    const short = (count) => (count >= 1e6 ? `${(count / 1e6).toFixed(count >= 1e7 ? 1 : 2)} M` : count >= 1e4 ? `${Math.round(count / 1e3)} k` : String(count));

    DSM.widgets.trainstructure = (place) => {
        const count = h("b", {});
        const sentence = h("span", {class: "dsm-subdued"});
        const drawing = h("div", {class: "dsm-structure-drawing"});
        const widths = h("div", {class: "dsm-structure-widths"});
        const box = h("div", {class: "dsm-tokens dsm-structure"}, h("div", {class: "dsm-tokens-head", role: "status"}, h("div", {}, count, " ", sentence)),
            h("div", {class: "dsm-structure-body"}, drawing, widths));
        place.replaceChildren(box);
        let asked = "";

        async function update(values) {
            if (train.kind() !== "hypernetwork") return;
            let settings;
            try {
                const all = train.settings(values, true, true);
                settings = Object.fromEntries(train.fields().filter((field) => field.of === "hypernetwork").map((field) => [field.name, all[field.name]]));
            } catch (error) {
                return fail(error);
            }
            const question = JSON.stringify([settings, values.checkpoint]);
            if (question === asked) return;
            asked = question;
            try {
                const facts = await post("train/structure", {settings, checkpoint: values.checkpoint || ""});
                if (asked === question) draw(facts);
            } catch (error) {
                if (asked === question) fail(error);
            }
        }

        function fail(error) {
            box.classList.add("dsm-over");
            count.textContent = "";
            sentence.textContent = [error.problem || error.message, error.remedy].filter(Boolean).join(" ");
            drawing.replaceChildren();
            widths.replaceChildren();
        }

        function draw(facts) {
            box.classList.remove("dsm-over");
            count.textContent = `${short(facts.parameters)} parameters`;
            const size = `${Math.max(1, Math.round(facts.parameters * 4 / 1e6))} MB`;
            sentence.textContent = facts.file ? `as ${facts.file} has them${facts.step ? `, trained for ${plural(facts.step, "step")}` : ""}; ${size}`
                : `${size}; for keys and for values, ${facts.linear ? "linear" : "not linear"}`;
            drawing.replaceChildren(picture(facts.widths[0]));
            widths.replaceChildren(...facts.widths.map((item) => h("div", {class: item.layers === 0 ? "dsm-warn-text" : ""},
                h("b", {}, String(item.width)), h("span", {}, short(item.parameters)),
                h("small", {class: "dsm-subdued"}, item.layers === null ? "" : item.layers ? plural(item.layers, "layer") : "no such layer"))));
        }

        // One half for one width: a bar for each width of a layer, as high as it is wide, and what lies between.
        function picture(item) {
            const sizes = item.sizes;
            const most = Math.max(...sizes);
            const step = (WIDE - 24) / Math.max(sizes.length - 1, 1);
            const middle = (HIGH - FOOT) / 2 + 2;
            const tall = (size) => Math.max(5, (HIGH - FOOT - 8) * size / most);
            const parts = [];
            sizes.forEach((size, index) => {
                const x = 12 + index * step;
                if (index + 1 < sizes.length) {
                    const [a, b] = [tall(size) / 2, tall(sizes[index + 1]) / 2];
                    parts.push(svg("path", {class: "dsm-structure-flow", d: `M${x} ${middle - a} L${x + step} ${middle - b} L${x + step} ${middle + b} L${x} ${middle + a} Z`}));
                    const told = item.parts.filter((part) => part.layer === index && part.kind !== "linear").map((part) => (
                        part.kind === "activation" ? part.name : part.kind === "dropout" ? `drop ${part.rate}` : part.kind === "stretch" ? "+ skip" : part.kind));
                    ["linear", ...told].forEach((word, line, all) => {
                        const text = svg("text", {class: `dsm-structure-word${line ? "" : " dsm-structure-linear"}`, x: x + step / 2, y: middle + 4 + (line - (all.length - 1) / 2) * 14});
                        text.textContent = word;
                        parts.push(text);
                    });
                }
                const label = svg("text", {class: "dsm-tick dsm-tick-x", x, y: HIGH - 2});
                label.textContent = size;
                parts.push(svg("rect", {class: "dsm-structure-bar", x: x - 3, y: middle - tall(size) / 2, width: 6, height: tall(size), rx: 2}), label);
            });
            return svg("svg", {viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `Layers of ${sizes.join(", ")} numbers`}, ...parts);
        }

        DSM.on("train-form", update);
        if (train.values && train.values()) update(train.values());
    };
})();
