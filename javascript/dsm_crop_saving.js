// What was decided on a project's pictures as the plan has it, and saving it so that nothing is lost and nothing of
// another window's overwritten.
"use strict";

(function () {
    const {post, attempt, toast, plural} = DSM;
    const SAVE_AFTER = 150; // milliseconds

    // In the page a mirrored copy is a mark of its crop; in the plan it is one of its own.
    function unfolded(items) {
        const plainPart = (item) => (item.part === "flipped" ? "" : item.part.replace(/-flipped$/, ""));
        const twin = (item, other) => other.flip && !item.flip && plainPart(other) === item.part;
        const own = items.filter((item) => !items.some((other) => twin(other, item)));
        return {items: own.map((item) => ({...item, mirrored: items.some((other) => twin(item, other))}))};
    }

    function folded(picture) {
        return picture.items.flatMap(({mirrored, kept, ...item}) => {
            const twin = {...item, part: item.part ? `${item.part}-flipped` : "flipped", flip: true, mode: item.mode === "keep" ? "free" : item.mode};
            return mirrored ? [item, twin] : [item];
        });
    }

    DSM.cropPlan = {folded, unfolded};

    // `other` takes what another window saved for a picture.
    DSM.cropSaving = (project, other) => {
        const dirty = new Set();
        let [saving, timer] = [null, 0];

        function changed(picture, now) {
            dirty.add(picture);
            clearTimeout(timer);
            timer = setTimeout(flush, now ? 0 : SAVE_AFTER);
        }

        // Everything decided so far is on the disk when this is done; false where it could not be saved.
        async function flush() {
            clearTimeout(timer);
            while (saving) await saving;
            if (!dirty.size) return true;
            const sent = [...dirty];
            dirty.clear();
            saving = send(sent);
            const saved = await saving;
            saving = null;
            if (!saved) for (const picture of sent) dirty.add(picture); // tried again with the next decision
            return saved && (dirty.size ? flush() : true);
        }

        async function send(sent) {
            const values = sent.map((picture) => ({source: picture.name, state: picture.state, stamp: picture.stamp, mark: picture.mark, items: folded(picture)}));
            const answer = await attempt(() => post("crop/save", {project, pictures: values}));
            if (!answer) return false;
            const left = new Map(answer.left.map((saved) => [saved.name, saved]));
            for (const picture of sent) {
                if (!left.has(picture.name)) picture.mark = answer.marks[picture.name];
                else if (!dirty.has(picture)) other(picture, left.get(picture.name));
                else picture.mark = left.get(picture.name).mark; // decided anew meanwhile
            }
            if (left.size) toast(`${plural(left.size, "picture")} had been decided on in another window, which was kept.`);
            if (answer.note) toast(answer.note, "error");
            return true;
        }

        window.addEventListener("pagehide", flush);
        return {changed, flush, end: () => { window.removeEventListener("pagehide", flush); return flush(); }};
    };
})();
