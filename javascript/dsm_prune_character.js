// Pruning the character: what is proposed and why, with pictures; accepted by group or tag; and what follows from it.
"use strict";

(function () {
    const {h, get, post, attempt, plural, thumbnail} = DSM;
    const pruning = (DSM.pruning = DSM.pruning || {});
    const GROUPS = {hair: "Hair", eyes: "Eyes", body: "Body", clothes: "Clothes", "clothes/accessory": "Accessories", "body/nudity": "Nudity"};

    pruning.character = async (app) => {
        const back = document.activeElement;
        let [preset, share, found, serial] = ["character", 40, null, 0];
        const chosen = new Set();
        const presets = h("div", {class: "dsm-segments dsm-presets-row", role: "tablist"});
        const text = h("div", {class: "dsm-subdued"});
        const slider = h("input", {type: "range", min: "5", max: "100", step: "5", id: "dsm_prune_share", "aria-label": "Propose tags from this share of the captions"});
        slider.value = String(share);
        const sliderText = h("span", {class: "dsm-subdued"});
        const groups = h("div", {class: "dsm-proposals"});
        const samples = h("div", {class: "dsm-samples"});
        const follows = h("div", {class: "dsm-follows"});
        const said = h("span", {class: "dsm-subdued dsm-spring"});
        const yes = h("button", {class: "dsm-button dsm-primary", id: "dsm_prune_accept", onclick: accept});
        const close = () => { overlay.remove(); if (back && back.focus) back.focus(); };
        const overlay = h("div", {class: "dsm-overlay", tabindex: "-1", role: "dialog", "aria-modal": "true", "aria-label": "Prune the character", onclick: (event) => event.target === overlay && close()},
            h("div", {class: "dsm-dialog dsm-wide", id: "dsm_prune_character_dialog"},
                h("h3", {}, "Prune the character"), presets, h("div", {class: "dsm-character-line"}, text, sliderText, slider),
                h("div", {class: "dsm-character"}, groups, h("div", {class: "dsm-character-side"}, samples, follows)),
                h("div", {class: "dsm-dialog-buttons"}, said, h("button", {class: "dsm-button", onclick: close}, "Cancel"), yes)));

        async function load() {
            const mine = ++serial;
            const answer = await attempt(() => get("prune/character", {folder: app.folder(), preset, share, where: app.where()}));
            if (!answer || mine !== serial) return;
            found = answer;
            chosen.clear();
            for (const item of found.proposals) if (item.chosen) chosen.add(item.tag);
            draw();
            show(found.proposals[0]);
        }

        function draw() {
            presets.replaceChildren(...found.presets.map((item) => h("button", {"aria-pressed": String(item.name === preset), title: item.text, onclick: () => { preset = item.name; load(); }}, item.title)));
            text.textContent = found.presets.find((item) => item.name === preset).text + (app.where() ? " Counted in the captions shown." : "");
            sliderText.textContent = `proposed from ${share}% of ${plural(found.captions, "caption")}`;
            const kinds = [...new Set(found.proposals.map((item) => item.kind))];
            const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.tag : null;
            groups.replaceChildren(...kinds.map((kind) => {
                const items = found.proposals.filter((item) => item.kind === kind);
                const taken = items.filter((item) => chosen.has(item.tag)).length;
                const box = h("input", {type: "checkbox", "aria-label": `All of ${GROUPS[kind] || kind}`});
                box.checked = taken === items.length;
                box.indeterminate = taken > 0 && taken < items.length;
                box.addEventListener("change", () => { for (const item of items) if (taken) chosen.delete(item.tag); else if (item.chosen || !items.some((other) => other.chosen)) chosen.add(item.tag); draw(); });
                return h("div", {class: "dsm-proposal-group"}, h("label", {class: "dsm-proposal-head"}, box, h("b", {}, GROUPS[kind] || kind), h("span", {class: "dsm-subdued"}, `${taken} of ${items.length}`)),
                    items.map((item) => {
                        const own = h("input", {type: "checkbox", "data-tag": item.tag, "aria-label": item.tag});
                        own.checked = chosen.has(item.tag);
                        own.addEventListener("change", () => { if (!chosen.delete(item.tag)) chosen.add(item.tag); draw(); });
                        own.addEventListener("focus", () => show(item));
                        return h("label", {class: "dsm-proposal" + (item.chosen ? "" : " dsm-rare"), style: `--share: ${100 * item.share}%`, title: item.reason, onmouseenter: () => show(item)},
                            own, h("span", {class: "dsm-tag-name"}, item.tag), h("span", {class: "dsm-tag-count"}, `${Math.round(100 * item.share)}%`));
                    }));
            }));
            if (!kinds.length) groups.replaceChildren(DSM.empty("Nothing to propose", "No tag of these kinds is in the captions. Tag the pictures first."));
            if (focused) { const again = groups.querySelector(`[data-tag="${CSS.escape(focused)}"]`); if (again) again.focus(); }
            foresee();
        }

        function show(item) {
            if (!item) return samples.replaceChildren();
            const picture = (name) => h("img", {src: thumbnail(`${app.folder()}/${name}`, 160, 0), alt: name, title: name, loading: "lazy"});
            samples.replaceChildren(h("div", {class: "dsm-caption"}, `“${item.tag}”`), h("div", {class: "dsm-reason"}, item.reason),
                h("div", {class: "dsm-sample-row"}, item.samples.map(picture)),
                item.without.length ? h("div", {class: "dsm-subdued"}, "Without it:") : "", h("div", {class: "dsm-sample-row dsm-without"}, item.without.map(picture)));
        }

        function options() {
            const replace = found.presets.find((item) => item.name === preset).replace;
            const tags = [...chosen].map(app.literal);
            const made = replace ? {replace: tags.map((tag) => `${tag.replace(/=/g, "\\=")}=${replace}`)} : {remove: tags};
            return {...made, where: app.where()};
        }

        async function foresee() {
            const mine = ++serial;
            yes.disabled = true;
            const count = chosen.size;
            if (!count) { yes.textContent = "Nothing is chosen"; said.textContent = ""; follows.replaceChildren(); return; }
            const answers = await attempt(() => Promise.all([
                post("prune/plan", {folder: app.folder(), options: options()}),
                post("prune/consequence", {folder: app.folder(), tags: [...chosen], where: app.where()}),
            ]));
            if (!answers || mine !== serial) return;
            const [plan, after] = answers;
            yes.disabled = !plan.changes;
            if (document.activeElement === overlay) yes.focus();
            yes.dsmExpect = plan.changes;
            const replace = found.presets.find((item) => item.name === preset).replace;
            yes.textContent = `${replace ? `Write ${replace} for` : "Remove"} ${plural(count, "tag")} in ${plural(plan.changes, "caption")}`;
            said.textContent = "It can be undone.";
            const share = (item) => h("span", {class: "dsm-diff"}, `${item[0]} ${Math.round(100 * item[2])}%`);
            follows.replaceChildren(
                h("div", {class: "dsm-caption"}, "Learned as inherent"),
                h("div", {class: "dsm-subdued"}, "No caption says it any more, so the embedding draws it without being asked."),
                h("div", {}, after.inherent.map((tag) => h("span", {class: "dsm-diff dsm-diff-new"}, tag))),
                after.missed.length ? h("div", {class: "dsm-subdued"}, `Too rare to be learned from the pictures alone: ${after.missed.join(", ")}.`) : "",
                h("div", {class: "dsm-caption"}, "Stays promptable"),
                h("div", {class: "dsm-subdued"}, "Captions go on saying it, so it is drawn where it is asked for."),
                h("div", {}, after.promptable.slice(0, 40).map(share)));
        }

        async function accept() {
            const expect = yes.dsmExpect;
            const made = options();
            close();
            await app.edit(made, expect);
        }

        slider.addEventListener("input", () => { share = Number(slider.value); load(); });
        overlay.addEventListener("keydown", (event) => {
            event.stopPropagation();
            if (event.key === "Escape") close();
            if (event.key === "Enter" && event.target.type === "checkbox") { event.preventDefault(); if (!yes.disabled) accept(); }
        });
        DSM.over(overlay);
        overlay.focus();
        load();
    };
})();
