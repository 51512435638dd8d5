// What was decided on a project's pictures as the plan has it, and saving it so that nothing is lost and nothing of
// another window's overwritten.
"use strict";

(function () {
    const {post, attempt, toast, plural} = DSM;
    const SAVE_AFTER = 150; // milliseconds
    const KEEPALIVE_MOST = 60000; // bytes; browsers send no more than 64 KiB for a page that is gone

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

    const kept = (project) => `dsm.crop.unsaved:${project}`;
    const told = (count) => `${plural(count, "picture")} had been decided on in another window, which was kept.`;

    // `other` takes what another window saved for a picture.
    DSM.cropSaving = (project, other) => {
        const dirty = new Set();
        let [saving, timer, sending, noting] = [null, 0, [], false];

        // What was decided anew while it is being saved follows upon our own save, whose mark is not known yet.
        const mark = (picture) => (sending.includes(picture) && dirty.has(picture) ? undefined : picture.mark);
        const values = (list) => list.map((picture) => ({source: picture.name, state: picture.state, stamp: picture.stamp, mark: mark(picture), items: folded(picture)}));
        const unsaved = () => values([...new Set([...sending, ...dirty])]);

        // What is not known to be on the disk outlives the page: "Reload UI" takes it away with whatever was decided last.
        function keep() {
            noting = false;
            try {
                if (sending.length || dirty.size) sessionStorage.setItem(kept(project), JSON.stringify(unsaved()));
                else sessionStorage.removeItem(kept(project));
            } catch (error) { /* it is too much to be kept */ }
        }

        function changed(picture, now) {
            dirty.add(picture);
            if (!noting) queueMicrotask(keep); // once for all that are changed together
            noting = true;
            clearTimeout(timer);
            timer = setTimeout(flush, now ? 0 : SAVE_AFTER);
        }

        // Everything decided so far is on the disk when this is done; false where it could not be saved.
        async function flush() {
            clearTimeout(timer);
            while (saving) await saving;
            if (!dirty.size) return true;
            const sent = sending = [...dirty];
            dirty.clear();
            saving = send(sent);
            const saved = await saving;
            [saving, sending] = [null, []];
            if (!saved) for (const picture of sent) dirty.add(picture); // tried again with the next decision
            keep();
            return saved && (dirty.size ? flush() : true);
        }

        async function send(sent) {
            const answer = await attempt(() => post("crop/save", {project, pictures: values(sent)}));
            if (!answer) return false;
            const left = new Map(answer.left.map((saved) => [saved.name, saved]));
            for (const picture of sent) {
                if (!left.has(picture.name)) picture.mark = answer.marks[picture.name];
                else if (!dirty.has(picture)) other(picture, left.get(picture.name));
                else picture.mark = left.get(picture.name).mark; // decided anew meanwhile
            }
            if (left.size) toast(told(left.size));
            if (answer.note) toast(answer.note, "error");
            return true;
        }

        // The tab may be closed for good, so that what is kept in it is lost: the browser sends this after the page is gone.
        function leave() {
            const rest = {project, pictures: unsaved()};
            if (rest.pictures.length && JSON.stringify(rest).length < KEEPALIVE_MOST) post("crop/save", rest, true).catch(() => {});
        }

        // What `resume` could not save is decided here as well, unless the picture or what is saved of it is another one by now.
        function takeUp(pictures, decisions) {
            for (const {source, state, stamp, mark: seen, items} of decisions) {
                const picture = pictures.find((one) => one.name === source && one.stamp === stamp && (seen === undefined || seen === one.mark));
                if (!picture) continue;
                Object.assign(picture, unfolded(items), {state});
                changed(picture);
            }
        }

        window.addEventListener("pagehide", leave);
        return {changed, takeUp, flush, end: () => { window.removeEventListener("pagehide", leave); return flush(); }};
    };

    // Save what an earlier page of this tab had decided and could not save; gives what cannot be saved now either.
    DSM.cropSaving.resume = async (project) => {
        const decisions = JSON.parse(sessionStorage.getItem(kept(project)) || "[]");
        if (!decisions.length) return [];
        try {
            const answer = await post("crop/save", {project, pictures: decisions});
            sessionStorage.removeItem(kept(project));
            if (answer.left.length) toast(told(answer.left.length));
            return [];
        } catch (error) {
            toast(error.message, "error");
            if (error.status !== 400) return decisions;
            sessionStorage.removeItem(kept(project)); // what is wrong with it now is wrong later
            return [];
        }
    };
})();
