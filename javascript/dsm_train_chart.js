// Curves over steps, drawn in SVG: axes, lines, bands of two edges, dots, one crosshair for all charts of a run.
"use strict";

(function () {
    const {h, svg} = DSM;
    const train = (DSM.train = DSM.train || {});
    const [LEFT, RIGHT, TOP, BOTTOM] = [50, 12, 8, 22]; // pixels around the plot

    // Round numbers between low and high, about `count` of them.
    function ticks(low, high, count) {
        const rough = (high - low) / Math.max(1, count);
        if (!(rough > 0) || !isFinite(rough)) return [low];
        const power = 10 ** Math.floor(Math.log10(rough));
        const size = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999);
        const found = [];
        for (let index = Math.ceil(low / size - 1e-9); index * size <= high + 1e-9 * size; index++) found.push(index * size);
        return found;
    }

    const powers = (low, high) => {
        const found = [];
        for (let power = Math.ceil(Math.log10(low) - 1e-9); power <= Math.log10(high) + 1e-9; power++) found.push(10 ** power);
        return found.length > 1 ? found : ticks(low, high, 3).filter((value) => value > 0);
    };

    // A number as a person reads it: three digits that count, no long tails of zeros.
    function short(value) {
        if (value === null || value === undefined || !isFinite(value)) return "–";
        const size = Math.abs(value);
        if (size && (size < 0.001 || size >= 1e5)) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
        return String(Number(value.toPrecision(3)));
    }

    // The middle part of the values, so that a single outlier does not flatten a curve.
    function range(values, share) {
        const sorted = values.filter((value) => value !== null && isFinite(value)).sort((a, b) => a - b);
        if (!sorted.length) return null;
        return [sorted[Math.floor((sorted.length - 1) * (1 - share))], sorted[Math.ceil((sorted.length - 1) * share)]];
    }

    // The step under the pointer, told to every chart of the same group.
    train.crosshair = () => {
        const charts = [];
        return {add: (chart) => charts.push(chart), at: (step) => charts.forEach((chart) => chart.point(step))};
    };

    // options: title, height, group (of train.crosshair()), log, zero (the axis begins at 0), share (of the faint points
    // that decides the axis), bridge (lines go on over gaps), least (points to draw), waiting (said before),
    // range {label, help} (what a shaded range is), series [{key, label, kind "line" | "thin" | "faint" | "dots", color (a CSS class), off}].
    // update({steps, series: {key: [value or null, …]}, ranges: [{low, high}], best: step}).
    train.chart = (options) => {
        const drawing = svg("svg", {class: "dsm-chart", role: "img", "aria-label": options.title, height: options.height});
        const reading = h("span", {class: "dsm-chart-reading"});
        const hidden = new Set(options.series.filter((series) => series.off).map((series) => series.key));
        const legend = h("span", {class: "dsm-legend"});
        const waiting = h("div", {class: "dsm-chart-waiting"}, options.waiting || "Begins with the second step.");
        const box = h("div", {class: "dsm-chart-box", style: `height: ${options.height}px`}, drawing, waiting);
        const title = h("b", {}, options.title);
        const element = h("figure", {class: "dsm-figure"},
            h("figcaption", {class: "dsm-figure-head"}, title, reading, options.series.length > 1 ? legend : null), box);
        let data = null;
        let plot = null;
        let pointed = null;

        for (const series of options.series) {
            const button = h("button", {
                class: `dsm-legend-item ${series.color}`, "aria-pressed": String(!hidden.has(series.key)), title: `Show or hide ${series.label}`,
                onclick: () => {
                    if (!hidden.delete(series.key)) hidden.add(series.key);
                    button.setAttribute("aria-pressed", String(!hidden.has(series.key)));
                    draw();
                },
            }, h("i", {}), series.label);
            legend.append(button);
        }

        if (options.range) legend.append(h("span", {class: "dsm-legend-item", title: options.range.help}, h("i", {class: "dsm-legend-range"}), options.range.label));

        const shown = () => options.series.filter((series) => !hidden.has(series.key) && data.series[series.key]);

        function bounds() {
            let [low, high] = [Infinity, -Infinity];
            for (const series of shown()) {
                const found = range(data.series[series.key], series.kind === "faint" ? options.share || 1 : 1);
                if (found) [low, high] = [Math.min(low, found[0]), Math.max(high, found[1])];
            }
            if (!isFinite(low)) return null;
            for (const range of data.ranges || []) [low, high] = [Math.min(low, range.low), Math.max(high, range.high)];
            if (options.log && low > 0) return [low / 1.3, high * 1.3];
            const margin = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
            return [options.zero ? 0 : low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
        }

        function draw() {
            const width = box.clientWidth;
            if (!data || !width) return;
            const known = data.steps.length;
            const limits = known > (options.least || 1) ? bounds() : null;
            waiting.hidden = Boolean(limits);
            if (!limits) return drawing.replaceChildren();
            const height = options.height;
            const [first, last] = [data.steps[0], Math.max(data.steps[known - 1], data.steps[0] + 1)];
            const [low, high] = limits;
            const scale = options.log && low > 0 ? Math.log : (value) => value;
            const x = (step) => LEFT + ((step - first) / (last - first)) * (width - LEFT - RIGHT);
            const y = (value) => {
                const part = (scale(Math.max(value, options.log ? low : -Infinity)) - scale(low)) / (scale(high) - scale(low));
                return Math.max(TOP - 2, height - BOTTOM - part * (height - TOP - BOTTOM));
            };
            const parts = [];
            const label = (text, attributes) => {
                const element = svg("text", attributes);
                element.textContent = text;
                parts.push(element);
            };
            for (const value of options.log && low > 0 ? powers(low, high) : ticks(low, high, height > 150 ? 4 : 3)) {
                parts.push(svg("line", {x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: "dsm-grid"}));
                label(short(value), {x: LEFT - 8, y: y(value) + 4, class: "dsm-tick dsm-tick-y"});
            }
            for (const value of ticks(first, last, Math.max(4, (width - LEFT) / 90)).filter(Number.isInteger)) {
                label(value, {x: x(value), y: height - 6, class: "dsm-tick dsm-tick-x"});
            }
            for (const range of data.ranges || []) {
                parts.push(svg("rect", {x: LEFT, width: width - LEFT - RIGHT, y: y(range.high), height: Math.max(1, y(range.low) - y(range.high)), class: "dsm-range"}));
            }
            if (data.best !== null && data.best !== undefined && known > 1) {
                parts.push(svg("line", {x1: x(data.best), x2: x(data.best), y1: TOP, y2: height - BOTTOM, class: "dsm-best"}));
            }
            for (const series of shown()) parts.push(...curve(series, data.series[series.key], x, y));
            const cross = svg("g", {class: "dsm-cross"});
            drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
            drawing.replaceChildren(...parts, cross);
            plot = {x, y, cross, height};
            point(pointed);
        }

        function curve(series, values, x, y) {
            if (series.kind === "dots") {
                const dots = data.steps.map((step, index) => values[index] === null ? null
                    : svg("circle", {cx: x(step).toFixed(1), cy: y(values[index]).toFixed(1), r: 3, class: `dsm-dot ${series.color}`})).filter(Boolean);
                return [svg("path", {d: line(values, x, y), class: `dsm-curve dsm-thin ${series.color}`}), ...dots];
            }
            const kind = series.kind === "faint" ? "dsm-curve-raw" : series.kind === "thin" ? "dsm-curve dsm-thin" : "dsm-curve";
            return [svg("path", {d: line(values, x, y), class: `${kind} ${series.color}`})];
        }

        function line(values, x, y) {
            let path = "";
            let pen = false;
            for (let index = 0; index < data.steps.length; index++) {
                const value = values[index];
                if (value === null || value === undefined) { pen = pen && Boolean(options.bridge); continue; }
                path += `${pen ? "L" : "M"}${x(data.steps[index]).toFixed(1)} ${y(value).toFixed(1)}`;
                pen = true;
            }
            return path;
        }

        // Show the values at the point nearest to `step`; without one those of the newest.
        function point(step) {
            pointed = step;
            if (!plot || !data || !data.steps.length) return;
            let index = data.steps.length - 1;
            if (step !== null && step !== undefined) {
                for (let place = 0; place < data.steps.length; place++) {
                    if (Math.abs(data.steps[place] - step) < Math.abs(data.steps[index] - step)) index = place;
                }
            }
            const values = shown().map((series) => [series, data.series[series.key][index]]).filter(([, value]) => value !== null && value !== undefined);
            plot.cross.replaceChildren();
            if (step !== null && step !== undefined) {
                const at = plot.x(data.steps[index]);
                plot.cross.append(svg("line", {x1: at, x2: at, y1: TOP, y2: plot.height - BOTTOM}),
                    ...values.map(([series, value]) => svg("circle", {cx: at, cy: plot.y(value), r: 3.5, class: `dsm-dot ${series.color}`})));
            }
            reading.textContent = (step === null || step === undefined ? "" : `step ${data.steps[index]}: `)
                + values.filter(([series]) => !series.quiet || step !== null && step !== undefined)
                    .map(([series, value]) => `${options.series.length > 1 ? series.label + " " : ""}${(options.format || short)(value)}`).join(", ");
        }

        drawing.addEventListener("pointermove", (event) => {
            if (!plot) return;
            const at = event.clientX - drawing.getBoundingClientRect().left;
            const nearest = data.steps.reduce((best, step) => (Math.abs(plot.x(step) - at) < Math.abs(plot.x(best) - at) ? step : best), data.steps[0]);
            options.group ? options.group.at(nearest) : point(nearest);
        });
        drawing.addEventListener("pointerleave", () => (options.group ? options.group.at(null) : point(null)));
        new ResizeObserver(() => draw()).observe(box);
        const chart = {element, point, update: (now) => { data = now; draw(); }};
        if (options.group) options.group.add(chart);
        return chart;
    };

    Object.assign(train, {ticks, short});
})();
