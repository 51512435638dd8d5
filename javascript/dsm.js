// The core of DSM's pages: elements, calls, and the widgets that grow in the places which the tabs leave for them.
// A place is <div data-dsm="NAME" data-…>; NAME's widget is mounted in it as soon as it appears.
"use strict";

window.DSM = (function () {
    const widgets = {};
    const listeners = {};
    const state = {token: "", project: null, hidden: [], mounted: false};
    const base = location.pathname.replace(/[^/]*$/, "") + "dsm/v1/";

    // ---- elements ------------------------------------------------------------------------------------------------

    // A text in the language that the WebUI is set to. The WebUI translates text inside its own page by itself, but neither
    // what lies over the page nor the titles of elements that come in groups.
    function translated(text) {
        const bare = text.trim();
        if (!bare || !window.localization || !Object.hasOwn(window.localization, bare)) return text;
        const found = window.localization[bare];
        return typeof found === "string" ? text.replace(bare, () => found) : text;
    }

    const READ_ALOUD_OR_HINTED = ["title", "placeholder", "aria-label"];
    const VERBATIM = ["textarea", "pre", "code", "kbd"];

    // h("button", {class: "x", onclick: f}, "text", child, …); null children are left out.
    function h(tag, attributes, ...children) {
        const element = document.createElement(tag);
        for (const [key, value] of Object.entries(attributes || {})) {
            if (value === null || value === undefined || value === false) continue;
            if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
            else if (key in element && typeof value !== "string") element[key] = value;
            else element.setAttribute(key, value === true ? "" : READ_ALOUD_OR_HINTED.includes(key) ? translated(value) : value);
        }
        const shown = (child) => (typeof child === "string" && !VERBATIM.includes(tag) ? translated(child) : child);
        element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined).map(shown));
        return element;
    }

    function svg(tag, attributes, ...children) {
        const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
        for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
        element.append(...children);
        return element;
    }

    const root = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const plural = (count, one, many) => `${count} ${count === 1 ? one : many || one + "s"}`;

    function duration(seconds) {
        if (seconds === null || !isFinite(seconds)) return "";
        const whole = Math.round(seconds);
        const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
        const pad = (number) => String(number).padStart(2, "0");
        return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
    }

    // ---- calls ---------------------------------------------------------------------------------------------------

    class CallError extends Error {
        constructor(status, problem, remedy) {
            super(`${problem} ${remedy || ""}`.trim());
            Object.assign(this, {status, problem, remedy: remedy || ""});
        }
    }

    // "Reload UI" takes everything off the page until the WebUI answers again. It must not be asked anything meanwhile: a
    // request in a certain moment of its start ends it.
    const left = () => state.mounted && !document.getElementById("dsm_page");

    // With `leaving` the browser sends it even if the page is gone meanwhile.
    async function call(method, path, values, leaving) {
        if (left()) return new Promise(() => {});
        let address = base + path;
        const options = {method, headers: {"X-DSM-Token": state.token}, cache: "no-store", keepalive: Boolean(leaving)};
        if (method === "GET" && values) address += "?" + new URLSearchParams(values);
        else if (values) {
            options.body = JSON.stringify(values);
            options.headers["Content-Type"] = "application/json";
        }
        let response;
        try {
            response = await fetch(address, options);
        } catch (error) {
            throw new CallError(0, "The program does not answer.", "Look whether it still runs, then try again.");
        }
        const answer = await response.json().catch(() => null);
        if (response.ok && answer !== null) return answer;
        const error = (answer && answer.error) || {problem: `The program answered ${response.status}.`, remedy: "Reload the page."};
        throw new CallError(response.status, error.problem, error.remedy);
    }

    const get = (path, values) => call("GET", path, values);
    const post = (path, values, leaving) => call("POST", path, values || {}, leaving);

    const address = (path, values) => base + path + "?" + new URLSearchParams({...values, token: state.token});
    const fileAddress = (path, stamp) => address("file", stamp ? {path, v: stamp} : {path});
    const thumbnail = (path, size, stamp) => address("thumbnail", {path, size, v: stamp || 0});

    // ---- messages ------------------------------------------------------------------------------------------------

    // What lies over the page hangs here, also when another tab of the WebUI is selected.
    function over(element) {
        let layer = document.getElementById("dsm_over");
        if (!layer) {
            layer = h("div", {id: "dsm_over", class: "dsm"}, h("div", {class: "dsm-toasts", "aria-live": "polite"}));
            document.body.append(layer);
        }
        if (element) layer.append(element);
        return layer;
    }

    function toast(text, kind) {
        const stack = over().firstChild;
        const item = h("div", {class: `dsm-toast dsm-${kind || "ok"}`, role: kind === "error" ? "alert" : "status"}, text);
        item.addEventListener("click", () => item.remove());
        stack.append(item);
        setTimeout(() => item.remove(), kind === "error" ? 12000 : 4000);
    }

    // Run an act of the person's; what goes wrong becomes a toast.
    async function attempt(act) {
        try {
            return await act();
        } catch (error) {
            toast(error.message, "error");
            return undefined;
        }
    }

    function line(kind, problem, remedy) {
        return h("div", {class: `dsm-line dsm-${kind}`, role: kind === "error" ? "alert" : "status"},
            h("b", {}, problem), remedy ? [" ", remedy] : null);
    }

    function empty(title, text, ...buttons) {
        return h("div", {class: "dsm-empty"}, h("b", {}, title), h("span", {}, text || ""),
            buttons.length ? h("div", {class: "dsm-empty-buttons"}, buttons) : null);
    }

    // A dialog over the page; resolves with true for its button, false for Escape or Cancel.
    function confirm(title, text, button) {
        return new Promise((resolve) => {
            const close = (answer) => { overlay.remove(); back && back.focus && back.focus(); resolve(answer); };
            const back = document.activeElement;
            const yes = h("button", {class: "dsm-button dsm-primary", onclick: () => close(true)}, button);
            const overlay = h("div", {class: "dsm-overlay", role: "dialog", "aria-modal": "true", "aria-label": title},
                h("div", {class: "dsm-dialog"}, h("h3", {}, title), typeof text === "string" ? h("p", {}, text) : text,
                    h("div", {class: "dsm-dialog-buttons"},
                        h("button", {class: "dsm-button", onclick: () => close(false)}, "Cancel"), yes)));
            overlay.addEventListener("keydown", (event) => {
                event.stopPropagation();
                if (event.key === "Escape") close(false);
                if (event.key === "Enter" && event.target.tagName === "INPUT") { event.preventDefault(); close(true); }
            });
            over(overlay);
            yes.focus();
        });
    }

    function showKeys(title, keys) {
        const back = document.activeElement;
        const close = () => { overlay.remove(); back && back.focus && back.focus(); };
        const rows = keys.map(([key, text]) => h("div", {}, h("span", {}, key.split(" ").map((part) => h("kbd", {}, part))), h("span", {}, text)));
        const overlay = h("div", {class: "dsm-overlay", tabindex: "-1", role: "dialog", "aria-modal": "true", "aria-label": title, onclick: close},
            h("div", {class: "dsm-dialog"}, h("h3", {}, title), h("div", {class: "dsm-keys"}, rows)));
        overlay.addEventListener("keydown", (event) => { event.stopPropagation(); event.preventDefault(); close(); });
        over(overlay);
        overlay.focus();
    }

    // Pictures at full size, one after the other; items are {address, label}.
    function lightbox(items, index) {
        const back = document.activeElement;
        const picture = h("img", {alt: ""});
        const label = h("div", {class: "dsm-lightbox-label"});
        const show = (number) => {
            index = (number + items.length) % items.length;
            picture.src = items[index].address;
            picture.alt = items[index].label;
            label.textContent = `${items[index].label}  ·  ${index + 1} / ${items.length}`;
        };
        const close = () => { overlay.remove(); back && back.focus && back.focus(); };
        const overlay = h("div", {class: "dsm-overlay dsm-lightbox", tabindex: "-1", role: "dialog", "aria-modal": "true", onclick: close}, picture, label);
        picture.addEventListener("click", (event) => { event.stopPropagation(); show(index + 1); });
        overlay.addEventListener("keydown", (event) => {
            event.stopPropagation();
            event.preventDefault();
            if (event.key === "Escape" || event.key === "Enter") close();
            else if (event.key === "ArrowLeft") show(index - 1);
            else if (event.key === "ArrowRight" || event.key === " ") show(index + 1);
        });
        over(overlay);
        show(index);
        overlay.focus();
    }

    // ---- events between widgets ----------------------------------------------------------------------------------

    function on(name, listener) {
        (listeners[name] = listeners[name] || []).push(listener);
    }

    function tell(name, value) {
        for (const listener of listeners[name] || []) listener(value);
    }

    // ---- gradio's own elements -------------------------------------------------------------------------------------

    function press(id) {
        const element = root().querySelector(`#${id}`);
        const button = element && (element.tagName === "BUTTON" ? element : element.querySelector("button"));
        if (button) button.click();
        return Boolean(button);
    }

    function fill(id, value) {
        const element = root().querySelector(`#${id} textarea, #${id} input`);
        if (!element) return false;
        element.value = value;
        element.dispatchEvent(new Event("input", {bubbles: true}));
        return true;
    }

    // What those buttons do that need nothing of gradio's, by their id. gradio attaches its own listeners some time after it
    // drew a button, and a click before that would do nothing.
    const acts = {};
    const onClick = (id, act) => { acts[id] = act; };
    document.addEventListener("click", (event) => {
        const button = event.target instanceof Element && event.target.closest("button[id]");
        if (button && acts[button.id]) acts[button.id]();
    });

    const TABS = ["Dataset", "Crop", "Tag", "Prune", "Train", "LoRA"];

    // By id or by place, for what a button says may be translated. gradio 3 gives its buttons no ids.
    const tabButton = (label) => root().querySelector(`button#dsm_tab_${label.toLowerCase()}-button`) || root().querySelectorAll("#dsm_tabs > .tab-nav > button")[TABS.indexOf(label)];

    // Where the person has hidden it, the next one is opened.
    function openTab(label) {
        const labels = TABS.slice(TABS.indexOf(label)).filter((name) => !state.hidden.includes(name));
        const button = labels.length ? tabButton(labels[0]) : null;
        if (button) {
            button.click();
            root().querySelector("#dsm_page").scrollIntoView({block: "start"});
        }
    }

    // ---- mounting --------------------------------------------------------------------------------------------------

    function mountAll() {
        for (const place of root().querySelectorAll("[data-dsm]")) {
            const widget = widgets[place.dataset.dsm];
            // gradio may give an element that is there new attributes instead of making a new one.
            const asked = JSON.stringify(place.dataset);
            if (!widget || place.dsmMounted === asked) continue;
            if (!state.token && place.dataset.dsm !== "root") continue; // the root comes first
            place.dsmMounted = asked;
            widget(place);
        }
    }

    widgets.root = (place) => {
        state.token = place.dataset.token;
        state.mounted = Boolean(document.getElementById("dsm_page"));
        // The WebUI's own shortcuts look for buttons of a generation, which our tab has not, and fail.
        const page = root().querySelector("#dsm_page");
        page.addEventListener("keydown", (event) => {
            if (event.key === "Escape" || (event.key === "Enter" && (event.ctrlKey || event.metaKey || event.altKey))) event.stopPropagation();
        });
        const remembered = sessionStorage.getItem("dsm.project") || place.dataset.project || localStorage.getItem("dsm.project");
        if (remembered) openProject(remembered, false);
        setTimeout(mountAll, 0);
    };

    // ---- the project -----------------------------------------------------------------------------------------------

    function useProject(project) {
        state.project = project;
        for (const store of [sessionStorage, localStorage]) store.setItem("dsm.project", project.path);
        fill("dsm_project_path", project.path);
        showProject();
        tell("project", project);
    }

    function showProject() {
        const place = root().querySelector("[data-dsm=project]");
        if (!place) return;
        const project = state.project;
        place.replaceChildren(project
            ? h("div", {class: "dsm-project-line"}, h("b", {}, project.name),
                project.folders.map((folder) => h("span", {title: folder.path}, `${folder.name} `, h("b", {}, folder.pictures))))
            : h("div", {class: "dsm-project-line dsm-subdued"}, "No project is open yet. Name a folder: an existing one is opened, a new one is made with New."));
    }

    async function openProject(path, aloud, make) {
        try {
            useProject(await post(make ? "project/new" : "project/open", {path}));
            if (aloud) toast(`${state.project.name} is open.`);
        } catch (error) {
            if (aloud) toast(error.message, "error");
            showProject();
        }
    }

    // The counts changed: look again.
    async function refreshProject() {
        if (!state.project) return;
        try {
            state.project = await post("project/open", {path: state.project.path});
            showProject();
            tell("changed", state.project);
        } catch (error) {
            toast(error.message, "error");
        }
    }

    const typedProject = () => root().querySelector("#dsm_project_path textarea, #dsm_project_path input").value.trim();
    const project = {
        open: () => openProject(typedProject(), true, false),
        make: () => openProject(typedProject(), true, true),
        refresh: refreshProject,
        use: useProject,
    };
    widgets.project = showProject;
    onClick("dsm_project_open", project.open);
    onClick("dsm_project_new", project.make);
    for (const label of TABS) onClick(`dsm_next_${label.toLowerCase()}`, () => openTab(label));

    let scheduled = false;
    function schedule() {
        if (scheduled) return;
        scheduled = true;
        setTimeout(() => { scheduled = false; mountAll(); }, 60);
    }

    function begin() {
        new MutationObserver(schedule).observe(document.body, {childList: true, subtree: true, attributeFilter: ["data-job", "data-once"]});
        schedule();
    }

    if (document.body) begin();
    else document.addEventListener("DOMContentLoaded", begin);

    return {
        widgets, state, h, svg, get, post, call, attempt, toast, line, empty, over, confirm, showKeys, lightbox, on, tell, press, fill,
        onClick, openTab, tabButton, translated, project, plural, duration, root, address, fileAddress, thumbnail, TABS,
        visible: (element) => element.isConnected && element.offsetParent !== null,
    };
})();
