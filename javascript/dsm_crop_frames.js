// The geometry of crop frames, in pixels of the picture: fitting, moving, resizing, and what training makes of them.
"use strict";

(function () {
    const SMALLEST = 16; // pixels of a frame's side
    const AREA_WEIGHT = 0.15; // as in training: half the area is worth a tenth of the picture

    // The share of a picture that training at a size cuts away.
    function lostShare(source, target) {
        const scale = Math.max(target[0] / source[0], target[1] / source[1]);
        return 1 - (target[0] / scale) * (target[1] / scale) / (source[0] * source[1]);
    }

    // The size that variable-aspect training gives a picture, as the trainer chooses it; null where it is too small.
    function trainingSize(source, asked, step) {
        const area = asked[0] * asked[1];
        let [best, cost] = [null, Infinity];
        for (let wide = step; wide <= Math.min(source[0], Math.floor(area / step)); wide += step) {
            const highest = Math.floor(Math.min(Math.floor(area / wide), source[1]) / step) * step;
            if (!highest) continue;
            const below = Math.floor(Math.floor(wide * source[1] / source[0]) / step) * step;
            for (const high of [below, below + step]) {
                const size = [wide, Math.min(Math.max(high, step), highest)];
                const price = Math.round((lostShare(source, size) - AREA_WEIGHT * Math.log(size[0] * size[1])) * 1e9);
                if (price < cost || (price === cost && best && size[0] * size[1] > best[0] * best[1])) [best, cost] = [size, price];
            }
        }
        return best;
    }

    // The largest training size of each width: what frames snap to.
    function buckets(asked, step) {
        const area = asked[0] * asked[1];
        const found = [];
        for (let wide = step; wide <= area / step; wide += step) {
            const high = Math.floor(area / wide / step) * step;
            if (high && wide / high <= 4 && high / wide <= 4) found.push([wide, high]);
        }
        return found.length ? found : [asked];
    }

    function nearest(ratio, asked, step) {
        const distance = (size) => Math.abs(Math.log(size[0] / size[1] / ratio));
        return buckets(asked, step).reduce((best, size) => (distance(size) < distance(best) ? size : best));
    }

    const width = (box) => box[2] - box[0];
    const height = (box) => box[3] - box[1];

    // Whole pixels; inside the picture where it fits, else around it.
    function placed(box, picture) {
        const [w, h] = [Math.max(SMALLEST, Math.round(width(box))), Math.max(SMALLEST, Math.round(height(box)))];
        const within = (start, length, limit) => length <= limit ? Math.max(0, Math.min(limit - length, start)) : Math.max(limit - length, Math.min(0, start));
        const [left, top] = [within(Math.round(box[0]), w, picture.width), within(Math.round(box[1]), h, picture.height)];
        return [left, top, left + w, top + h];
    }

    // The finished size of a frame, and the pixels that were asked for it.
    function finished(item, options, snap) {
        const [w, h] = [width(item.box), height(item.box)];
        if (item.mode === "keep") return {width: w, height: h, wanted: [w, h]};
        let wanted = [options.width, options.height];
        if (item.mode === "bucket" && !options.enlarge) wanted = trainingSize([w, h], wanted, options.bucket_step) || [w, h];
        else if (snap || item.mode === "bucket") wanted = nearest(w / h, wanted, options.bucket_step);
        const near = Math.abs(w / h / (wanted[0] / wanted[1]) - 1) < 0.02;
        if (near) {
            const whole = options.enlarge || (w >= wanted[0] && h >= wanted[1]);
            return {width: whole ? wanted[0] : w, height: whole ? wanted[1] : h, wanted};
        }
        const factor = Math.sqrt((options.width * options.height) / (w * h));
        const used = options.enlarge ? factor : Math.min(1, factor);
        return {width: Math.max(1, Math.round(w * used)), height: Math.max(1, Math.round(h * used)), wanted: [Math.round(w * factor), Math.round(h * factor)]};
    }

    // A box whose corner or side was pulled by dx and dy; `ratio` is kept if it is not 0.
    function resized(box, corner, dx, dy, picture, padding, ratio) {
        const [west, north] = [corner.includes("w"), corner.includes("n")];
        const [across, down] = [west || corner.includes("e"), north || corner.includes("s")];
        const [fixedX, fixedY] = [west ? box[2] : box[0], north ? box[3] : box[1]];
        const roomX = padding ? 8 * picture.width : west ? fixedX : picture.width - fixedX;
        const roomY = padding ? 8 * picture.height : north ? fixedY : picture.height - fixedY;
        let w = Math.max(SMALLEST, width(box) + (across ? (west ? -dx : dx) : 0));
        let h = Math.max(SMALLEST, height(box) + (down ? (north ? -dy : dy) : 0));
        if (ratio) {
            const wanted = !down ? w : !across ? h * ratio : Math.max(w, h * ratio);
            w = Math.min(wanted, roomX, roomY * ratio);
            h = w / ratio;
        } else {
            [w, h] = [Math.min(w, roomX), Math.min(h, roomY)];
        }
        return [west ? fixedX - w : fixedX, north ? fixedY - h : fixedY, west ? fixedX : fixedX + w, north ? fixedY : fixedY + h];
    }

    // Whether a frame has the size of a training bucket, as one that snapped.
    function isSnapped(item, options) {
        const size = nearest(width(item.box) / height(item.box), [options.width, options.height], options.bucket_step);
        return item.width === size[0] && item.height === size[1];
    }

    // The box around the same middle but of a shape: as large as the other one and in the picture, or, where it may be
    // padded, around the other one.
    function shaped(box, ratio, picture, padding) {
        const wide = padding
            ? Math.max(width(box), height(box) * ratio)
            : Math.min(Math.sqrt(width(box) * height(box) * ratio), picture.width, picture.height * ratio);
        const [x, y] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
        return [x - wide / 2, y - wide / ratio / 2, x + wide / 2, y + wide / ratio / 2];
    }

    DSM.frames = {lostShare, trainingSize, nearest, placed, finished, resized, shaped, isSnapped, width, height};
})();
