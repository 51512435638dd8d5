// The pictures of a project, folder by folder.
"use strict";

(function () {
    const {h, get, attempt, empty, lightbox, fileAddress, thumbnail, plural} = DSM;
    const PAGE = 60;
    const PURPOSES = {
        "Folder itself": "pictures beside the project's folders",
        IMGS: "pictures as you found them",
        DATASET_IMGS: "cropped, to be tagged and pruned",
        SET: "what the training takes",
    };

    DSM.pager = (page, pages, go) => pages < 2 ? null : h("div", {class: "dsm-pager"},
        h("button", {class: "dsm-button dsm-small", disabled: page === 0, "aria-label": "Previous page", onclick: () => go(page - 1)}, "‹"),
        `${page + 1} / ${pages}`,
        h("button", {class: "dsm-button dsm-small", disabled: page + 1 >= pages, "aria-label": "Next page", onclick: () => go(page + 1)}, "›"));

    DSM.widgets.dataset = (place) => {
        let current = null; // the folder's name
        const folders = h("div", {class: "dsm-folders", id: "dsm_dataset_folders"});
        const notes = h("div", {});
        const thumbs = h("div", {class: "dsm-thumbs", id: "dsm_dataset_thumbs"});
        const pager = h("div", {});
        const page = h("div", {class: "dsm-page dsm-page-dataset"}, folders, notes, thumbs, pager);

        function drawFolders(project) {
            if (!project.folders.some((folder) => folder.name === current)) {
                current = (project.folders.find((folder) => folder.pictures) || project.folders[0]).name;
            }
            folders.replaceChildren(...project.folders.map((folder) => h("button", {
                class: "dsm-folder", "aria-pressed": String(folder.name === current), title: folder.path,
                onclick: () => { current = folder.name; drawFolders(DSM.state.project); drawPictures(0); },
            },
            h("span", {class: "dsm-folder-name"}, folder.name),
            h("span", {class: "dsm-folder-count"}, plural(folder.pictures, "picture")),
            h("small", {}, folder.pictures ? `${plural(folder.captions, "caption")}  ·  ${PURPOSES[folder.name]}` : PURPOSES[folder.name]))));
        }

        async function drawPictures(number) {
            const folder = DSM.state.project.folders.find((item) => item.name === current);
            if (!folder.pictures) {
                notes.replaceChildren();
                pager.replaceChildren();
                thumbs.replaceChildren();
                const text = {SET: "Prune's button “Copy to SET” fills it. Without it, the tagged pictures are trained on.",
                    DATASET_IMGS: "Crop fills it. Pictures that need no cropping can be tagged where they are."}[folder.name];
                notes.append(empty(`${folder.name} is empty`, text || "Drop pictures above, or copy them into the folder."));
                return;
            }
            const answer = await attempt(() => get("pictures", {folder: folder.path, page: number, size: PAGE}));
            if (!answer || folder.name !== current) return;
            notes.replaceChildren(...answer.notes.slice(0, 8).map((note) => DSM.line("warn", note)));
            const readable = answer.pictures.filter((picture) => !picture.problem);
            const views = readable.map((picture) => ({
                address: thumbnail(picture.path, 2048, picture.stamp), label: `${picture.name}  ·  ${picture.width}×${picture.height}`,
            }));
            thumbs.replaceChildren(...answer.pictures.map((picture) => thumb(picture, () => lightbox(views, readable.indexOf(picture)))));
            pager.replaceChildren(DSM.pager(answer.page, answer.pages, drawPictures) || "");
        }

        function thumb(picture, open) {
            const facts = picture.problem || `${picture.name}\n${picture.width}×${picture.height}\n${picture.text}`;
            return h("button", {class: "dsm-thumb", title: facts, onclick: picture.problem ? () => DSM.toast(picture.problem, "error") : open},
                picture.problem ? empty("✕", "cannot be read") : h("img", {src: thumbnail(picture.path, 256, picture.stamp), alt: picture.name, loading: "lazy"}),
                picture.problem ? h("span", {class: "dsm-badge dsm-bad"}, "!")
                    : picture.captioned ? h("span", {class: "dsm-badge", title: "tags"}, picture.tags.length) : null,
                h("span", {class: "dsm-thumb-name"}, picture.problem ? picture.name : `${picture.width}×${picture.height}  ${picture.name}`));
        }

        function draw(project) {
            if (!project) return;
            if (!page.isConnected) place.replaceChildren(page);
            drawFolders(project);
            drawPictures(0);
        }

        place.append(DSM.tour.noProject());
        DSM.on("project", (project) => { current = null; draw(project); });
        DSM.on("changed", draw);
        draw(DSM.state.project);
    };
})();
