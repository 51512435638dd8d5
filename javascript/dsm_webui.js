// What ties the page to the WebUI's own tabs: a preview sent to txt2img, a generated picture taken into the project, the
// settings. It belongs to the WebUI alone; the studio leaves this file out.
"use strict";

(function () {
    const {h, get, post, attempt, toast} = DSM;
    const GALLERIES = ["txt2img", "img2img", "extras"];

    // One of the WebUI's own tabs, by the id of its content: what its button says may be translated, and the order is the
    // person's choice.
    function openTop(name) {
        const place = [...gradioApp().querySelectorAll("#tabs > .tabitem")].findIndex((item) => item.id === `tab_${name}`);
        const button = gradioApp().querySelectorAll("#tabs > .tab-nav > button")[place];
        if (button) button.click();
    }

    // ---- a preview to txt2img ------------------------------------------------------------------------------------------

    // The WebUI's own button reads the text, so that each setting goes where this version of it has it.
    async function sendToTxt2img(path) {
        const found = await attempt(() => get("train/parameters", {path}));
        const prompt = gradioApp().querySelector("#txt2img_prompt textarea");
        const paste = gradioApp().querySelector("#txt2img_tools #paste, #tab_txt2img #paste");
        if (!found || !prompt || !paste) return false;
        prompt.value = found.parameters;
        updateInput(prompt);
        paste.click();
        openTop("txt2img");
        // The button goes to the WebUI's first tab as well, which is another one where the person has put them in order.
        for (let tries = 0; tries < 40 && prompt.value === found.parameters; tries += 1) await new Promise((done) => setTimeout(done, 50));
        openTop("txt2img");
        return true;
    }

    // ---- a picture of a gallery into the project -------------------------------------------------------------------------

    // The file behind the picture that a gallery shows, "" where there is none.
    function shownFile(name) {
        const gallery = gradioApp().querySelector(`#${name}_gallery`);
        const image = gallery && (gallery.querySelector(".preview > img, .preview > button > img, [data-testid=detailed-image]") || gallery.querySelector(".thumbnail-item.selected img") || gallery.querySelector("img"));
        const found = image && /\/file=([^?#]+)/.exec(image.src);
        return found ? decodeURIComponent(found[1]) : "";
    }

    async function take(name, tab) {
        const picture = shownFile(name);
        if (!picture) return toast("No picture is shown here yet; generate one first.", "error");
        if (!DSM.state.project) {
            toast("No project is open to put the picture into. Open one or make one with New.", "error");
            return openTop("dsm");
        }
        const answer = await attempt(() => post("project/take", {path: DSM.state.project.path, picture}));
        if (!answer) return undefined;
        toast(answer.new ? `${answer.name} is in IMGS of ${answer.project.name}.` : `${answer.name} is in IMGS of ${answer.project.name} already.`);
        await DSM.project.refresh();
        if (tab) {
            openTop("dsm");
            DSM.openTab(tab);
        }
        return undefined;
    }

    // gradio draws the rows anew now and then.
    function addButtons() {
        const wanted = opts.dsm_gallery_buttons !== false;
        for (const name of GALLERIES) {
            const row = gradioApp().querySelector(`#image_buttons_${name}`);
            if (!row) continue;
            const there = row.querySelectorAll(".dsm-take");
            if (wanted === Boolean(there.length)) continue;
            for (const button of there) button.remove();
            if (!wanted) continue;
            const model = row.querySelector("button");
            const add = (id, sign, title, tab) => row.append(h("button", {id: `dsm_${id}_${name}`, title, class: `${model ? model.className : ""} dsm-take`, onclick: () => take(name, tab)}, sign));
            add("take", "DSM +", "DSM: copy this picture into IMGS of the open project.", null);
            add("take_tag", "DSM Tag", "DSM: copy this picture into IMGS of the open project and open the tab Tag.", "Tag");
        }
    }

    // ---- settings ----------------------------------------------------------------------------------------------------------

    const rules = h("style", {id: "dsm_hidden_tabs"});

    // By place: gradio 3 makes a tab's button anew whenever it is selected.
    function hideTabs() {
        const hidden = (opts.dsm_hidden_tabs || []).filter((label) => DSM.TABS.includes(label));
        DSM.state.hidden = hidden.length < DSM.TABS.length ? hidden : [];
        const places = DSM.state.hidden.map((label) => `#dsm_tabs > .tab-nav > button:nth-child(${DSM.TABS.indexOf(label) + 1})`);
        rules.textContent = places.length ? `${places.join(", ")} { display: none; }` : "";
        if (!rules.isConnected) document.head.append(rules);
        const selected = (label) => DSM.tabButton(label) && DSM.tabButton(label).classList.contains("selected");
        if (DSM.state.hidden.some(selected)) {
            const other = DSM.tabButton(DSM.TABS.find((label) => !DSM.state.hidden.includes(label)));
            if (other) other.click();
        }
    }

    function settle() {
        hideTabs();
        addButtons();
        DSM.tell("host-changed");
    }

    // The checkpoint, the VAE and CLIP skip above the WebUI's tabs are options of it.
    onUiLoaded(() => onOptionsAvailable(settle));
    onOptionsChanged(settle);
    onAfterUiUpdate(addButtons);

    DSM.webui = {sendToTxt2img, openTop, shownFile};
})();
