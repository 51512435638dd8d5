// What variable-aspect training would cut away of the pictures as they are, size by size.
"use strict";

(function () {
    const {h, post, attempt, plural} = DSM;

    DSM.cropBuckets = async (options) => {
        const answer = await attempt(() => post("crop/sizes", {project: DSM.state.project.path, width: options.width, height: options.height, step: options.bucket_step}));
        if (!answer) return;
        const share = (value) => `${(100 * value).toFixed(1)} %`;
        const rows = answer.buckets.map((item) => h("tr", {}, h("td", {}, item.size.join("×")), h("td", {}, item.pictures), h("td", {}, share(item.mean)), h("td", {}, share(item.most))));
        const table = h("div", {class: "dsm-crop-table"},
            h("p", {}, `At ${options.width}×${options.height} with variable aspect each picture is trained uncropped at the size nearest its shape. This much of it is cut away:`),
            h("table", {}, h("thead", {}, h("tr", {}, ["Size", "Pictures", "Cut on average", "At most"].map((text) => h("th", {}, text)))), h("tbody", {}, rows)),
            answer.small ? h("p", {}, `${plural(answer.small, "picture")} too small to be trained.`) : null);
        DSM.confirm("Variable-aspect training", table, "Good");
    };
})();
