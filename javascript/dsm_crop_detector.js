// The choice of a detector: those that are here, and known ones that are fetched if the person says so.
"use strict";

(function () {
    const {h, post, attempt, toast} = DSM;

    // `chosen` gets the file of the detector that was chosen, "" for none.
    DSM.cropDetector = (chosen) => {
        const select = h("select", {class: "dsm-field", id: "dsm_crop_detector", "aria-label": "Detector", onchange: change});
        let [detectors, path] = [[], ""];

        const told = (item) => (item.finds ? `${item.name}: ${item.finds}${item.path ? "" : ` (fetch ${item.megabytes} MB)`}` : item.name);

        // Shows the detectors there are; answers with the wanted one if it is among them.
        function list(found, folder, wanted) {
            detectors = found;
            select.replaceChildren(h("option", {value: ""}, "none"), ...detectors.map((item) => h("option", {value: item.path || item.name}, told(item))));
            path = detectors.some((item) => item.path && item.path === wanted) ? wanted : "";
            select.value = path;
            select.title = `Finds faces or heads, so that frames are put around them. Your own ONNX files go into ${folder}`;
            return path;
        }

        async function change() {
            const wanted = detectors.find((item) => (item.path || item.name) === select.value);
            if (wanted && !wanted.path) {
                select.value = path;
                if (!await fetched(wanted)) return;
                select.querySelector(`option[value="${wanted.name}"]`).replaceWith(h("option", {value: wanted.path}, told(wanted)));
                select.value = wanted.path;
            }
            path = select.value;
            chosen(path);
        }

        // Whether the detector is here now.
        async function fetched(wanted) {
            const sure = await DSM.confirm(`Fetch ${wanted.name}`, `It finds ${wanted.finds}, and is fetched once from ${wanted.repository} on huggingface.co: about ${wanted.megabytes} MB, licence ${wanted.licence}.`, "Fetch");
            const answer = sure && await attempt(() => post("crop/detector", {name: wanted.name}));
            if (!answer) return false;
            const ended = new Promise((resolve) => { DSM.job.quietly(answer.job, resolve); });
            select.disabled = true;
            const job = await ended;
            select.disabled = false;
            if (job.state === "done") wanted.path = job.data.detector;
            else toast([job.error, job.remedy].filter(Boolean).join(" ") || "It was not fetched.", "error");
            return Boolean(wanted.path);
        }

        return {element: select, list};
    };
})();
