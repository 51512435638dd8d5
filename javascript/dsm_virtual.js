// Lists and grids of any length of which only what is in view is in the page.
"use strict";

(function () {
    const {h} = DSM;

    // DSM.virtual(container, {height(width) of a row, columns(width), gap, item(index) → element}). `container` scrolls;
    // `show(total)` draws anew, `draw()` only what came into view, `refresh()` everything in view.
    DSM.virtual = (container, options) => {
        const inner = h("div", {class: "dsm-virtual"});
        container.replaceChildren(inner);
        const gap = options.gap || 0;
        let total = 0;
        let shape = {columns: 1, width: 0, height: 1};
        const drawn = new Map(); // index → element

        function measure() {
            const width = container.clientWidth - 2 * gap;
            const columns = options.columns ? Math.max(1, options.columns(width)) : 1;
            const each = (width - gap * (columns - 1)) / columns;
            shape = {columns, width: each, height: options.height(each) + gap};
            inner.style.height = `${Math.ceil(total / columns) * shape.height + gap}px`;
        }

        function place(element, index) {
            const [row, column] = [Math.floor(index / shape.columns), index % shape.columns];
            element.style.cssText = `position: absolute; left: ${gap + column * (shape.width + gap)}px; top: ${gap + row * shape.height}px; width: ${shape.width}px; height: ${shape.height - gap}px`;
        }

        function range() {
            const first = Math.max(0, Math.floor(container.scrollTop / shape.height) - 2) * shape.columns;
            const rows = Math.ceil(container.clientHeight / shape.height) + 4;
            return [first, Math.min(total, first + rows * shape.columns)];
        }

        // A picture that is out of view is no longer waited for: the browser asks for a few at a time only.
        function release(element) {
            for (const image of element.querySelectorAll("img")) if (!image.complete) image.removeAttribute("src");
            element.remove();
        }

        function draw() {
            if (!container.clientWidth) return;
            const [first, end] = range();
            for (const [index, element] of drawn) {
                if (index < first || index >= end) { release(element); drawn.delete(index); }
            }
            for (let index = first; index < end; index++) {
                if (drawn.has(index)) continue;
                const element = options.item(index);
                place(element, index);
                drawn.set(index, element);
                inner.append(element);
            }
        }

        function refresh() {
            for (const element of drawn.values()) release(element);
            drawn.clear();
            measure();
            draw();
        }

        let waiting = false;
        container.addEventListener("scroll", () => {
            if (waiting) return;
            waiting = true;
            requestAnimationFrame(() => { waiting = false; draw(); if (options.seen) options.seen(...range()); });
        }, {passive: true});
        new ResizeObserver(() => {
            const before = `${shape.columns} ${shape.width}`;
            measure();
            if (`${shape.columns} ${shape.width}` !== before) refresh();
            else draw();
        }).observe(container);

        return {
            refresh, draw, range, drawn,
            get columns() { return shape.columns; },
            show: (count) => { total = count; refresh(); if (options.seen) options.seen(...range()); },
            replace: (index) => {
                const old = drawn.get(index);
                if (!old) return;
                const element = options.item(index);
                place(element, index);
                drawn.set(index, element);
                old.replaceWith(element);
            },
            reveal: (index) => {
                const top = Math.floor(index / shape.columns) * shape.height;
                if (top < container.scrollTop) container.scrollTop = top;
                else if (top + shape.height + gap > container.scrollTop + container.clientHeight) container.scrollTop = top + shape.height + gap - container.clientHeight;
                draw();
            },
        };
    };
})();
