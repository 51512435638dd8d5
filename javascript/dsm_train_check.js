// Before training: the guards' findings as a checklist, the sizes drawn to scale, and every picture with its crop.
"use strict";

(function () {
    const {h, svg, post, line, plural, lightbox, thumbnail} = DSM;
    const train = (DSM.train = DSM.train || {});
    const PAGE = 48;
    const SIGNS = {block: ["✕", "stands in the way"], fix: ["✓", "put right by itself"], warn: ["!", "look at it"], info: ["i", "good to know"], ok: ["✓", "in order"]};

    const shown = (value) => { const text = Array.isArray(value) ? value.join(" / ") : String(value); return text.length > 40 ? `${text.slice(0, 40)}…` : text; };

    // What a finding's remedy changes in the form, as the words of its button.
    function remedy(settings) {
        const words = Object.entries(settings).map(([name, value]) => {
            const label = ((train.fields().find((field) => field.name === name) || {}).label || name.replace(/_/g, " ")).toLowerCase();
            return typeof value === "boolean" ? `turn ${label} ${value ? "on" : "off"}` : `set ${label} to ${shown(value)}`;
        }).join(", ");
        return words.charAt(0).toUpperCase() + words.slice(1);
    }

    function applyButton(finding, override) {
        const names = Object.keys(finding.apply || {});
        if (!names.length || !names.every(override.takes)) return null;
        const button = h("button", {class: "dsm-button dsm-small dsm-check-apply", onclick: () => {
            override.fill(finding.apply);
            button.disabled = true;
            button.textContent = `✓ ${button.textContent}`;
        }}, remedy(finding.apply));
        return button;
    }

    // The guards that looked and found nothing, folded.
    const fine = (passed) => (passed.length ? h("details", {class: "dsm-check-passed"}, h("summary", {}, `${plural(passed.length, "check")} passed`),
        h("ul", {class: "dsm-checklist"}, passed.map((guard) => h("li", {class: "dsm-check dsm-fix", "data-id": guard.id},
            h("span", {class: "dsm-check-sign", title: SIGNS.ok[1], "aria-label": SIGNS.ok[1]}, SIGNS.ok[0]), h("div", {}, guard.fine))))) : null);

    // Findings as a checklist. What blocks can be overridden by its own box, and a remedy that changes settings has its
    // button. `override` says where both go: `has` and `set` an id, `takes` a setting by its name and `fill` in several;
    // null where nothing can be done any more.
    train.checklist = (findings, override) => {
        const ids = new Set();
        return h("ul", {class: "dsm-checklist"}, findings.map((finding) => {
            const [sign, meaning] = SIGNS[finding.severity] || SIGNS.info;
            const own = finding.severity === "block" && override && !ids.has(finding.id);
            ids.add(finding.id);
            return h("li", {class: `dsm-check dsm-${finding.severity}`, "data-id": finding.id},
                h("span", {class: "dsm-check-sign", title: meaning, "aria-label": meaning}, sign),
                h("div", {}, h("b", {}, finding.problem), " ", finding.remedy, override ? applyButton(finding, override) : null,
                    own ? h("label", {class: "dsm-check-override"}, h("input", {
                        type: "checkbox", checked: override.has(finding.id), onchange: (event) => override.set(finding.id, event.target.checked),
                    }), "Train all the same, on my own responsibility") : null));
        }));
    };

    // The form's option of guards that are overridden, one id a line.
    const ids = () => String((train.values() || {}).override || "").split("\n").map((item) => item.trim()).filter(Boolean);
    train.formOverride = {
        has: (id) => ids().includes(id),
        set: (id, on) => train.fill({override: on ? [...new Set([...ids(), id])] : ids().filter((item) => item !== id)}),
        takes: () => true,
        fill: (settings) => train.fill(settings),
    };

    function summary(findings) {
        const open = new Set(findings.filter((finding) => finding.severity === "block" && !train.formOverride.has(finding.id)).map((finding) => finding.id));
        if (open.size) return line("block", `${plural(open.size, "thing stands", "things stand")} in the way.`, "Put it right, or take it on yourself below.");
        return line("ok", "The training can start.", findings.length ? `${plural(findings.length, "remark")} below.` : "There is nothing to object to.");
    }

    let show = null;
    train.showCheck = (settings) => show(settings);

    DSM.widgets.traincheck = (place) => {
        let asked = "";
        let summarize = () => {};
        const stale = h("div", {class: "dsm-stale", hidden: true}, "The settings have changed since. ",
            h("button", {class: "dsm-button dsm-small", onclick: () => train.check()}, "Check again"));

        show = async (settings) => {
            asked = JSON.stringify(settings);
            const question = asked;
            const findings = h("div", {class: "dsm-check-findings", "aria-live": "polite"}, h("div", {class: "dsm-checking"}, h("i", {class: "dsm-spinner"}), "The guards look at pictures, captions and model…"));
            const sizes = h("div", {class: "dsm-check-sizes"}, h("div", {class: "dsm-checking"}, h("i", {class: "dsm-spinner"}), "Reading the pictures' sizes…"));
            stale.hidden = true;
            summarize = () => {};
            const close = h("button", {class: "dsm-button dsm-small", "aria-label": "Close the check", onclick: () => train.closeCheck()}, "✕");
            place.replaceChildren(h("section", {class: "dsm-job-panel dsm-check-panel", "aria-label": "Check"},
                h("div", {class: "dsm-job-head"}, h("b", {}, "Check"), stale, h("span", {class: "dsm-spring"}), close), findings, sizes));
            const guards = post("train/check", {config: settings}).then((answer) => {
                if (asked !== question) return;
                const head = h("div", {});
                summarize = () => head.replaceChildren(summary(answer.findings));
                summarize();
                findings.replaceChildren(head, train.checklist(answer.findings, train.formOverride), fine(answer.passed || []) || "");
            }, (error) => { if (asked === question) findings.replaceChildren(line("error", error.problem || error.message, error.remedy)); });
            const plan = post("train/plan", {config: settings, pictures: true}).then((facts) => {
                if (asked === question) sizes.replaceChildren(...drawSizes(facts));
            }, (error) => { if (asked === question) sizes.replaceChildren(line("error", error.problem || error.message, error.remedy)); });
            await Promise.all([guards, plan]);
        };

        train.closeCheck = () => { asked = ""; place.replaceChildren(); };
        DSM.on("train-form", (values) => {
            if (!asked) return;
            summarize();
            try {
                const {override, previews, ...now} = train.settings(values);
                const {override: _, previews: __, ...then} = JSON.parse(asked);
                stale.hidden = JSON.stringify(now) === JSON.stringify(then);
            } catch (error) {
                stale.hidden = false;
            }
        });
    };

    const percent = (share) => `${share > 0 && share < 0.01 ? "<1" : Math.round(100 * share)} %`;

    function drawSizes(facts) {
        let chosen = null; // a bucket, or null for all
        let page = 0;
        const grid = h("div", {class: "dsm-crops"});
        const pager = h("div", {});
        const caption = h("span", {class: "dsm-subdued"});
        const rows = facts.buckets.map((bucket) => {
            const share = bucket.pictures / facts.count;
            const row = h("tr", {tabindex: "0", "aria-selected": "false", onclick: () => choose(bucket), onkeydown: (event) => {
                if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(bucket); }
            }},
            h("td", {}, `${bucket.width} × ${bucket.height}`),
            h("td", {class: "dsm-number"}, bucket.pictures),
            h("td", {}, h("i", {class: "dsm-share", style: `--share: ${Math.round(100 * share)}%`})),
            h("td", {class: "dsm-number"}, percent(bucket.lost)),
            h("td", {class: `dsm-number${bucket.most_lost > 0.15 ? " dsm-warn-text" : ""}`}, percent(bucket.most_lost)));
            row.bucket = bucket;
            return row;
        });
        const drawing = scale(facts.buckets, choose);

        function choose(bucket) {
            chosen = chosen === bucket ? null : bucket;
            page = 0;
            for (const row of rows) row.setAttribute("aria-selected", String(row.bucket === chosen));
            for (const box of drawing.querySelectorAll("g")) box.classList.toggle("dsm-on", box.bucket === chosen);
            pictures();
        }

        function pictures() {
            const found = facts.pictures.filter((picture) => !chosen || (picture.size[0] === chosen.width && picture.size[1] === chosen.height))
                .sort((a, b) => b.lost - a.lost);
            const pages = Math.max(1, Math.ceil(found.length / PAGE));
            const shown = found.slice(page * PAGE, (page + 1) * PAGE);
            const views = shown.map((picture) => ({address: thumbnail(picture.path, 2048, picture.stamp), label: title(picture)}));
            caption.textContent = `${chosen ? `trained at ${chosen.width}×${chosen.height}` : "all sizes"}, those that lose most first; what is dark is cut away`;
            grid.replaceChildren(...shown.map((picture, index) => crop(picture, () => lightbox(views, index))));
            pager.replaceChildren(DSM.pager(page, pages, (number) => { page = number; pictures(); }) || "");
        }

        pictures();
        const skipped = facts.skipped.map((item) => line("warn", `Left out: ${item.problem}`));
        return [...skipped,
            h("div", {class: "dsm-caption"}, "Sizes", h("span", {class: "dsm-subdued"}, "drawn to scale; click one to see its pictures")),
            h("div", {class: "dsm-sizes"},
                h("table", {class: "dsm-table"}, h("thead", {}, h("tr", {}, ["Size", "Pictures", "", "Cut away", "at most"].map((text) => h("th", {}, text)))), h("tbody", {}, rows)), drawing),
            h("div", {class: "dsm-caption"}, "Crops", caption), grid, pager];
    }

    const title = (picture) => `${picture.name}  ·  ${picture.source.join("×")} → ${picture.size.join("×")}  ·  ${percent(picture.lost)} cut away`;

    // One picture whole, with a frame around what training sees of it.
    function crop(picture, open) {
        const [left, top, right, bottom] = picture.box.map((share) => 100 * share);
        const frame = h("i", {class: "dsm-crop-kept", style: `left: ${left}%; top: ${top}%; width: ${right - left}%; height: ${bottom - top}%`});
        return h("button", {class: "dsm-crop-item", title: title(picture), onclick: open},
            h("span", {class: "dsm-crop-picture", style: `aspect-ratio: ${picture.source[0]} / ${picture.source[1]}`},
                h("img", {src: thumbnail(picture.path, 192, picture.stamp), alt: picture.name, loading: "lazy"}), picture.lost > 0.001 ? frame : null),
            h("small", {class: picture.lost > 0.15 ? "dsm-warn-text" : ""}, picture.lost > 0.001 ? `−${percent(picture.lost)}` : "whole"));
    }

    // All sizes side by side on one ground line, to scale, their number within.
    function scale(buckets, choose) {
        const height = 190;
        const gap = 14;
        const widest = Math.max(...buckets.map((bucket) => bucket.width));
        const tallest = Math.max(...buckets.map((bucket) => bucket.height));
        const total = buckets.reduce((sum, bucket) => sum + bucket.width, 0);
        const factor = Math.min((height - 40) / tallest, Math.max((640 - gap * buckets.length) / total, 24 / widest), 150 / widest);
        const most = Math.max(...buckets.map((bucket) => bucket.pictures));
        let x = 2;
        const boxes = [...buckets].sort((a, b) => a.width / a.height - b.width / b.height).map((bucket) => {
            const [wide, high] = [bucket.width * factor, bucket.height * factor];
            const name = svg("text", {x: x + Math.max(wide, 30) / 2, y: height - 6, class: "dsm-tick dsm-tick-x"});
            name.textContent = wide > 52 ? `${bucket.width}×${bucket.height}` : "";
            const count = svg("text", {x: x + wide / 2, y: height - 22 - high / 2 + 5, class: "dsm-size-count"});
            count.textContent = bucket.pictures;
            const rectangle = svg("rect", {x, y: height - 22 - high, width: wide, height: high, rx: 3, style: `fill-opacity: ${0.12 + 0.5 * bucket.pictures / most}`});
            const tip = svg("title", {});
            tip.textContent = `${bucket.width}×${bucket.height}: ${plural(bucket.pictures, "picture")}`;
            const group = svg("g", {class: "dsm-size"}, tip, rectangle, count, name);
            group.bucket = bucket;
            group.addEventListener("click", () => choose(bucket));
            x += Math.max(wide, wide > 52 ? 58 : 22) + gap;
            return group;
        });
        return svg("svg", {class: "dsm-sizes-drawing", viewBox: `0 0 ${Math.ceil(x)} ${height}`, width: Math.ceil(x), height, role: "img", "aria-label": "The training sizes, to scale"}, ...boxes);
    }
})();
