// Beside the form: what its settings come to, the first prompts, and the model as it is and as training will use it.
"use strict";

(function () {
    const {h, get, post, line, plural} = DSM;
    const train = (DSM.train = DSM.train || {});
    const AGAIN = 4000; // milliseconds until a question that the program did not answer is asked again

    // What the settings come to: pictures, sizes, epochs, the learning rate over the steps.
    DSM.widgets.trainplan = (place) => {
        const sentence = h("div", {class: "dsm-plan-text"});
        const chart = train.chart({
            title: "Learning rate", height: 92, log: false, zero: true, waiting: "",
            series: [{key: "rate", label: "rate", kind: "line", color: "dsm-c1"}],
        });
        place.replaceChildren(h("div", {class: "dsm-plan"}, sentence, chart.element));
        let asked = "";
        let timer = null;

        async function update() {
            if (!DSM.visible(place) || !train.values()) return;
            let settings;
            try {
                settings = train.settings(train.values(), true);
            } catch (error) {
                asked = "";
                sentence.replaceChildren(h("span", {class: "dsm-subdued"}, error.message));
                return;
            }
            const {previews, ...rest} = settings;
            const question = JSON.stringify(rest);
            if (question === asked) return;
            asked = question;
            try {
                const facts = await post("train/plan", {config: rest});
                if (asked !== question) return;
                train.plan = facts;
                DSM.tell("train-plan", facts);
                sentence.replaceChildren(...describe(facts, settings));
                chart.update({steps: facts.rate.map(([step]) => step), series: {rate: facts.rate.map(([, rate]) => rate)}});
            } catch (error) {
                if (asked !== question) return; // a later question has been answered, or will be
                asked = ""; // it is asked again at the next occasion, and soon where the program is at fault
                sentence.replaceChildren(line("warn", error.problem || error.message, error.remedy));
                clearTimeout(timer);
                if (!(error.status >= 400 && error.status < 500)) timer = setTimeout(update, AGAIN);
            }
        }

        function describe(facts, settings) {
            const round = (number) => Number(number.toPrecision(number < 10 ? 2 : 3));
            const sizes = facts.buckets.map((bucket) => `${bucket.width}×${bucket.height}`);
            const parts = [h("div", {}, h("b", {}, plural(facts.count, "picture")), ` in ${plural(facts.buckets.length, "size")}: `,
                h("span", {class: "dsm-subdued"}, sizes.slice(0, 3).join(", ") + (sizes.length > 3 ? ", …" : ""))),
            h("div", {}, h("b", {}, plural(facts.pictures_per_step, "picture")), " a step, ", h("b", {}, plural(round(facts.steps_per_epoch), "step")), " an epoch"),
            h("div", {}, `${plural(facts.steps, "step")} show each picture `, h("b", {}, plural(round(facts.epochs * settings.repeats), "time")))];
            if (facts.held_out) parts.push(h("div", {class: "dsm-subdued"}, `${plural(facts.held_out, "picture is", "pictures are")} held out, to validate on`));
            if (facts.skipped.length) parts.push(h("div", {class: "dsm-warn-text"}, `${plural(facts.skipped.length, "picture is", "pictures are")} left out; Check says why.`));
            if (facts.rate_problem) parts.push(h("div", {class: "dsm-bad-text"}, facts.rate_problem));
            return parts;
        }

        const soon = () => { clearTimeout(timer); timer = setTimeout(update, 250); };
        DSM.on("train-form", soon);
        DSM.on("project", () => { asked = ""; soon(); });
        DSM.on("changed", () => { asked = ""; soon(); });
        new IntersectionObserver(soon).observe(place);
    };

    // The first prompts as training reads them.
    DSM.widgets.trainprompts = (place) => {
        const list = h("ol", {class: "dsm-prompts"});
        const caption = h("div", {class: "dsm-caption"});
        const draw = (facts) => {
            caption.textContent = facts && facts.held_out ? "Prompts such as the steps read" : "What the first steps read";
            if (!facts) return;
            list.replaceChildren(...facts.prompts.map((prompt) => h("li", {}, prompt)));
            if (facts.prompts_problem) list.append(h("li", {class: "dsm-bad-text"}, facts.prompts_problem));
        };
        place.replaceChildren(caption, list);
        DSM.on("train-plan", draw);
        draw(train.plan);
    };

    // The model as it is and as training will use it.
    DSM.widgets.modelstatus = (place) => {
        const element = h("div", {class: "dsm-status", role: "status"});
        place.replaceChildren(element);
        let shown = "";
        let status = null;

        function draw() {
            if (!status) return;
            const model = status.model;
            const values = train.values() || {};
            const chosen = values.checkpoint || "";
            const skip = Number(values.clip_skip) || model.clip_skip;
            const named = (label, now, then, note) => h("div", {class: "dsm-status-item"}, h("span", {}, label),
                h("div", {}, now === then || !now ? h("b", {}, then) : [h("s", {}, now), " → ", h("b", {}, then)]), note ? h("small", {}, note) : null);
            const alone = status.host === "studio";
            const strange = !alone && skip !== model.clip_skip;
            const items = [
                named("Model", alone || model.checkpoint === chosen ? "" : model.checkpoint || "none", chosen || "none chosen",
                    alone ? "loaded when training starts" : model.checkpoint === chosen ? "loaded" : "loaded for the training, put back afterwards"),
                named("VAE", alone || model.vae === model.vae_in_training ? "" : model.vae, model.vae_in_training,
                    alone || model.vae === model.vae_in_training ? "as the guides advise" : "set aside while training, put back afterwards"),
                named("CLIP skip", alone || !strange ? "" : String(model.clip_skip), String(skip),
                    strange ? "pictures are generated with another one now" : "pinned for the whole run"),
            ];
            const parts = [h("div", {class: "dsm-status-items"}, items)];
            if (model.note) parts.push(line("warn", model.note));
            const text = JSON.stringify([model, chosen, skip]);
            if (text === shown) return;
            shown = text;
            element.replaceChildren(...parts);
        }

        async function update() {
            if (DSM.visible(place) && !document.hidden) {
                try {
                    status = await get("status");
                    train.checkpoints = status.checkpoints;
                    draw();
                } catch (error) {
                    shown = "";
                    element.replaceChildren(line("warn", error.problem, error.remedy));
                }
            }
        }
        setInterval(update, 5000);
        new IntersectionObserver(update).observe(place);
        DSM.on("train-form", draw);
        DSM.on("host-changed", update);
        update();
    };
})();
