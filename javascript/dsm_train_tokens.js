// The words the vectors start from: how the model's tokenizer cuts them, and which token each vector begins as.
"use strict";

(function () {
    const {h, get, post, plural} = DSM;
    const train = (DSM.train = DSM.train || {});
    const COLORS = 6; // classes dsm-t0 … dsm-t5, one token after the other

    DSM.widgets.traintokens = (place) => {
        const count = h("b", {});
        const sentence = h("span", {class: "dsm-subdued"});
        const pieces = h("span", {class: "dsm-pieces"});
        const cells = h("div", {class: "dsm-vectors", role: "img", "aria-label": "What each vector starts from"});
        const suggest = h("button", {type: "button", class: "dsm-button dsm-small", title: "Start from the tags that were pruned from most captions, as many as fit the vectors", onclick: fromPruned}, "From pruned tags");
        place.replaceChildren(h("div", {class: "dsm-tokens"},
            h("div", {class: "dsm-tokens-head", role: "status"}, h("div", {}, count, " ", sentence), suggest), pieces, cells));
        let asked = "";
        let counted = ""; // the embedding whose number of vectors was written into the form

        async function update(values) {
            const file = String(values.init_embedding || "").trim();
            const [text, vectors] = [String(values.init_text || ""), Number(values.vectors) || 1];
            const mean = values.init_mode === "mean";
            const question = JSON.stringify([text, vectors, values.checkpoint, file, mean]);
            if (question === asked) return;
            asked = question;
            if (!file) counted = "";
            if (file) return ofFile(file, vectors, question);
            try {
                const answer = await post("train/tokens", {text, checkpoint: values.checkpoint || "", vectors});
                if (asked === question) draw({...answer, mean}, vectors);
            } catch (error) {
                if (asked === question) draw({note: error.message}, vectors);
            }
        }

        async function fromPruned() {
            const values = train.values();
            try {
                const {dataset, checkpoint, vectors} = train.settings(values, true);
                const found = await post("train/words", {dataset, checkpoint, vectors});
                train.fill({init_text: found.text, init_mode: "tokens", init_embedding: ""});
            } catch (error) {
                sentence.textContent = error.message;
            }
        }

        // An embedding to start from decides how many vectors there are.
        async function ofFile(file, vectors, question) {
            try {
                const found = await get("train/embedding", {name: file});
                if (asked !== question) return;
                const chosen = file !== counted; // now, and not with another number afterwards
                counted = file;
                const trained = found.step ? `, trained for ${plural(found.step, "step")}` : "";
                if (found.vectors === vectors) return draw({note: `The vectors start as the ${found.vectors} of ${found.file}${trained}; these words are not used.`}, vectors);
                if (chosen) return train.fill({vectors: found.vectors});
                draw({note: `${found.file} has ${plural(found.vectors, "vector")}: set the vectors to ${found.vectors}, or training refuses it.`, wrong: true}, vectors);
            } catch (error) {
                if (asked === question) draw({note: error.message, wrong: true}, vectors);
            }
        }

        function draw(answer, vectors) {
            const tokens = answer.tokens || [];
            const over = tokens.length > vectors && !answer.mean || Boolean(answer.wrong);
            place.firstChild.classList.toggle("dsm-over", over);
            count.textContent = answer.tokens ? `${plural(tokens.length, "token")} for ${plural(vectors, "vector")}` : "";
            sentence.textContent = answer.note || (over ? `Shorten the text, or use ${tokens.length} vectors: the last ${tokens.length - vectors} would be lost, so training refuses it.`
                : !tokens.length ? "Without words all vectors start at zero; name a few traits for a head start."
                : answer.mean && tokens.length > 1 ? "All vectors start as the mean of these tokens, and move apart by themselves."
                : shares(tokens, answer.vectors));
            pieces.replaceChildren(...tokens.slice(0, 80).map((token, index) =>
                h("span", {class: `dsm-piece dsm-t${index % COLORS}${over && index >= vectors ? " dsm-lost" : ""}`}, token)));
            cells.replaceChildren(...Array.from({length: vectors}, (_, index) => {
                const token = over ? index : answer.mean ? 0 : (answer.vectors || [])[index];
                const known = token !== undefined && tokens.length;
                return h("i", {class: known ? `dsm-t${token % COLORS}` : "dsm-zero", title: `vector ${index + 1}: ${known ? (answer.mean ? "the mean" : tokens[token]) : answer.note ? "see above" : "zero"}`});
            }));
        }

        // "solo × 8, hair × 8", or shorter where each has the same number.
        function shares(tokens, vectors) {
            const counts = tokens.map((_, token) => vectors.filter((index) => index === token).length);
            if (tokens.length === 1) return counts[0] === 1 ? "The vector starts as this token." : `All ${counts[0]} vectors start as this token, and move apart by themselves.`;
            if (counts.every((count) => count === 1)) return "Each vector starts as one token.";
            const [least, most] = [Math.min(...counts), Math.max(...counts)];
            return `Each token fills ${least === most ? most : `${least} to ${most}`} vectors, in order.`;
        }

        DSM.on("train-form", update);
        if (train.values && train.values()) update(train.values());
    };
})();
